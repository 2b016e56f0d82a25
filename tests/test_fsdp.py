"Training that is sharded over processes is training in one process: the same numbers, the same folders."
import re
from dataclasses import fields
from pathlib import Path
import pytest, torch, yaml
from accelerate.commands.config.config_args import ClusterConfig
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin, patch_environment
from safetensors.torch import load_file
from torch.distributed.fsdp import CPUOffloadPolicy
from transformers import AutoModelForSequenceClassification
from helpers import (
    ACCELERATE, CONFIG, ROOT, WORDS, as_flags, binary_file, command, env, finished, flags, run, still_model)
from rerank_nb.engine import launch_environment
from rerank_nb.model import CrossEncoder
from rerank_nb.tiny import tiny_model

METRICS = ('eval_ndcg@10', 'eval_mrr@10', 'eval_map')
SHARE = r'^(\d) +([\d,]+) +([\d.]+)%  \((\d+), (\d+)\)$'   # process, numbers, share of all, shape of the embeddings


def same_records(a, b, keys, **near):
    "Records of two runs have the same numbers, and the same metrics to the last bit."
    for x, y in zip(a, b):
        for key in keys:
            if key in x: assert x[key] == pytest.approx(y[key], **near), (key, x, y)
        for key in METRICS: assert x.get(key) == y.get(key)


def same_folder(one, many):
    "Two saved models have the same files, the same texts and, but for rounding, the same weights."
    assert sorted(f.name for f in one.iterdir()) == sorted(f.name for f in many.iterdir())
    for f in one.glob('*.json'): assert f.read_bytes() == (many/f.name).read_bytes(), f
    w, v = load_file(one/'model.safetensors'), load_file(many/'model.safetensors')
    assert w.keys() == v.keys()
    for key in w:   # the gradient of an attention key's bias is zero but for rounding, which AdamW turns into steps
        if key.endswith('key.bias'): continue
        assert torch.allclose(w[key], v[key], atol=1e-6, rtol=0), (key, (w[key] - v[key]).abs().max())


@pytest.mark.parametrize('kind,n,k', [
    ('bert', 2, 1), ('xlm-roberta', 2, 3), ('bert', 4, 3), pytest.param('xlm-roberta', 4, 1, marks=pytest.mark.slow)])
