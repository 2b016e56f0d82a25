"What a GPU has to show, and what of that a machine without one can check: the counting, the comparing, the refusal."
import copy, sys
import pytest, torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from helpers import ACCELERATE, CONFIG, ROOT, TRAIN, clean_env, finished, flags, run, still_model, weights
from test_packed_families import OWN, VARIANTS, gradients, make, name, random_batch
from rerank_nb.losses import LOSSES, get_loss
from rerank_nb.model import CrossEncoder
from rerank_nb.tiny import tiny_model

sys.path.insert(0, str(ROOT/'benchmarks'))
import gpu


@pytest.fixture(scope='module')
def two(tmp_path_factory):
    "Two copies of a small model."
    folder = tmp_path_factory.mktemp('gpu')/'m'
    path = tiny_model(folder, 'xlm-roberta', max_len=512, hidden_size=128, initializer_range=.1)
    model = CrossEncoder.from_pretrained(path).eval()
    return model, copy.deepcopy(model)


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(sys, 'argv', ['gpu.py'])
    with pytest.raises(SystemExit) as e: gpu.main()
    said = 'no GPU here (torch.cuda.is_available() is False): nothing was run'
    assert e.value.code == said   # a text ends Python with 1


def test_operations_are_those_that_torch_counts(two):
    "Of a packed batch, but for the head, which sees one token a pair."
    batch, c = gpu.a_batch(two[0]), two[0].model.config
    head = 2 * len(batch) * (c.hidden_size**2 + c.hidden_size)
    with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH), torch.no_grad(): two[0](batch)
    assert counted.get_total_flops() == gpu.flops(c, batch.lens, training=False) + head
    with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH): two[0](batch).sum().backward()
    assert counted.get_total_flops() == gpu.flops(c, batch.lens) + 3 * head


def test_copies_are_equal_and_others_are_not(two):
    batch = gpu.a_batch(two[0])
    assert gpu.parity(*two, batch) == dict(logits=0., gradients=0.)
    half = gpu.parity(*two, batch, bf16=True)
    assert all(0 < x < gpu.BOUNDS['bf16'] for x in half.values()) and half['gradients'] > gpu.BOUNDS['float32']
    other = copy.deepcopy(two[1])
    with torch.no_grad(): other.model.base_model.encoder.layer[0].output.dense.weight.mul_(2)
    assert min(gpu.parity(two[0], other, batch).values()) > gpu.BOUNDS['bf16']


def test_chips_are_known_by_their_names():
    names = {'NVIDIA H100 80GB HBM3': 989e12, 'NVIDIA H100 PCIe': 756e12, 'NVIDIA H200': 989e12,
             'NVIDIA A100-SXM4-80GB': 312e12, 'NVIDIA L4': 121e12, 'NVIDIA L40S': 362e12,
             'NVIDIA GeForce RTX 4090': 165e12, 'Tesla T4': None}
    assert {n: gpu.peak(n) for n in names} == names
    assert gpu.matmul_rate('cpu', size=64, seconds=.01, dtype=torch.float32) > 0


def test_families_are_compared_and_what_is_too_far_is_said(tmp_path, monkeypatch, capsys):
    assert gpu.check_parity(tmp_path, 'cpu', ['roberta']) and capsys.readouterr().out.count('ok\n') == 2
    monkeypatch.setitem(gpu.BOUNDS, 'bf16', 1e-9)
    assert not gpu.check_parity(tmp_path, 'cpu', ['bert']) and capsys.readouterr().out.count('TOO FAR') == 1


def test_rates_count_real_tokens(two, tmp_path, capsys):
    pairs = gpu.random_pairs(64, 20)
    lens = gpu.token_lengths(two[0], pairs)
    assert len(lens) == 64 and max(lens) > 2 * min(lens)
    rate, operations = gpu.scoring_rate(two[0], pairs, seconds=.01)
    assert operations / rate == pytest.approx(gpu.flops(two[0].model.config, lens, training=False) / 64)
    found = gpu.measure(tmp_path, 'cpu', 'NVIDIA L4', dict(hidden_size=32), 64, .01, size=64)
    each = {k: found[k]['operations_per_second'] / found[k]['pairs_per_second'] for k in ('scoring', 'training')}
    assert 2 < each['training'] / each['scoring'] < 4 and found['peak'] == 121e12   # other pairs, backward counts twice
    said = capsys.readouterr().out
    assert 'peak 121 TFLOP/s (data sheet)' in said and 'scoring: ' in said and 'training: ' in said
    other = gpu.measure(tmp_path/'other', 'cpu', 'another', dict(hidden_size=32), 16, .01, size=64)
    assert other['source'].startswith('measured') and other['peak'] == other['products']


