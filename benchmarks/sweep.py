"""Is packing ever slower than padding?

    python benchmarks/sweep.py [--rounds 5] [--family modernbert qwen3] [--lengths 'all 64']

One training step (forward, backward, AdamW) on a batch of 32 pairs, packed and padded to the longest of the batch, the
same network and process, in turn. Lengths from all equal to log-normal, 16 to 512 tokens. Where all lengths are equal
the two do the same work, and the ratio shows what packing itself costs. `--family` takes random networks of other
families, in the same shape: ModernBERT with windows in two layers of three, Qwen3 with two queries to a key.
"""
import argparse, time
import numpy as np
from common import MODEL, machine, median, save, spread

N = 32
EQUAL = (16, 64, 128, 512)
LOG_NORMAL = ((24, .2), (24, .6), (64, .2), (64, .6), (128, .2), (128, .6), (200, .6))   # median, sigma
LENGTHS = {
    **{f'all {n}': (n, 0) for n in EQUAL},
    **{f'log-normal, median {n}, sigma {s}': (n, s) for n, s in LOG_NORMAL},
    '15 or 16': (15.5, None)}
SHAPE = dict(vocab_size=5000, hidden_size=384, num_hidden_layers=6, num_attention_heads=6, max_position_embeddings=512,
             pad_token_id=1, bos_token_id=0, eos_token_id=2, num_labels=1)
FAMILIES = {
    'modernbert': dict(intermediate_size=576, cls_token_id=0, sep_token_id=2),
    'qwen3': dict(intermediate_size=1024, num_key_value_heads=3, head_dim=64)}
HEAD = '''| lengths | tokens that are padding | packed beside padded (median, spread) |
|---|---|---|'''


def lengths(kind, rng):
    n, sigma = LENGTHS[kind]
    if sigma is None: return rng.integers(15, 17, N)
    return np.clip(np.round(n * np.exp(sigma * rng.standard_normal(N))), 16, 512).astype(int)


def compare(step, kind, rounds, rng): # `step(batch, padded)` gives seconds
    "(ratios of the times of padded to packed, shares of tokens that are padding), a value a round."
    from rerank_nb.data import pack
    ratios, waste = [], []
    for r in range(rounds + 1):
        lens = sorted(lengths(kind, rng))
        batch = pack([(rng.integers(5, 5000, n).tolist(), [0]*n) for n in lens], labels=[0., 1.]*(N//2))
        several = range(max(1, 2000 // sum(lens)))   # short batches: several steps a reading
        order = [True, False] if r % 2 else [False, True]
        seconds = {padded: sum(step(batch, padded) for _ in several) for padded in order}
        if r == 0: continue   # warm-up
        ratios.append(seconds[True] / seconds[False])
        waste.append(1 - sum(lens) / (N * max(lens)))
    return ratios, waste


def network(family):
    "The usual model, or a random one of another family."
    from rerank_nb.model import CrossEncoder
    if family is None: return CrossEncoder.from_pretrained(MODEL)
    from transformers import AutoConfig, AutoModelForSequenceClassification
    from rerank_nb.tiny import tiny_tokenizer
    config = AutoConfig.for_model(family, **SHAPE, **FAMILIES[family])
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation='packed')
    return CrossEncoder(model, tiny_tokenizer('xlm-roberta', 512))


def sweep(family, rounds, kinds):
    "Print a family's table; the ratios by kind of lengths."
    import torch
    from rerank_nb.losses import bce
    from rerank_nb.trainer import make_optimizer
    torch.manual_seed(0)
    model = network(family).train()
    assert model.packed
    optimizer, rng = make_optimizer(model, 1e-6, .01), np.random.default_rng(0)

    def step(batch, padded):
        start = time.perf_counter()
        bce(model(batch, padded=padded), batch.labels, batch.groups).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - start

    print(f'\n{family or MODEL.name}, {machine()}\n\n{HEAD}')
    out = {}
    for kind in kinds:
        out[kind], waste = compare(step, kind, rounds, rng)
        ratios = out[kind]
        print(f'| {kind} | {median(waste):.0%} | {median(ratios):.2f}x ({spread(ratios)}) |', flush=True)
    return out


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--rounds', type=int, default=5)
    p.add_argument('--family', nargs='+', choices=FAMILIES)
    p.add_argument('--lengths', nargs='+', choices=LENGTHS, default=list(LENGTHS))
    a = p.parse_args()
    for family in a.family or [None]:
        out = sweep(family, a.rounds, a.lengths)
        if len(out) == len(LENGTHS): save(f'sweep_{family}' if family else 'sweep', dict(packed_beside_padded=out))


if __name__ == '__main__': main()
