"Fixtures: tiny checkpoints and data files. No hub is ever asked."
import json, os, random, signal, subprocess, sys, time
from pathlib import Path
import pytest

os.environ.setdefault('HF_HUB_OFFLINE', '1')
os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')
ROOT = Path(__file__).resolve().parent.parent
WORDS = 'fox dog jumps lazy quick list files folder command bread dough time query document score 中国 美国 泰山 文件 手机'.split()


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


def binary_file(path, n=40, seed=0):
    "Lines in which the relevant document names the query's word."
    rng = random.Random(seed)
    rows = []
    for _ in range(n):
        q, *others = rng.sample(WORDS, 6)
        rows.append(dict(query=q, pos=[f'{q} {others[0]}'], neg=[f'{a} {b}' for a, b in zip(others, others[1:])]))
    Path(path).write_text('\n'.join(json.dumps(r, ensure_ascii=False) for r in rows) + '\n', encoding='utf-8')
    return str(path)


def graded_file(path, n=40, seed=0):
    "Lines in which the grade counts how many of the query's words the document names."
    rng = random.Random(seed)
    lines = []
    for _ in range(n):
        q = rng.sample(WORDS, 3)
        rest = [w for w in WORDS if w not in q]
        lines += [f"{' '.join(q)}\t{' '.join(rng.sample(q, g) + rng.sample(rest, 4 - g))}\t{g}" for g in range(4)]
    Path(path).write_text('\n'.join(lines) + '\n', encoding='utf-8')
    return str(path)


def run(*cmd, cwd=ROOT, env=None, timeout=600):
    "A real process; stdout and stderr as text."
    cmd, env = [str(c) for c in cmd], {**os.environ, **(env or {})}
    return subprocess.run(cmd, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout)


def until(condition, process=None, seconds=240):
    "Wait until `condition()` holds; the test fails after so many seconds, or when the process has ended before."
    end = time.time() + seconds
    while not condition():
        assert process is None or process.poll() is None, f'ended too early:\n{process.communicate(timeout=60)}'
        assert time.time() < end, f'not in {seconds} seconds'
        time.sleep(.01)


def clean_env(**kw):
    "An environment in which nothing of accelerate's is set."
    plain = {k: v for k, v in os.environ.items() if not k.startswith(('ACCELERATE_', 'FSDP_', 'WANDB_'))}
    return {**plain, 'HF_HUB_OFFLINE': '1', **kw}


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