def test_the_notebooks_with_gpu_cells_are_found():
    assert 'nbs/03_model.ipynb' in [str(p.relative_to(ROOT)) for p in gpu.gpu_notebooks()]


@pytest.mark.gpu
@pytest.mark.parametrize('kind', ['bert', 'xlm-roberta'])
def test_a_step_in_bf16_waits_for_nothing(kind, tmp_path):
    "Forward and backward of a packed batch, without a copy that blocks; what torch does for embeddings is its own."
    model = CrossEncoder.from_pretrained(tiny_model(tmp_path/kind, kind, max_len=512), cuda_device='cuda:0').train()
    model.model.base_model.embeddings.requires_grad_(False)
    batch = gpu.a_batch(model).pin_memory()
    gpu.once(model, batch, bf16=True)   # kernels are loaded
    torch.cuda.set_sync_debug_mode('error')
    try:
        there = batch.to('cuda', non_blocking=True)
        with torch.autocast('cuda', torch.bfloat16): loss = model(there).float().sum()
        loss.backward()
    finally: torch.cuda.set_sync_debug_mode('default')


@pytest.mark.gpu
@pytest.mark.parametrize('kind', ['bert', 'xlm-roberta'])
def test_scores_of_a_gpu_are_those_of_the_cpu(kind, tmp_path):
    path, pairs = tiny_model(tmp_path/kind, kind, max_len=512), gpu.random_pairs(300, 40)
    models = [CrossEncoder.from_pretrained(path, cuda_device=d) for d in ('cpu', 'cuda:0')]
    a, b = (m.compute_score(pairs, progress=False) for m in models)
    assert (a - b).abs().max() < .06 * a.std() and len(b.unique()) > .9 * len(a.unique())


