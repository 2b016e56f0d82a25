"A disk that fills up, and a stdout that is lost, do not cost a trained model."
import gc, os, subprocess
from contextlib import contextmanager
import pytest
from helpers import binary_file, flags, no_file_larger_than, read_jsonl
from rerank_nb import checkpoint, records, trainer
from rerank_nb.files import NotWritten, writing
from rerank_nb.model import CrossEncoder
from rerank_nb.tiny import tiny_model
from rerank_nb.train_reranker import parse_args


@pytest.fixture
def config(tmp_path):
    model, data = tiny_model(tmp_path/'tiny', 'bert'), binary_file(tmp_path/'t.jsonl', 8)
    usual = dict(logging_steps=1, save_on_epoch_end=0)
    return lambda **kw: parse_args(flags(model, data, tmp_path/'out', **usual | kw))


def test_the_model_is_tried_before_the_first_step(config, tmp_path):
    said = r'out/model \(\d+ kB\): could not be written: file too large'
    with no_file_larger_than(50_000), pytest.raises(NotWritten, match=said): trainer.train(config())
    assert not (tmp_path/'out').exists()


def test_a_checkpoint_that_does_not_fit_leaves_the_model(config, tmp_path):
    out, size = tmp_path/'out', (tmp_path/'tiny/model.safetensors').stat().st_size
    with no_file_larger_than(2*size), pytest.raises(NotWritten) as e: trainer.train(config(checkpointing_steps=2))
    said = str(e.value)
    assert 'checkpoint_2 (' in said and 'There is no older checkpoint. The model after step 2 is saved' in said, said
    assert not [p for p in out.iterdir() if p.name.endswith('.tmp') or p.name.startswith('checkpoint')]
    CrossEncoder.from_pretrained(out/'model')


@pytest.mark.parametrize('what,still', [
    ('best', True), ('epoch_1', True), ('metrics.jsonl', False), ('history.png', False)])
def test_any_file(what, still, config, tmp_path, monkeypatch, capsys):
    "`still`: the run ends with an error that says where the model is; else it goes on with a warning."
    full, count = OSError(28, 'No space left on device'), []
    @contextmanager
    def filling(path, *args, **kw):
        with writing(path, *args, **kw):
            if str(path).endswith(what):
                count.append(path)
                raise full
            yield
    for module in (records, trainer, checkpoint): monkeypatch.setattr(module, 'writing', filling)
    c = config(save_on_epoch_end=1, eval_dataset=binary_file(tmp_path/'d.jsonl', 4), metric_for_best_model='map')
    if still:
        said = rf'{what} .*no space left: .*The model after step \d+ is saved: .*out/model'
        with pytest.raises(NotWritten, match=said): trainer.train(c)
    else:
        trainer.train(c)
        assert 'no space left' in capsys.readouterr().out
    assert count
    CrossEncoder.from_pretrained(tmp_path/'out/model')


def test_records_are_made_up_for_when_there_is_space_again(config, tmp_path, monkeypatch):
    once = [OSError(28, 'No space left on device')]
    @contextmanager
    def filling(path, *args, **kw):
        with writing(path, *args, **kw):
            if str(path).endswith('metrics.jsonl') and once: raise once.pop()
            yield
    monkeypatch.setattr(records, 'writing', filling)
    history = trainer.train(config())
    assert not once and read_jsonl(tmp_path/'out/metrics.jsonl') == history


def test_a_lost_stdout(config, tmp_path, monkeypatch):
    class Gone:
        encoding = 'gbk'
        def write(self, text): raise BrokenPipeError(32, 'Broken pipe')
        def flush(self): raise BrokenPipeError(32, 'Broken pipe')
    for stream in ('sys.stdout', 'sys.stderr'): monkeypatch.setattr(stream, Gone())
    trainer.train(config())
    CrossEncoder.from_pretrained(tmp_path/'out/model')


@pytest.mark.skipif(os.geteuid() != 0, reason='mounting a small disk needs root')
@pytest.mark.slow
def test_a_disk_of_half_a_megabyte(config, tmp_path):
    out = tmp_path/'out'
    out.mkdir()
    mount = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=500k', 'tmpfs', out], timeout=60)
    if mount.returncode: pytest.skip('no mount')
    try:
        said = 'checkpoint_2 .*no space left.*The model after step 2 is saved'
        with pytest.raises(NotWritten, match=said): trainer.train(config(checkpointing_steps=2))
        CrossEncoder.from_pretrained(out/'model')
    finally:
        gc.collect()   # a model that was loaded from there holds its file mapped
        subprocess.run(['umount', out], check=True, timeout=60)
