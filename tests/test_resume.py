"Runs that are cut off by real signals, at real moments, and go on."
import random, re, signal, subprocess, time
import pytest
from helpers import ROOT, binary_file, command, env, finished, flags, records, run, still_model, until, weights
from rerank_nb.tiny import tiny_model


@pytest.fixture
def job(tmp_path):
    "Flags of a run with dropout, negatives drawn anew, three epochs of 8 steps, the last batch smaller."
    model = tiny_model(tmp_path/'tiny', 'bert')
    data, dev = binary_file(tmp_path/'t.jsonl', 41), binary_file(tmp_path/'d.jsonl', 6, seed=1)
    usual = dict(epochs=3, eval_dataset=dev, logging_steps=3, checkpointing_steps=4, negatives_per_query=2,
                 mixed_precision='no', resume_from_checkpoint='latest')
    return lambda out, n=1, **kw: flags(model, data, out, **dict(batch_size=16 // n) | usual | kw)


@pytest.mark.parametrize('n', [1, 2])
def test_killed_and_resumed_is_bit_identical(n, job, tmp_path):
    whole, cut = tmp_path/'whole', tmp_path/'cut'
    p = run(*command(n), *job(whole, n), env=env())
    finished(p, whole)
    assert 'no checkpoint in' in p.stdout
    accidents = [   # epochs have 8 steps, checkpoints come after 4, 8, 12, ...
        f'kill:{random.randrange(5, 8)}:{n - 1}',      # in the middle of an epoch
        f'kill:{random.randrange(8, 12)}:0',           # right after one
        'write:16:0',                                  # while the checkpoint at an epoch's end is written
        f'kill:{random.randrange(17, 24)}:{n - 1}']    # in the last epoch
    for accident in accidents:
        p = run(*command(n), *job(cut, n), env=env(accident))
        assert p.returncode != 0 and not (cut/'model').exists(), accident
        if accident.startswith('write'):
            assert (cut/'checkpoint_12').exists() and not (cut/'checkpoint_16').exists()
    p = run(*command(n), *job(cut, n), env=env())
    finished(p, cut)
    assert 'going on from' in p.stdout
    assert records(cut) == records(whole), accidents
    for name in ('model', 'epoch_1', 'epoch_2', 'epoch_3'):
        assert weights(cut, name) == weights(whole, name), (name, accidents)
    assert not list(cut.glob('.*.tmp'))


@pytest.mark.parametrize('n', [1, pytest.param(4, marks=pytest.mark.slow)])
def test_resumed_in_another_number_of_processes(n, tmp_path):
    still, data = still_model(tmp_path/'still'), binary_file(tmp_path/'t.jsonl')
    usual = dict(epochs=2, logging_steps=1, checkpointing_steps=7, mixed_precision='no', lr=1e-4,
                 resume_from_checkpoint='latest')
    def words(out, k, **kw): return flags(still, data, out, **dict(batch_size=24 // k) | usual | kw)
    whole, cut = tmp_path/'whole', tmp_path/'cut'
    finished(run(*command(2), *words(whole, 2), env=env()), whole)
    assert run(*command(2), *words(cut, 2), env=env('kill:11:1')).returncode != 0
    p = run(*command(n), *words(cut, n), env=env())
    finished(p, cut)
    assert 'going on from' in p.stdout and 'step 7, epoch 1' in p.stdout
    a, b = records(whole), records(cut)
    where_a, where_b = ([(r['step'], r['epoch'], r['lr']) for r in rows] for rows in (a, b))
    assert where_a == where_b and len(a) == 18
    for x, y in zip(a, b):
        for k in ('loss', 'grad_norm'): assert x[k] == pytest.approx(y[k], abs=1e-6), (x, y)
    p = run(*command(n), *words(cut, n, batch_size=5), env=env())
    assert p.returncode != 0 and 'pairs a step over all processes: found' in p.stderr


@pytest.mark.parametrize('n,whom', [(1, 'process'), (2, 'worker'), (2, 'launcher')])
def test_sigterm_writes_a_checkpoint(n, whom, job, tmp_path):
    whole, cut = tmp_path/'whole', tmp_path/'cut'
    kw = dict(checkpointing_steps=1000, logging_steps=1, epochs=12)
    finished(run(*command(n), *job(whole, n, **kw), env=env()), whole)
    if whom == 'launcher':
        p = subprocess.Popen([*command(n), *job(cut, n, **kw)], cwd=ROOT, env=env(), stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
        until(lambda: (cut/'metrics.jsonl').exists() and len(records(cut)) >= 5, p)
        p.send_signal(signal.SIGTERM)
        out, err = p.communicate(timeout=60)
        code = p.returncode
    else:
        p = run(*command(n), *job(cut, n, **kw), env=env(f'term:20:{n - 1}'))
        out, err, code = p.stdout, p.stderr, p.returncode
    assert code != 0, out + err
    said = re.search(r'stopped by SIGTERM after step (\d+) of 96', out)
    assert said and '--resume_from_checkpoint latest' in out, out + err
    assert [f.name for f in cut.glob('checkpoint_*')] == [f'checkpoint_{said[1]}'] and not (cut/'model').exists()
    if whom != 'launcher': assert said[1] == '21'
    finished(run(*command(n), *job(cut, n, **kw), env=env()), cut)
    assert records(cut) == records(whole) and weights(cut) == weights(whole)


def test_one_failing_process_ends_all(job, tmp_path):
    for accident in ('raise:5:1', 'save:8:1'):
        out = tmp_path/accident.replace(':', '')
        start = time.time()
        p = run(*command(2), *job(out, 2), env=env(accident))
        assert p.returncode != 0 and time.time() - start < 100
        assert 'process 1 broke' in p.stderr and p.stderr.index('process 1 broke') < p.stderr.index('Root Cause')
        first = re.search(r'Traceback.*?^\S*Error.*?$', p.stderr, re.S | re.M)
        assert 'process 1 broke' in first[0], p.stderr
        assert not [f for f in out.iterdir() if f.name in ('model', 'epoch_1') or f.name.endswith('.tmp')]


def test_a_process_that_hangs_ends_all(job, tmp_path):
    start = time.time()
    p = run(*command(2), *job(tmp_path/'out', 2, ddp_timeout=5), env=env('hang:5:1'))
    assert p.returncode != 0 and time.time() - start < 120
    assert 'imed out' in p.stderr, p.stderr


def test_a_damaged_checkpoint(job, tmp_path):
    out = tmp_path/'out'
    assert run(*command(1), *job(out), env=env('kill:10:0')).returncode != 0
    data = out/'checkpoint_8/__0_0.distcp'
    data.write_bytes(data.read_bytes()[:1000])
    p = run(*command(1), *job(out), env=env())
    assert p.returncode == 1 and 'Traceback' not in p.stderr
    assert 'checkpoint_8: the checkpoint is damaged: __0_0.distcp has 1,000 bytes' in p.stderr
    older = re.search(r'--resume_from_checkpoint (\S+)', p.stderr)[1]
    finished(run(*command(1), *job(out, resume_from_checkpoint=older), env=env()), out)
    assert (out/'checkpoint_8.aside').is_dir()
    whole = tmp_path/'whole'
    finished(run(*command(1), *job(whole), env=env()), whole)
    assert records(out) == records(whole) and weights(out) == weights(whole)
