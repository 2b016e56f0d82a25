"""What is a training step made of? torch.profiler over three steps of 32 pairs of natural lengths, and the share of the
machine's matrix-product rate.

    python benchmarks/profile_step.py [--mixture short|natural|long] [--torch_dropout]

--torch_dropout takes torch's own dropout on the hidden states.
"""
import argparse, time
from common import MIXTURES, MODEL, flops, gemm_rate, machine, make_pairs


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--torch_dropout', action='store_true')
    p.add_argument('--mixture', choices=MIXTURES, default='natural')
    a = p.parse_args()
    import torch
    from torch.profiler import ProfilerActivity, profile
    from rerank_nb import model as library
    from rerank_nb.data import Pair
    from rerank_nb.losses import bce
    from rerank_nb.trainer import make_optimizer
    if a.torch_dropout: library.dropout = torch.nn.functional.dropout
    torch.manual_seed(0)
    model = library.CrossEncoder.from_pretrained(MODEL).train()
    collate, optimizer = model.collator(512, by_length=True), make_optimizer(model, 1e-5, .01)
    texts = make_pairs(256, *MIXTURES[a.mixture])
    pairs = [Pair(q, d, float(y), i) for i, (q, d, y) in enumerate(texts)]
    batches = [collate(pairs[i:i + 32]) for i in range(0, 256, 32)]
    def step(batch):
        bce(model(batch), batch.labels, batch.groups).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.)
        optimizer.step()
        optimizer.zero_grad()
    for b in batches[:2]: step(b)   # warm-up
    before, start = gemm_rate(), time.perf_counter()
    for b in batches[2:]: step(b)
    rate = sum(flops(b.lens) for b in batches[2:]) / (time.perf_counter() - start)
    print(f'{machine()}\n{rate / ((before + gemm_rate()) / 2):.0%} of the matrix-product rate')
    with profile(activities=[ProfilerActivity.CPU]) as prof:
        for b in batches[2:5]: step(b)
    print(prof.key_averages().table(sort_by='self_cpu_time_total', row_limit=14, max_name_column_width=44))


if __name__ == '__main__': main()
