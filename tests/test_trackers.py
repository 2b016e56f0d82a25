"Trackers for real: wandb offline and tensorboard, each read back."
from helpers import TRAIN, clean_env, finished, flags, run


def test_wandb_offline_without_a_login(tiny, binary, tmp_path):
    out = tmp_path/'out'
    words = flags(tiny['bert'], binary[0], out, log_with='wandb', logging_steps=2)
    p = run(*TRAIN, *words, env=clean_env(HOME=str(tmp_path), NETRC=str(tmp_path/'none')))
    finished(p, out)
    assert 'logging offline' in p.stdout
    files = list((out/'logs/wandb').glob('offline-run-*/*.wandb'))
    assert len(files) == 1 and b'grad_norm' in files[0].read_bytes()


def test_tensorboard(tiny, binary, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    out = tmp_path/'out'
    words = flags(tiny['bert'], binary[0], out, log_with='tensorboard', logging_steps=2, eval_dataset=binary[1])
    records = finished(run(*TRAIN, *words, env=clean_env()), out)
    event = next(p for p in (out/'logs').rglob('events.out.tfevents.*'))
    read = EventAccumulator(str(event.parent))
    read.Reload()
    logged = {e.step: e.value for e in read.Scalars('loss')}
    wanted = {r['step']: r['loss'] for r in records if 'loss' in r}
    assert logged.keys() == wanted.keys() and all(abs(logged[s] - wanted[s]) < 1e-5 for s in wanted)
    assert 'eval_ndcg@10' in read.Tags()['scalars']


def test_a_tracker_that_is_missing_stops_the_run_early(tiny, binary, tmp_path):
    p = run(*TRAIN, *flags(tiny['bert'], binary[0], tmp_path/'out', log_with='clearml'), env=clean_env())
    assert p.returncode == 1 and 'pip install clearml' in p.stderr and not (tmp_path/'out').exists()


def test_logging_cannot_change_the_run(tiny, binary, tmp_path):
    def losses(out, **kw):
        p = run(*TRAIN, *flags(tiny['bert'], binary[0], out, logging_steps=1, **kw), env=clean_env())
        return [r['loss'] for r in finished(p, out)]
    assert losses(tmp_path/'a') == losses(tmp_path/'b', log_with='tensorboard')
