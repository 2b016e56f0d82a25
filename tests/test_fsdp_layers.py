"A head in folders of its own (sentence-transformers) under FSDP: two processes are one, and the folder is whole."
import pytest
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder as Theirs
from helpers import binary_file, command, env, finished, flags, run
from test_fsdp import same_folder, same_records
from test_heads import PAIRS, edit, ettin, predict
from rerank_nb.model import CrossEncoder

SCRIPT = 'rerank_nb/train_reranker.py'


def below(folder):
    "Files of a folder and its folders, weights by path."
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob('*') if p.is_file())
    return files, {f: load_file(folder/f) for f in files if f.endswith('.safetensors')}


@pytest.mark.slow
@pytest.mark.parametrize('kind,pooling,also', [
    ('modernbert', 'cls', {}), ('bert', ('max', 'mean'), dict(lr_head=1e-4, gradient_checkpointing=1)),
    ('bert', 'mean', dict(lora_r=4)), ('modernbert', 'mean', dict(init_average=.5))])
def test_two_processes_equal_one(kind, pooling, also, tmp_path):
    start, one, two = tmp_path/'st', tmp_path/'one', tmp_path/'two'
    ettin(start, kind, pooling)
    if kind == 'bert': edit(start, 'config.json', hidden_dropout_prob=0., attention_probs_dropout_prob=0.)
    data, dev = binary_file(tmp_path/'t.jsonl', 12), binary_file(tmp_path/'d.jsonl', 6, seed=1)
    kw = dict(lr=2e-5, eval_dataset=dev, logging_steps=1, mixed_precision='no', **also)
    a = finished(run(*command(1, script=SCRIPT), *flags(start, data, one, batch_size=16, **kw), env=env()), one)
    p = run(*command(2, kind, SCRIPT), *flags(start, data, two, batch_size=8, **kw), env=env())
    b = finished(p, two)
    assert 'parameters are sharded over 2 processes' in p.stdout and len(a) == len(b) > 3
    same_records(a, b, ('loss', 'grad_norm', 'eval_loss', 'lr'), abs=2e-6)
    for name in ('model', 'epoch_1'):
        same_folder(one/name, two/name)
        (files, x), (others, y) = below(one/name), below(two/name)
        assert files == others and len(x) == 4   # the encoder, two Dense, a norm
        for f in x: assert max((x[f][k] - y[f][k]).abs().max() for k in x[f] if 'key.bias' not in k) < 1e-6, f
    _, was = below(start)
    assert all((x[f][k] - was[f][k]).abs().max() > 1e-6 for f in x if f != 'model.safetensors' for k in x[f])
    ours = CrossEncoder.from_pretrained(two/'model').compute_score(PAIRS, max_len=120)
    assert (predict(Theirs(str(two/'model'), device='cpu')) - ours).abs().max() < 1e-5
