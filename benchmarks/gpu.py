"""All that a GPU has to show, on one GPU, within ten minutes: `make gpu`.

1. Every notebook that has a cell marked `#| gpu`, with these cells, and every pytest marked gpu.
2. Parity: logits and gradients of packed batches, the same weights on the CPU in float32 and on the GPU in float32 and
   in bf16.
3. Rates: matrix products, training and scoring in bf16, in pairs a second and as a share of the chip's peak, beside
   sentence-transformers on the same pairs. Counted are the matrix products of real tokens.

Nothing is fetched: models are random, made from a configuration. Without a GPU it says so and ends with 1.
"""
import argparse, copy, json, random, re, subprocess, sys, tempfile, time
from pathlib import Path
import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT/'benchmarks')]
from common import save
from rerank_nb.data import Pair
from rerank_nb.model import CrossEncoder
from rerank_nb.tiny import TEXT, tiny_model
from rerank_nb.trainer import TrainConfig, train

# bf16 matrix products without sparsity, operations a second, from NVIDIA's data sheets (H100: SXM and PCIe differ;
# GeForce: the Ada white paper, float32 accumulation). The first pattern that the chip's name holds counts.
PEAKS = {r'H200|GH200': 989e12, r'H100 PCIe': 756e12, r'H100': 989e12, r'A100': 312e12, r'A10\b': 125e12,
         r'L40S': 362e12, r'L4\b': 121e12, r'RTX 4090': 165e12}
BASE = dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
            initializer_range=.02, vocab_size=250_002)   # bge-reranker-base
# How far a GPU may be from the CPU, root mean squares: logits by their spread, gradients by their norm.
BOUNDS = {'float32': 1e-3, 'bf16': .1}


def say(*words): print(*words, flush=True)


def peak(name): # Of `torch.cuda.get_device_name`
    "Operations a second by the data sheet, or None."
    return next((rate for pattern, rate in PEAKS.items() if re.search(pattern, name)), None)


def flops(config, lengths, training=True):
    "Operations of the matrix products for pairs of these lengths: layers and attention; backward counts twice."
    h, n = config.hidden_size, torch.as_tensor(lengths, dtype=torch.float64)
    each = 2 * n * (4 * h**2 + 2 * h * config.intermediate_size) + 4 * h * n**2
    return (3 if training else 1) * config.num_hidden_layers * float(each.sum())


def matmul_rate(device, size=8192, seconds=2., dtype=torch.bfloat16):
    "Operations a second of square matrix products, the best of several runs."
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    rounds = []
    while sum(rounds) < seconds:
        start = time.perf_counter()
        for _ in range(5): a @ b
        wait(device)
        rounds.append(time.perf_counter() - start)
    return 5 * 2 * size**3 / min(rounds)


def wait(device):
    "Until all that was asked of a device is done."
    if torch.device(device).type == 'cuda': torch.cuda.synchronize()


def random_pairs(n, mean, seed=0):
    "Pairs of the words that the tiny tokenizers know; lengths spread widely around a mean."
    rng = random.Random(seed)
    words = re.findall('[a-z]+', TEXT.lower())
    def text(k): return ' '.join(rng.choices(words, k=k))
    def long(): return max(4, min(480, int(rng.lognormvariate(0, .5) * mean)))
    return [[text(rng.randint(3, 9)), text(long())] for _ in range(n)]


