"""How fast are pairs scored?

    python benchmarks/score.py [--rounds 5]

256 pairs of natural lengths (about 125 tokens), float32, by `CrossEncoder.compute_score`, by sentence-transformers'
`predict`, and padded to max_len. All three give the same logits within 1e-5, which is checked. A second row has 8
queries with 32 documents each.
"""
import argparse, itertools
import numpy as np
from common import (MODEL, Gate, Worker, bars, flops, gemm_rate, machine, make_pairs, median, save, spread,
                    token_lengths)

MAX_LEN, N = 512, 256
OURS, THEIRS, PADDED = NAMES = ['rerank_nb', 'sentence-transformers', 'padded to max_len']
KINDS = {'pairs': 'pairs of their own', 'lists': '8 queries, 32 documents each'}
HEAD = f'''| | what | pairs a second (median, spread) | beside {THEIRS} | of the limit |
|---|---|---|---|---|'''


def work(kind):
    pairs = [(q, d) for q, d, _ in make_pairs(N, mean=57, seed=1)]
    return pairs if kind == 'pairs' else [(pairs[i // 32][0], d) for i, (_, d) in enumerate(pairs)]


def scorer(name):
    "A function from pairs to logits."
    import torch
    torch.manual_seed(0)
    from rerank_nb.model import CrossEncoder
    ours = CrossEncoder.from_pretrained(MODEL)
    ours.new_head = False   # random, and the same for all
    if name == OURS: return lambda pairs: ours.compute_score(pairs, max_len=MAX_LEN, progress=False).numpy()
    if name == THEIRS:
        from sentence_transformers import CrossEncoder as Theirs
        model = Theirs(str(MODEL), num_labels=1, max_length=MAX_LEN, device='cpu')
        model.model.load_state_dict(ours.model.state_dict())
        return lambda pairs: model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    def padded(pairs):
        out = []
        for i in range(0, len(pairs), 32):
            queries, docs = map(list, zip(*pairs[i:i + 32]))
            batch = ours.tokenizer(queries, docs, padding='max_length', truncation=True, max_length=MAX_LEN,
                                   return_tensors='pt')
            with torch.no_grad(): out.append(ours.model.eval()(**batch).logits[:, 0])
        return torch.cat(out).numpy()
    return padded


def serve(name):
    "In a worker: 'go 1' scores the pairs, 'go 2' the lists; the first answer has the logits."
    gate, score, kinds = Gate(), scorer(name), [work(k) for k in KINDS]
    logits = [score(k).tolist() for k in (kinds[:1] if name == PADDED else kinds)]
    for turn in itertools.count():
        gate.step(logits=logits if turn == 0 else None)
        score(kinds[gate.left - 1])
        gate.left = 1


def largest_gap(workers):
    "How far apart the logits of the contenders are."
    first, *others = [[np.array(x) for x in w.first['logits']] for w in workers]
    return max(float(np.abs(a - b).max()) for other in others for a, b in zip(first, other))


def turns(workers, rounds, operations): # Operations per pair, by kind
    "({(contender, kind): rates}, {kind: the machine's limits}), a value a round."
    rates, limit = {}, {k: [] for k in KINDS}
    for r in range(rounds):
        for i, k in enumerate(KINDS, 1):
            for w in workers:
                if w.name == PADDED and k == 'lists': continue
                rates.setdefault((w.name, k), []).append(N / w.go(i)['seconds'])
            limit[k].append(gemm_rate() / operations[k])
        last = {f'{n}, {k}': round(v[-1], 1) for (n, k), v in rates.items()}
        print(f'round {r + 1}:', last, 'limit', round(limit['pairs'][-1], 1), flush=True)
    return rates, limit


def ratio(xs, ys): return median([x / y for x, y in zip(xs, ys)])


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--worker')
    p.add_argument('--rounds', type=int, default=5)
    a = p.parse_args()
    if a.worker: serve(a.worker)
    workers = [Worker(__file__, n) for n in NAMES]
    apart = largest_gap(workers)
    assert apart < 1e-5, apart
    lengths = {k: token_lengths([(q, d, 0) for q, d in work(k)], MAX_LEN) for k in KINDS}
    operations = {k: flops(n, training=False) / N for k, n in lengths.items()}
    rates, limit = turns(workers, a.rounds, operations)
    for w in workers: w.end()
    tokens = float(np.mean(lengths['pairs']))
    print(f'\n{machine()}\nmean length {tokens:.0f} tokens, logits at most {apart:.1e} apart\n\n{HEAD}')
    for (n, k), v in rates.items():
        beside, share = ratio(v, rates[THEIRS, k]), ratio(v, limit[k])
        print(f'| {n} | {KINDS[k]} | {median(v):.1f} ({spread(v)}) | {beside:.2f}x | {share:.0%} |')
    named = {f'{n}, {KINDS[k]}': v for (n, k), v in rates.items()}
    rows = [*named.items(), ('limit: matrix products', limit['pairs'])]
    save('score', dict(pairs_per_second=named, limit=limit, logits_apart=apart, mean_tokens=tokens),
         bars(rows, 'pairs a second', 'scoring, float32, 2 cores'))


if __name__ == '__main__': main()
