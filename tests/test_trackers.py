"Trackers for real: wandb offline and tensorboard, each read back."
import json, sys
from conftest import clean_env, run
from test_launch import finished, flags


def test_wandb_offline_without_a_login(tiny, binary, tmp_path):
    out = tmp_path/'out'
    p = run(sys.executable, '-m', 'rerank_nb.train_reranker', *flags(tiny['bert'], binary[0], out, log_with='wandb', logging_steps=2), env=clean_env(HOME=str(tmp_path), NETRC=str(tmp_path/'none')))
    finished(p, out)
    assert 'logging offline' in p.stdout
    files = list((out/'logs/wandb').glob('offline-run-*/*.wandb'))
    assert len(files) == 1 and b'grad_norm' in files[0].read_bytes()


def test_tensorboard(tiny, binary, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    out = tmp_path/'out'
    records = finished(run(sys.executable, '-m', 'rerank_nb.train_reranker', *flags(tiny['bert'], binary[0], out, log_with='tensorboard', logging_steps=2, eval_dataset=binary[1]), env=clean_env()), out)
    event = next(p for p in (out/'logs').rglob('events.out.tfevents.*'))
    acc = EventAccumulator(str(event.parent)); acc.Reload()
    logged = {e.step: e.value for e in acc.Scalars('loss')}
    wanted = {r['step']: r['loss'] for r in records if 'loss' in r}
    assert logged.keys() == wanted.keys() and all(abs(logged[s] - wanted[s]) < 1e-5 for s in wanted)
    assert 'eval_ndcg@10' in acc.Tags()['scalars']


def test_a_tracker_that_is_missing_stops_the_run_early(tiny, binary, tmp_path):
    p = run(sys.executable, '-m', 'rerank_nb.train_reranker', *flags(tiny['bert'], binary[0], tmp_path/'out', log_with='clearml'), env=clean_env())
    assert p.returncode == 1 and 'pip install clearml' in p.stderr and not (tmp_path/'out').exists()


def test_logging_cannot_change_the_run(tiny, binary, tmp_path):
    a = finished(run(sys.executable, '-m', 'rerank_nb.train_reranker', *flags(tiny['bert'], binary[0], tmp_path/'a', logging_steps=1), env=clean_env()), tmp_path/'a')
    b = finished(run(sys.executable, '-m', 'rerank_nb.train_reranker', *flags(tiny['bert'], binary[0], tmp_path/'b', logging_steps=1, log_with='tensorboard'), env=clean_env()), tmp_path/'b')
    assert [r['loss'] for r in a] == [r['loss'] for r in b]
