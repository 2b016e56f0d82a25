"""What does --gradient_checkpointing save, and what does it cost?

    python benchmarks/fit.py [--rounds 3]

Training steps (forward, backward, AdamW) on 8 pairs of 512 tokens and on one of 4,096, with it and without, each in a
process of its own, in turn. Six layers of 192 with random weights, dropout 0.1, float32, one thread. The peak is
resident memory at its highest, less what was resident before the first step; seconds are those of the processor, so
that other work on the machine counts less.
"""
import argparse, tempfile, time
from common import Gate, Worker, machine, median, peak_mb, save, spread

SHAPES = {'8 pairs of 512': (8, 512), 'one pair of 4,096': (1, 4096)}
HEAD = '''| | peak of a step, MB | processor seconds a step (median, spread) |
|---|---|---|'''


def worker(pairs, tokens, checkpointing):
    import torch
    from rerank_nb.data import Pair
    from rerank_nb.losses import bce
    from rerank_nb.model import CrossEncoder
    from rerank_nb.tiny import tiny_model
    from rerank_nb.trainer import keep_inputs_only, make_optimizer
    gate = Gate()
    shape = dict(hidden_size=192, num_hidden_layers=6, num_attention_heads=6, intermediate_size=768)
    with tempfile.TemporaryDirectory() as d:
        model = CrossEncoder.from_pretrained(tiny_model(d, max_len=4096, initializer_range=.02, **shape)).train()
    if checkpointing: keep_inputs_only(model)
    optimizer = make_optimizer(model, 1e-6, .01)
    batch = model.collator(tokens)([Pair('fox', 'dog ' * tokens, float(i % 2), i) for i in range(pairs)])
    assert batch.lens == (tokens,) * pairs
    torch.set_num_threads(1)
    gate.step(before=peak_mb())
    while True:
        start = time.process_time()
        bce(model(batch), batch.labels, batch.groups).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        gate.step(cpu=time.process_time() - start)


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--rounds', type=int, default=3)
    p.add_argument('--worker')
    p.add_argument('shape', nargs='*', type=int)
    a = p.parse_args()
    if a.worker: return worker(*a.shape)
    print(f'{machine()}\n\n{HEAD}')
    out = {}
    for name, shape in SHAPES.items():
        workers = [Worker(__file__, f'{name}, {how}', *shape, i) for i, how in enumerate(('plain', 'checkpointed'))]
        rows = [[w.go(1) for w in workers] for _ in range(a.rounds + 1)][1:]   # the first is the warm-up
        for w, answers in zip(workers, zip(*rows)):
            seconds, peak = [r['cpu'] for r in answers], answers[-1]['peak_mb'] - w.first['before']
            out[w.name] = dict(peak_mb=round(peak), seconds=seconds)
            print(f'| {w.name} | {peak:,.0f} | {median(seconds):.2f} ({spread(seconds)}) |', flush=True)
            w.end()
    save('fit', dict(steps=out))


if __name__ == '__main__': main()