def test_many_processes_equal_one(kind, n, k, tmp_path):
    """A global batch of 20 pairs, k to a step, from 203 pairs: the last batch has 3, so with 4 processes one has
    nothing, and the last window of 3 has 2 batches."""
    model = still_model(tmp_path/'still', kind)
    data, dev = Path(binary_file(tmp_path/'t.jsonl')), binary_file(tmp_path/'d.jsonl', 11, seed=1)
    with data.open('a') as f: f.write('{"query": "fox", "pos": ["lazy fox"], "neg": ["bread", "the dog"]}\n')
    kw = dict(eval_dataset=dev, logging_steps=1, lr=2e-5, epochs=2, mixed_precision='no', fit_head=64)
    one, many = tmp_path/'one', tmp_path/'many'
    script = 'rerank_nb/train_reranker.py'
    a = finished(run(*command(1, script=script), *flags(model, data, one, batch_size=20*k, **kw), env=env()), one)
    words = flags(model, data, many, batch_size=20 // n, gradient_accumulation_steps=k, **kw)
    p = run(*command(n, kind, script), *words, env=env())
    b = finished(p, many)
    shares = re.findall(SHARE, p.stdout, re.M)
    assert len(shares) == n and all(abs(float(share) - 100/n) < 3 for _, _, share, _, _ in shares), p.stdout
    total = int(re.search(r'word_embeddings.weight \((\d+), \d+\)', p.stdout)[1])
    rows = [int(r) for _, _, _, r, _ in shares]
    assert sum(rows) == total and max(rows) == -(-total // n)

    assert [r['step'] for r in a] == [r['step'] for r in b] and len(a) == 3 + 2 * -(-11 // k)
    same_records(a, b, ('loss', 'grad_norm', 'eval_loss', 'lr'), abs=1e-6, rel=1e-6)
    for name in ('model', 'epoch_1', 'epoch_2'): same_folder(one/name, many/name)
    pairs = [[q, f'{q} {d}'] for q in WORDS[:6] for d in WORDS[6:12]]
    x, y = (CrossEncoder.from_pretrained(d/'model').compute_score(pairs, max_len=64) for d in (one, many))
    assert (x - y).abs().max() < 1e-6 and x.std() > 1e-4
    AutoModelForSequenceClassification.from_pretrained(many/'epoch_1')


@pytest.mark.parametrize('loss_type', ['ce'])
def test_whole_lists_too(loss_type, tmp_path):
    model = still_model(tmp_path/'still')
    data, dev = binary_file(tmp_path/'t.jsonl', 43), binary_file(tmp_path/'d.jsonl', 11, seed=1)
    kw = dict(eval_dataset=dev, logging_steps=1, lr=2e-5, mixed_precision='no', loss_type=loss_type)
    one, two = tmp_path/'one', tmp_path/'two'
    a = finished(run(*command(1), *flags(model, data, one, batch_size=60, **kw), env=env()), one)
    b = finished(run(*command(2), *flags(model, data, two, batch_size=30, **kw), env=env()), two)
    same_records(a, b, ('loss', 'grad_norm', 'eval_loss'), abs=2e-6)


def as_configured(plugin):
    "The settings of accelerate's plugin under the names that a file has for them."
    policy = plugin.auto_wrap_policy
    by_layer = 'transformer' in getattr(policy, 'func', policy).__name__
    return dict(
        fsdp_version=plugin.fsdp_version,
        fsdp_reshard_after_forward=plugin.reshard_after_forward,
        fsdp_offload_params=isinstance(plugin.cpu_offload, CPUOffloadPolicy),
        fsdp_cpu_ram_efficient_loading=plugin.cpu_ram_efficient_loading,
        fsdp_activation_checkpointing=plugin.activation_checkpointing,
        fsdp_state_dict_type=plugin.state_dict_type.name,
        fsdp_transformer_layer_cls_to_wrap=','.join(plugin.transformer_cls_names_to_wrap),
        fsdp_auto_wrap_policy='TRANSFORMER_BASED_WRAP' if by_layer else '?')


@pytest.mark.parametrize('file', sorted((ROOT/'config').glob('*.yaml')), ids=lambda f: f.name)
def test_every_key_is_one_that_accelerate_knows(file):
    "accelerate accepts unknown keys in silence."
    config = yaml.safe_load(file.read_text())
    shard = config.pop('fsdp_config')
    assert set(config) <= {f.name for f in fields(ClusterConfig)} | {'same_network'}
    known = {a.dest for a in launch_command_parser()._actions}
    assert set(shard) <= known, set(shard) - known
    with patch_environment(**launch_environment(file)):
        plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == shard['fsdp_version'] == 2
    got = as_configured(plugin)
    assert shard == {k: got[k] for k in shard}


@pytest.mark.parametrize('kind,remedy', [
    ('xlm-roberta', 'use --config_file config/xlmroberta_default_config.yaml'),
    ('electra', '--fsdp_transformer_layer_cls_to_wrap ElectraLayer')])
def test_a_file_for_another_model(kind, remedy, binary, tmp_path):
    model = tiny_model(tmp_path/'m', kind)
    words = flags(model, binary[0], tmp_path/'out', mixed_precision='no')
    p = run(*command(2, 'bert'), *words, env=env())
    assert p.returncode != 0 and remedy in p.stderr
    assert 'File "' not in p.stderr.split('error: ')[0] and not (tmp_path/'out').exists()
    if kind == 'electra':
        remedied = [*ACCELERATE, *as_flags(config_file=CONFIG['bert'], num_processes=2), *remedy.split()]
        finished(run(*remedied, 'tests/cut.py', *words, env=env()), tmp_path/'out')


def test_fsdp_version_1_is_refused(binary, tmp_path, tiny):
    old = tmp_path/'old.yaml'
    old.write_text((ROOT/'config/default_fsdp.yaml').read_text().replace('  fsdp_version: 2\n', ''))
    words = flags(tiny['bert'], binary[0], tmp_path/'out')
    p = run(*ACCELERATE, '--config_file', old, '--num_processes', '2', 'tests/cut.py', *words, env=env())
    assert p.returncode != 0 and 'write fsdp_version: 2' in p.stderr


@pytest.mark.parametrize('config', ['default_fsdp.yaml', 'cpu_fsdp.yaml'])
def test_bf16_and_ram_efficient_loading_on_two_processes(config, binary, tmp_path, tiny):
    out = tmp_path/'out'
    launch = as_flags(config_file=f'config/{config}', num_processes=2)
    words = flags(tiny['bert'], binary[0], out, mixed_precision='bf16')
    finished(run(*ACCELERATE, *launch, 'tests/cut.py', *words, env=env()), out)
    assert {t.dtype for t in load_file(out/'model/model.safetensors').values()} == {torch.float32}
