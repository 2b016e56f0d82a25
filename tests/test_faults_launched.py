"Faults that need a launcher: what one of two processes alone meets is said, and all end."
import signal, subprocess, time
from pathlib import Path
import psutil, pytest
from faults.kill import kill_often
from helpers import ROOT, binary_file, command, env, finished, flags, records, run, until, weights
from rerank_nb.tiny import tiny_model


@pytest.fixture
def words(tmp_path):
    "Flags of a run of many steps in two processes, and its data."
    model, data = tiny_model(tmp_path/'tiny', 'bert'), binary_file(tmp_path/'t.jsonl', 60)
    usual = dict(batch_size=4, epochs=4, logging_steps=1, mixed_precision='no', checkpointing_steps=5,
                 resume_from_checkpoint='latest', save_on_epoch_end=0)
    return lambda out, **kw: flags(model, data, out, **usual | kw), Path(data)


def start(words, out):
    "A launched run that has taken some steps."
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    p = subprocess.Popen([*command(2), *words(out)], cwd=ROOT, env=env(), **pipes)
    until(lambda: (out/'metrics.jsonl').exists() and len(records(out)) > 6, p)
    return p


@pytest.mark.slow
def test_data_that_is_cut_off_is_named_by_whoever_meets_it(words, tmp_path):
    words, data = words
    p = start(words, tmp_path/'out')
    data.write_text('')
    said, err = p.communicate(timeout=240)
    assert p.returncode != 0 and 'has the file been changed since' in err, said + err
    assert 'error: ' in err and not (tmp_path/'out/model').exists()


@pytest.mark.slow
def test_a_launcher_that_dies_leaves_runs_that_can_be_gone_on_with(words, tmp_path):
    "Its processes go on, or end; either way the folder is free when they are gone."
    words, _ = words
    out = tmp_path/'out'
    p = start(words, out)
    below = psutil.Process(p.pid).children(recursive=True)
    p.kill()
    for q in below: q.kill()
    psutil.wait_procs(below, timeout=60)
    p.communicate(timeout=60)
    finished(run(*command(2), *words(out), env=env()), out)


@pytest.mark.slow
def test_a_terminal_of_two_processes_that_closes(words, tmp_path):
    "SIGHUP to all of them, as a terminal does: a checkpoint, and the run that goes on has the records of a whole one."
    words, _ = words
    out, whole = tmp_path/'out', tmp_path/'whole'
    p = start(words, out)
    for q in [psutil.Process(p.pid), *psutil.Process(p.pid).children(recursive=True)]: q.send_signal(signal.SIGHUP)
    said, err = p.communicate(timeout=240)
    assert p.returncode != 0 and not (out/'model').exists() and list(out.glob('checkpoint_*')), said + err
    for folder in (out, whole): finished(run(*command(2), *words(folder), env=env()), folder)
    assert records(out) == records(whole) and weights(out) == weights(whole)


def test_a_few_kills(tmp_path):
    "Of one process, at random moments; `make faults` kills 200 times."
    kills, chains, _ = kill_often(tmp_path, 3, 1, seed=int(time.time()))
    assert sum(kills.values()) == 3 and chains


@pytest.mark.slow
@pytest.mark.parametrize('processes', [1, 2])
def test_many_kills(processes, tmp_path):
    kills, chains, _ = kill_often(tmp_path, 40, processes, seed=int(time.time()))
    assert sum(kills.values()) == 40 and chains > 1