def a_batch(model, n=24, mean=60):
    "A packed batch with labels."
    pairs = [Pair(q, d, float(i % 4 == 0), i // 4) for i, (q, d) in enumerate(random_pairs(n, mean))]
    return model.collator(512)(pairs)


def once(model, batch, bf16=False):
    "(logits, gradients by name) of one packed batch, on the CPU in float32, without dropout."
    model.zero_grad(set_to_none=True)
    batch = batch.to(model.device)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16): logits = model(batch)
    F.binary_cross_entropy_with_logits(logits.float(), batch.labels).backward()
    grads = {k: p.grad.float().cpu() for k, p in model.named_parameters() if p.grad is not None}
    return logits.detach().float().cpu(), grads


def parity(a, b, batch, bf16=False): # Two CrossEncoders with the same weights; `b` may run in bf16
    "How far two copies are apart, root mean squares: logits by the spread of the first's, gradients by their norm."
    (x, g), (y, h) = once(a, batch), once(b, batch, bf16)
    assert g.keys() == h.keys(), g.keys() ^ h.keys()
    def norm(d): return sum(float((v.double()**2).sum()) for v in d.values())**.5
    apart = norm({k: g[k] - h[k] for k in g}) / norm(g)
    return dict(logits=float((x - y).square().mean().sqrt() / x.std()), gradients=apart)


def check_parity(folder, device, kinds=('bert', 'roberta', 'xlm-roberta', 'electra')):
    "A row for each family and type; True if all are within their bounds."
    good = True
    for kind in kinds:
        path = tiny_model(f'{folder}/{kind}', kind, max_len=512, initializer_range=.1, hidden_size=128)
        cpu = CrossEncoder.from_pretrained(path).eval()
        gpu = copy.deepcopy(cpu).to_device(device)
        for dtype, bound in BOUNDS.items():
            off = parity(cpu, gpu, a_batch(cpu), dtype == 'bf16')
            fine = max(off.values()) <= bound
            good &= fine
            say(f"parity {kind:<12}{dtype:<9} logits {off['logits']:.1e}  gradients {off['gradients']:.1e}  "
                f"bound {bound:.0e}  {'ok' if fine else 'TOO FAR'}")
    return good


def token_lengths(model, pairs):
    "Tokens of each pair, as the model gets them."
    collate = model.collator(512)
    parts = (pairs[i:i + 256] for i in range(0, len(pairs), 256))
    return [n for some in parts for n in collate([Pair(q, d) for q, d in some]).lens]


def scoring_rate(model, pairs, seconds=20.):
    "(pairs, operations) a second of `compute_score`, the best of some rounds."
    work, rounds = flops(model.model.config, token_lengths(model, pairs), training=False), []
    model.compute_score(pairs[:256], progress=False)
    while sum(rounds) < seconds:
        start = time.perf_counter()
        model.compute_score(pairs, progress=False)
        rounds.append(time.perf_counter() - start)
    return len(pairs) / min(rounds), work / min(rounds)


def training_rate(path, folder, pairs, batch_size=64, mixed_precision='bf16'):
    "(pairs, operations) a second of a run of `train`, loader and optimizer included: the best record after the first."
    data, out = Path(folder)/'train.jsonl', Path(folder)/'run'
    rows = (dict(query=q, pos=[d] * (i % 4 == 0), neg=[d] * (i % 4 != 0)) for i, (q, d) in enumerate(pairs))
    data.write_text(''.join(json.dumps(r) + '\n' for r in rows), encoding='utf-8')
    every = max(1, len(pairs) // batch_size // 6)
    c = TrainConfig(path, str(data), str(out), batch_size=batch_size, epochs=1, logging_steps=every,
                    mixed_precision=mixed_precision, save_on_epoch_end=False)
    rates = [r['pairs_per_second'] for r in train(c) if 'pairs_per_second' in r]
    best, model = max(rates[1:] or rates), CrossEncoder.from_pretrained(path)
    return best, best * flops(model.model.config, token_lengths(model, pairs)) / len(pairs)


def their_scoring_rate(path, pairs, device, seconds=20., batch_sizes=(32, 128)):
    "Pairs a second of sentence-transformers' `predict` in bf16, the best of some rounds and batch sizes."
    from sentence_transformers import CrossEncoder as Theirs
    theirs = Theirs(path, num_labels=1, max_length=512, device=device, model_kwargs=dict(dtype=torch.bfloat16))
    best = 0
    for n in batch_sizes:
        theirs.predict(pairs[:256], batch_size=n, show_progress_bar=False)
        rounds = []
        while sum(rounds) < seconds / len(batch_sizes):
            start = time.perf_counter()
            theirs.predict(pairs, batch_size=n, show_progress_bar=False)
            rounds.append(time.perf_counter() - start)
        best = max(best, len(pairs) / min(rounds))
    return best


def their_training_rate(path, folder, pairs, device, batch_size=64, mixed_precision='bf16'):
    "The same as `training_rate` of sentence-transformers' trainer, with as many loader workers."
    from datasets import Dataset
    from sentence_transformers import CrossEncoder as Theirs
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
    from transformers import TrainerCallback
    every, at = max(1, len(pairs) // batch_size // 6), []
    class Clock(TrainerCallback):
        def on_train_begin(self, args, state, control, **kw): self.on_step_end(args, state, control)
        def on_step_end(self, args, state, control, **kw):
            if state.global_step % every: return
            wait(device)
            at.append(time.perf_counter())
    theirs = Theirs(path, num_labels=1, max_length=512, device=device)
    queries, docs = map(list, zip(*pairs))
    data = Dataset.from_dict(dict(query=queries, passage=docs, label=[float(i % 4 == 0) for i in range(len(pairs))]))
    cpu = torch.device(device).type == 'cpu'
    args = CrossEncoderTrainingArguments(
        output_dir=f'{folder}/theirs', per_device_train_batch_size=batch_size, num_train_epochs=1, learning_rate=5e-5,
        bf16=mixed_precision == 'bf16', use_cpu=cpu, dataloader_num_workers=0 if cpu else 2, save_strategy='no',
        report_to='none', disable_tqdm=True, logging_strategy='no')
    CrossEncoderTrainer(model=theirs, args=args, train_dataset=data, loss=BinaryCrossEntropyLoss(theirs),
                        callbacks=[Clock()]).train()
    return batch_size * every / min(b - a for a, b in zip(at, at[1:]))


def gpu_notebooks():
    "Notebooks with a cell that is marked gpu."
    def marked(p):
        sources = (''.join(c['source']) for c in json.loads(p.read_text(encoding='utf-8'))['cells'])
        return any(re.match(r'#\s*\|\s*gpu', s) for s in sources)
    return [p for p in sorted((ROOT/'nbs').rglob('*.ipynb')) if '.ipynb_checkpoints' not in p.parts and marked(p)]


def check_marked():
    "The notebooks and tests that need a GPU; True if they pass."
    beside = Path(sys.executable).with_name('nbdev_test')
    commands = [[beside, '--path', p, '--flags', 'gpu'] for p in gpu_notebooks()]
    commands.append([sys.executable, '-m', 'pytest', '-q', '-m', 'gpu', ROOT/'tests'])
    good = True
    for c in commands:
        start = time.time()
        try: code = subprocess.run(c, cwd=ROOT, timeout=180).returncode
        except subprocess.TimeoutExpired: code = 'over 180 s'
        words = ' '.join(w.name if isinstance(w, Path) else w for w in c[-4:])
        say(f"{words}: {code or 'ok'}, {time.time() - start:.0f} s")
        good &= code == 0
    return good


def measure(folder, device, name, config=BASE, n=8192, seconds=20., size=8192):
    "Matrix products, scoring and training of a random model: what is said, as a dict."
    products, sheet = matmul_rate(device, size, seconds / 10), peak(name)
    limit, source = (sheet, 'data sheet') if sheet else (products, 'measured, this chip is not in the table')
    say(f'{name}: peak {limit / 1e12:.3g} TFLOP/s ({source}), products of {size} x {size} reach {products / limit:.0%}')
    path = tiny_model(f'{folder}/base', 'xlm-roberta', max_len=512, **config)
    to_score = random_pairs(n, 100)
    scored = scoring_rate(CrossEncoder.from_pretrained(path, cuda_device=device), to_score, seconds)
    to_learn = random_pairs(int(min(5 * n, max(n / 4, seconds / 4 * scored[0]))), 100)
    ours = dict(scoring=scored, training=training_rate(path, folder, to_learn))
    theirs = dict(scoring=their_scoring_rate(path, to_score, device, seconds),
                  training=their_training_rate(path, folder, to_learn, device))
    found = dict(gpu=name, peak=limit, source=source, products=products)
    for what, (pairs, rate) in ours.items():
        found[what] = dict(pairs_per_second=pairs, operations_per_second=rate, share_of_peak=rate / limit,
                           sentence_transformers=theirs[what])
        say(f'{what}: {pairs:,.0f} pairs/s, {rate / 1e12:.3g} TFLOP/s, {rate / limit:.0%} of the peak, '
            f'{rate / products:.0%} of the products; sentence-transformers {theirs[what]:,.0f} pairs/s, '
            f'{pairs / theirs[what]:.2f}x')
    return found


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    if not torch.cuda.is_available(): sys.exit('no GPU here (torch.cuda.is_available() is False): nothing was run')
    start, device = time.time(), 'cuda:0'
    tests = check_marked()
    with tempfile.TemporaryDirectory() as folder:
        parity = check_parity(folder, device)
        found = measure(folder, device, torch.cuda.get_device_name(0))
    save('gpu', found | dict(tests=tests, parity=parity, seconds=time.time() - start))
    sys.exit(0 if tests and parity else 'a test failed, or the GPU is too far from the CPU: see above')


if __name__ == '__main__': main()
