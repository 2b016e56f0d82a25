"""The training script, with an accident: CUT='what:step:rank'. With CUT_ONCE=path it happens only if that file does not
exist yet.

Before the step:
    kill: SIGKILL, term: SIGTERM, int: SIGINT as Ctrl-C, group: SIGTERM to all processes of its group
    raise: an exception, hang: the process sleeps
After the step:
    write: SIGKILL while its checkpoint is written, save: an exception while a model is saved
"""
import os, signal, subprocess, sys, time
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import rerank_nb.checkpoint as checkpoint, rerank_nb.trainer as trainer
from rerank_nb.engine import leave
from rerank_nb.train_reranker import main

what, step, rank = os.environ.get('CUT', 'nothing:-1:0').split(':')
mine = os.environ.get('RANK', '0') == rank
once = os.environ.get('CUT_ONCE')
if once and os.path.exists(once): mine = False
now = dict(step=0)
seed_step, save, save_model = trainer.seed_step, checkpoint.dcp.save, trainer.save_model


def at_step(seed, s, process):
    now['step'] = s
    if mine and s == int(step):
        if once: Path(once).touch()
        if what == 'kill': os.kill(os.getpid(), signal.SIGKILL)
        if what == 'term': os.kill(os.getpid(), signal.SIGTERM)
        if what == 'group':   # as a batch system does, from outside
            subprocess.run(['kill', '-s', 'TERM', '--', f'-{os.getpgid(0)}'], start_new_session=True, timeout=60)
            time.sleep(.5)
        if what == 'int': os.kill(os.getpid(), signal.SIGINT)
        if what == 'raise': raise RuntimeError(f'process {rank} broke')
        if what == 'hang': time.sleep(600)
    seed_step(seed, s, process)


def at_write(*args, **kw):
    save(*args, **kw)
    if what == 'write' and mine and now['step'] + 1 == int(step): os.kill(os.getpid(), signal.SIGKILL)


def at_save(*args):
    if what == 'save' and mine and now['step'] + 1 >= int(step): raise RuntimeError(f'process {rank} broke')
    save_model(*args)


if __name__ == '__main__':
    trainer.seed_step, checkpoint.dcp.save, trainer.save_model = at_step, at_write, at_save
    main()
    leave()
