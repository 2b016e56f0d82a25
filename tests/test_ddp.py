"Two processes without FSDP, each with the whole model: the numbers of one process, in training and evaluation."
import sys
import pytest
from safetensors.torch import load_file
from helpers import binary_file, command, env, finished, flags, run, still_model

TORCHRUN = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2']
SAME = {'loss', 'grad_norm', 'lr', 'score_std', 'eval_loss', 'eval_ndcg@10', 'eval_mrr@10', 'eval_map'}


def test_two_whole_models_equal_one(tmp_path):
    "Seven batches of 10 pairs, three to a step; the last step has one batch of 5, of which the second process has 2."
    model = still_model(tmp_path/'still')
    data, dev = binary_file(tmp_path/'t.jsonl', 13), binary_file(tmp_path/'d.jsonl', 7, seed=1)
    kw = dict(eval_dataset=dev, logging_steps=1, lr=1e-4, mixed_precision='no', gradient_accumulation_steps=3,
              save_on_epoch_end=0)
    one, two = tmp_path/'one', tmp_path/'two'
    a = finished(run(*command(1), *flags(model, data, one, batch_size=10, **kw), env=env()), one)
    p = run(*TORCHRUN, 'tests/cut.py', *flags(model, data, two, batch_size=5, **kw), env=env(), timeout=120)
    b = finished(p, two)
    assert 'FSDP' not in p.stdout and [r['step'] for r in a] == [r['step'] for r in b] == [0, 1, 2, 3, 3]
    for x, y in zip(a, b):
        for key in SAME & set(x): assert x[key] == pytest.approx(y[key], abs=2e-6), (key, x, y)
    w, v = (load_file(d/'model/model.safetensors') for d in (one, two))
    compared = [k for k in w if not k.endswith('key.bias')]   # whose gradient is rounding
    assert all((w[k] - v[k]).abs().max() < 2e-6 for k in compared)