@pytest.mark.gpu
def test_a_run_on_a_gpu_learns_what_a_run_on_the_cpu_learns(tmp_path, binary):
    path, loss = still_model(tmp_path/'m'), {}
    for device, env in dict(cpu=dict(ACCELERATE_USE_CPU='1'), cuda={}).items():
        kw = dict(mixed_precision='no', logging_steps=1, lr=1e-4, eval_dataset=binary[1])
        words = flags(path, binary[0], tmp_path/device, **kw)
        p = run(*TRAIN, *words, env=clean_env(**env))
        loss[device] = [r['loss'] for r in finished(p, tmp_path/device) if 'loss' in r]
    assert loss['cuda'] == pytest.approx(loss['cpu'], abs=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize('kind,own', VARIANTS, ids=map(name, VARIANTS))
def test_every_family_is_on_a_gpu_what_it_is_on_the_cpu(kind, own):
    "Windows, causal and grouped heads included: in float32, and in bf16 by the one kernel for all pairs."
    model = make(kind, **own)
    batch = random_batch(model)
    wanted, grads = model(batch), gradients(model, model(batch))
    model, batch = model.to_device('cuda:0'), batch.to('cuda')
    norm = sum(float((g**2).sum()) for g in grads.values())**.5
    for dtype, bound in {torch.float32: 1e-4, torch.bfloat16: .1}.items():
        with torch.autocast('cuda', torch.bfloat16, enabled=dtype is torch.bfloat16):
            found, padded = model(batch), model(batch, padded=True)
            there = gradients(model, model(batch))
        assert (found.cpu() - wanted).abs().max() < bound * wanted.std(), dtype
        assert (padded.cpu() - wanted).abs().max() < bound * wanted.std(), dtype
        off = sum(float((there[k].cpu() - g).square().sum()) for k, g in grads.items())**.5
        assert off < bound * norm, dtype


@pytest.mark.gpu
@pytest.mark.parametrize('loss', list(LOSSES))
def test_a_loss_is_on_a_gpu_what_it_is_on_the_cpu(loss):
    g = torch.Generator().manual_seed(0)
    groups, labels = torch.arange(40) // 5, (torch.arange(40) % 5 == 0).float()
    logits = torch.randn(40, generator=g)
    here, there = (get_loss(loss)(*(x.to(d) for x in (logits, labels, groups))) for d in ('cpu', 'cuda'))
    assert there.device.type == 'cuda' and here.abs().sum() > 0
    assert (here - there.cpu()).abs().max() < 1e-5


@pytest.mark.gpu
@pytest.mark.parametrize('kind,more', [
    ('bert', dict(mixed_precision='fp16')), ('bert', dict(mixed_precision='bf16', lora_r=4)),
    ('xlm-roberta', dict(mixed_precision='fp16', lora_r=4, gradient_checkpointing=1)),
    ('qwen3', dict(mixed_precision='bf16', lora_r=4)), ('modernbert', dict(mixed_precision='bf16', compile=1))],
    ids=lambda v: v if isinstance(v, str) else ' '.join(v))
def test_a_run_in_half_precision_learns(kind, more, tmp_path, binary):
    own = {k: v for k, v in OWN.get(kind, {}).items() if not k.endswith('_id')}
    path, rate = tiny_model(tmp_path/'m', kind, num_attention_heads=4, **own), 1e-2 if 'lora_r' in more else 1e-3
    words = flags(path, binary[0], tmp_path/'out', logging_steps=1, lr=rate, epochs=6, eval_dataset=binary[1], **more)
    records = finished(run(*TRAIN, *words, env=clean_env()), tmp_path/'out')
    losses = [r['loss'] for r in records if 'loss' in r]
    assert sum(losses[-8:]) < .8 * sum(losses[:8])
    saved = CrossEncoder.from_pretrained(tmp_path/'out'/'model', cuda_device='cuda:0')
    assert saved.compute_score([['fox', 'fox dog'], ['fox', 'list files']]).isfinite().all()


@pytest.mark.gpu
@pytest.mark.parametrize('kind', ['bert', 'xlm-roberta'])
def test_one_process_under_fsdp_is_one_without(kind, tmp_path, binary):
    "In float32; as the files in config/ have it, in bf16, it runs too."
    path, script = still_model(tmp_path/'m', kind), ROOT/'rerank_nb'/'train_reranker.py'
    launched = [*ACCELERATE, '--config_file', CONFIG[kind], '--num_processes', '1', script]
    usual = dict(logging_steps=1, lr=1e-4, mixed_precision='no')
    loss = []
    for out, start in (('alone', TRAIN), ('fsdp', launched)):
        p = run(*start, *flags(path, binary[0], tmp_path/out, **usual), env=clean_env())
        loss.append([r['loss'] for r in finished(p, tmp_path/out) if 'loss' in r])
    assert loss[0] == pytest.approx(loss[1], abs=1e-4)
    p = run(*launched, *flags(path, binary[0], tmp_path/'as_it_is', logging_steps=1), env=clean_env())
    assert finished(p, tmp_path/'as_it_is')


@pytest.mark.gpu
def test_a_dry_run_counts_the_memory_of_a_gpu(tmp_path, binary):
    path = tiny_model(tmp_path/'m')
    p = run(*TRAIN, *flags(path, binary[0], tmp_path/'out', dry_run=1), env=clean_env())
    assert p.returncode == 0 and '1 x cuda' in p.stdout and 'It fits.' in p.stdout, p.stdout + p.stderr


@pytest.mark.gpu
def test_the_same_seed_gives_the_same_bits_on_a_gpu(tmp_path, binary):
    "Of small models; RELIABILITY.md says what may stand in the way."
    path = tiny_model(tmp_path/'m')
    for out in 'ab': finished(run(*TRAIN, *flags(path, binary[0], tmp_path/out), env=clean_env()), tmp_path/out)
    assert weights(tmp_path/'a') == weights(tmp_path/'b')
