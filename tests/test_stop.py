"Told to stop, a run writes a checkpoint, whoever was told, with workers or without, also in an evaluation."
import re, signal, subprocess, sys
import psutil, pytest
from helpers import ROOT, binary_file, command, env, flags, records, until, weights
from rerank_nb import trainer
from rerank_nb.engine import Stopped
from rerank_nb.tiny import tiny_model
from rerank_nb.train_reranker import parse_args

LISTEN = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def words(tmp_path):
    "Flags of a run of 156 steps that never writes a checkpoint of its own accord."
    model, data = tiny_model(tmp_path/'tiny', 'bert'), binary_file(tmp_path/'t.jsonl', 41)
    kw = dict(epochs=12, save_on_epoch_end=0, logging_steps=1, checkpointing_steps=1000, mixed_precision='no',
              resume_from_checkpoint='latest')
    return lambda out, n=1, **more: flags(model, data, out, **kw | dict(batch_size=16 // n) | more)


def start(*cmd, cut=None):
    """A process in a group of its own, in which SIGINT means what it means in a terminal. Tokenizers may use threads
    there, which a loader's worker, a fork of it, would wait for without end."""
    threads = env(cut, TOKENIZERS_PARALLELISM='true')
    return subprocess.Popen([sys.executable, '-c', LISTEN, *cmd], cwd=ROOT, env=threads, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def is_stopped(p, out, by, code=None):
    "The step after which a run stopped; it left a checkpoint, no traceback, no process."
    said, err = p.communicate(timeout=120)
    found = re.search(rf'stopped by {by} after step (\d+) of 156', said)
    assert found and '--resume_from_checkpoint latest' in said, said + err
    assert p.returncode != 0 and (code is None or p.returncode == code)
    assert [f.name for f in out.glob('checkpoint_*')] == [f'checkpoint_{found[1]}'] and not (out/'model').exists()
    assert not [q for q in psutil.process_iter(['cmdline']) if str(out) in (q.info['cmdline'] or [])]
    return int(found[1]), said, err


@pytest.mark.parametrize('workers,cut,by,code', [
    (2, 'group', 'SIGTERM', 143), (2, 'int', 'Ctrl-C', 130),
    pytest.param(0, 'group', 'SIGTERM', 143, marks=pytest.mark.slow),
    pytest.param(2, 'term', 'SIGTERM', 143, marks=pytest.mark.slow)])
def test_one_process(workers, cut, by, code, words, tmp_path):
    out = tmp_path/'out'
    p = start(*command(1), *words(out, dataloader_num_workers=workers), cut=f'{cut}:20:0')
    step, said, err = is_stopped(p, out, by, code)
    assert step == 21 and 'Traceback' not in said + err and 'stopped' not in err


@pytest.mark.slow
@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('whom', ['launcher', 'group', 'process'])
def test_two_processes(whom, workers, words, tmp_path):
    out, whole = tmp_path/'out', tmp_path/'whole'
    cmd = [*command(2), *words(out, 2, dataloader_num_workers=workers)]
    p = start(*cmd, cut='term:20:1' if whom == 'process' else None)
    if whom != 'process': until(lambda: (out/'metrics.jsonl').exists() and len(records(out)) >= 5, p)
    if whom == 'launcher': p.send_signal(signal.SIGTERM)
    if whom == 'group':   # the launcher and every process below it, as a batch system does
        processes = [psutil.Process(p.pid), *psutil.Process(p.pid).children(recursive=True)]
        for q in processes: q.send_signal(signal.SIGTERM)
    is_stopped(p, out, 'SIGTERM')
    for line in (cmd, [*command(2), *words(whole, 2)]):
        p = start(*line)
        said, err = p.communicate(timeout=120)
        assert p.returncode == 0, said + err
    assert records(out) == records(whole) and weights(out) == weights(whole)


def test_a_long_evaluation_is_broken_off_and_made_up_for(words, tmp_path):
    "In this process: the signal comes in the evaluation after step 8; the run that goes on has a whole run's records."
    dev = binary_file(tmp_path/'d.jsonl', 20, seed=1)
    of_run = dict(epochs=2, eval_dataset=dev, eval_steps=4, logging_steps=4)
    def config(out): return parse_args(words(out, **of_run))
    whole, out = tmp_path/'whole', tmp_path/'out'
    trainer.train(config(whole))
    ask, evaluate = trainer.StopSignal.ask, trainer.Run.evaluate
    def last_step(): return records(out)[-1]['step'] if (out/'metrics.jsonl').exists() else 0
    for step, left in ((0, []), (8, ['checkpoint_8'])):   # before training: nothing is worth keeping
        asked = []
        def evaluates(self, epoch):
            asked.clear()
            return evaluate(self, epoch)
        def asks(self, acc):
            asked.append(step)
            if len(asked) == 3 and last_step() == step: signal.raise_signal(signal.SIGTERM)
            return ask(self, acc)
        with pytest.MonkeyPatch.context() as m, pytest.raises(Stopped) as e:
            m.setattr(trainer.StopSignal, 'ask', asks)
            m.setattr(trainer.Run, 'evaluate', evaluates)
            trainer.train(config(out))
        assert e.value.code == 143 and len(asked) == 4   # once more for which signal it was
        assert [p.name for p in out.glob('checkpoint_*')] == left and out.exists() == bool(left)
    trainer.train(config(out))
    assert records(out) == records(whole) and weights(out) == weights(whole)
