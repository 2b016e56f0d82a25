"""How fast are pairs scored?

    python benchmarks/score.py [--rounds 5]

256 pairs of natural lengths (about 125 tokens), float32, by `CrossEncoder.compute_score`, by sentence-transformers' `predict`, and padded to max_len. All three give the same logits
within 1e-5, which is checked. A second row has 8 queries with 32 documents each.
"""
import argparse
import numpy as np
from common import MODEL, Gate, Worker, bars, flops, gemm_rate, machine, make_pairs, median, save, spread

MAX_LEN, N = 512, 256
NAMES = ['rerank_nb', 'sentence-transformers', 'padded to max_len']
KINDS = {'pairs': 'pairs of their own', 'lists': '8 queries, 32 documents each'}


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
    if name == 'rerank_nb': return lambda pairs: ours.compute_score(pairs, max_len=MAX_LEN, progress=False).numpy()
    if name == 'sentence-transformers':
        from sentence_transformers import CrossEncoder as Theirs
        model = Theirs(str(MODEL), num_labels=1, max_length=MAX_LEN, device='cpu')
        model.model.load_state_dict(ours.model.state_dict())
        return lambda pairs: model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    def padded(pairs):
        out = []
        for i in range(0, len(pairs), 32):
            batch = ours.tokenizer([q for q, _ in pairs[i:i + 32]], [d for _, d in pairs[i:i + 32]], padding='max_length', truncation=True, max_length=MAX_LEN, return_tensors='pt')
            with torch.no_grad(): out.append(ours.model.eval()(**batch).logits[:, 0])
        return torch.cat(out).numpy()
    return padded


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--worker'); p.add_argument('--rounds', type=int, default=5)
    a = p.parse_args()
    if a.worker:
        gate, name = Gate(), a.worker
        f, kinds = scorer(name), [work(k) for k in KINDS]
        logits = [f(k).tolist() for k in (kinds if name != 'padded to max_len' else kinds[:1])]
        i = 0
        while True:
            gate.step(logits=logits if not i else None)
            f(kinds[gate.left - 1]); i += 1; gate.left = 1   # 'go 1' scores the pairs, 'go 2' the lists
    workers, rates, limit = [Worker(__file__, n) for n in NAMES], {}, {k: [] for k in KINDS}
    first = {w.name: w.first['logits'] for w in workers}
    apart = max(float(np.abs(np.array(a) - np.array(b)).max()) for n in NAMES[1:] for a, b in zip(first[NAMES[0]], first[n]))
    assert apart < 1e-5, apart
    from transformers import AutoTokenizer
    tok = AutoTokenizer.from_pretrained(MODEL)
    lengths = {k: [min(len(x), MAX_LEN) for x in tok([q for q, _ in work(k)], [d for _, d in work(k)])['input_ids']] for k in KINDS}
    for r in range(a.rounds):
        for i, k in enumerate(KINDS):
            for w in workers:
                if w.name == 'padded to max_len' and k == 'lists': continue
                rates.setdefault((w.name, k), []).append(N / w.go(i + 1)['seconds'])
            limit[k].append(gemm_rate() / (flops(lengths[k], training=False) / N))
        print(f'round {r + 1}:', {f'{n}, {k}': round(v[-1], 1) for (n, k), v in rates.items()}, 'limit', round(limit['pairs'][-1], 1), flush=True)
    for w in workers: w.end()
    print(f"\n{machine()}\nmean length {np.mean(lengths['pairs']):.0f} tokens, logits at most {apart:.1e} apart\n\n| | what | pairs a second (median, spread) | beside sentence-transformers | of the limit |\n|---|---|---|---|---|")
    for (n, k), v in rates.items():
        base = rates['sentence-transformers', k]
        print(f"| {n} | {KINDS[k]} | {median(v):.1f} ({spread(v)}) | {median([x / y for x, y in zip(v, base)]):.2f}x | {median([x / y for x, y in zip(v, limit[k])]):.0%} |")
    save('score', dict(pairs_per_second={f'{n}, {KINDS[k]}': v for (n, k), v in rates.items()}, limit=limit, logits_apart=apart, mean_tokens=float(np.mean(lengths['pairs']))),
         bars([(f'{n}, {KINDS[k]}', v) for (n, k), v in rates.items()] + [('limit: matrix products', limit['pairs'])], 'pairs a second', 'scoring, float32, 2 cores'))


if __name__ == '__main__': main()
