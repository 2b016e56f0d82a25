"Fixtures: tiny checkpoints and data files; a limit on every test."
import os, signal
import pytest
from helpers import binary_file, graded_file, still_model

os.environ.setdefault('HF_HUB_OFFLINE', '1')
os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')


def pytest_configure(config):
    "What these tests expect are a CPU's figures: a GPU is seen only by those marked gpu (`pytest -m gpu`)."
    if config.option.markexpr != 'gpu': os.environ['CUDA_VISIBLE_DEVICES'] = ''


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    "No test waits for ever: ten minutes, forty for one that is marked slow."
    seconds = 60 * (40 if item.get_closest_marker('slow') else 10)
    def over(*_): raise TimeoutError(f'{item.name}: not done in {seconds} seconds')
    was = signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try: return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, was)


@pytest.fixture(scope='session')
def tiny(tmp_path_factory):
    "Folders of tiny checkpoints by model type."
    from rerank_nb.tiny import tiny_model
    root = tmp_path_factory.mktemp('tiny')
    return {k: tiny_model(root/k, k) for k in ('bert', 'xlm-roberta')}


@pytest.fixture
def binary(tmp_path): return binary_file(tmp_path/'train.jsonl'), binary_file(tmp_path/'dev.jsonl', 10, seed=1)


@pytest.fixture
def graded(tmp_path): return graded_file(tmp_path/'train.tsv'), graded_file(tmp_path/'dev.tsv', 10, seed=1)


@pytest.fixture
def still(tmp_path): return still_model(tmp_path/'still')


@pytest.fixture
def alone():
    "A test that starts without an accelerator, and leaves none."
    from rerank_nb.engine import forget_accelerator
    forget_accelerator()
    yield
    forget_accelerator()
