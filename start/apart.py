"""Stage 5 of `make start`: one sequence holds two texts, and each has nearly the states that it has alone.

    python start/apart.py        # near.jsonl -> apart.pt

The base knows texts one at a time. Put as a pair into one sequence they read each other, and what it knows of each is
blurred: the cosine of the two means ranks worse. So the two token types, which the base has but never used, become a
sign, +1 for the query's tokens and -1 for the document's. It is laid along a direction in which the states hardly
vary, every layer is made blind to it, and in each head the least important direction of query and key gives way to
the product of two signs: tokens of one text attract, those of two texts repel each other. That is done by hand, layer
by layer, on 400 texts (`with_signs`). What is left of an error is trained away (`learn_apart`): the states of a pair
are to be those that the base gives to each text alone, from its own first position on.
"""
import random
import torch
from transformers import AutoModel, AutoTokenizer
from lists import BASE, OUT, SIDES, read_jsonl

STRENGTH, PULL = 3., 1.5      # sizes: of the sign, in standard deviations of a state; of its product, in logits
TEXTS, BATCH = 400, 16
PHASES = (   # steps, rate, document's longest in tokens, {layer: weight of its error}, is the last sign held?
    (400, 3e-4, (90,), {2: 1, 4: 1, 6: 1, 8: 1, 10: 1, 12: 3}, False),
    (280, 2e-4, (90, 250), {4: .5, 8: .5, 10: .5, 11: 1, 12: 3}, True))


def bert(**kw): return AutoModel.from_pretrained(BASE, add_pooling_layer=False, **kw).eval()
def flat(states, masks): return torch.cat([h[m] for h, m in zip(states, masks)])
def ones(like): return torch.full((len(like), 1), len(like)**-.5, dtype=like.dtype)


def quiet(x):
    "The direction, of mean 0, along which states vary least; and how much they vary along the others."
    x = x - x.mean(0)
    c = x.T @ x / len(x)
    values, vectors = torch.linalg.eigh(c + ones(c) @ ones(c).T * c.trace())
    return vectors[:, 0], values[:-1].mean().sqrt()


def readout(x, sign, ridge=1e-6):
    "w, b, error: the sign as w·x + b, by least squares."
    mean, centred = x.mean(0), sign - sign.mean()
    y = x - mean
    c = y.T @ y / len(y)
    more = ridge * c.trace() / len(c) * torch.eye(len(c), dtype=c.dtype)
    w = torch.linalg.solve(c + more, (y * centred[:, None]).mean(0))
    w = w / ((y @ w * centred).mean() / (centred**2).mean())
    b = sign.mean() - mean @ w
    return w, b, float((x @ w + b - sign).std())


def make_blind(linear, v, w, b):
    "A layer that does not see what lies along v."
    seen = linear.weight @ v
    linear.bias.data -= seen * b
    linear.weight.data -= torch.outer(seen, w)


def least(first, second):
    "c, a, share: the direction whose product of the two weighs least; c·a = 1."
    low = torch.linalg.cholesky(first + 1e-9 * first.trace() * torch.eye(len(first), dtype=first.dtype))
    values, vectors = torch.linalg.eigh(low.T @ second @ low)
    return low @ vectors[:, 0], torch.linalg.solve(low.T, vectors[:, 0]), values[0] / values.sum()


def replace(linear, rows, c, a, w, b):
    "In these rows the direction c gives way to c (w·x + b)."
    weight, bias = linear.weight.data, linear.bias.data
    weight[rows] += torch.outer(c, w - a @ weight[rows])
    bias[rows] += c * (b - a @ bias[rows])


def attend(layer, h, mask):
    at, split = layer.attention.self, (*h.shape[:2], -1, layer.attention.self.attention_head_size)
    q, k, v = (f(h).view(split).transpose(1, 2) for f in (at.query, at.key, at.value))
    p = (q @ k.transpose(-1, -2) / split[-1]**.5).masked_fill(~mask[:, None, None], -1e30).softmax(-1)
    return layer.attention.output.dense((p @ v).transpose(1, 2).flatten(2)) + h


def feed(layer, h): return layer.output.dense(torch.nn.functional.gelu(layer.intermediate.dense(h))) + h


def normed(norm, old_norm, states, old, masks):
    "Both after their norms; the new one's scale makes good what the sign added to the spread."
    norm.weight.data *= (flat(states, masks).std(1) / flat(old, masks).std(1)).mean()
    return [norm(x) for x in states], [old_norm(x) for x in old]


def some_texts(rng, tokenizer):
    "Texts of up to 90 tokens in batches of like lengths: (ids, mask, first positions, signs)."
    rows = [rng.choice((SIDES['query'] + l['query'], SIDES['doc'] + rng.choice(l['pos'] + l['neg'])))
            for l in rng.sample(read_jsonl(OUT/'near.jsonl'), TEXTS)]
    ids = sorted((tokenizer(t, truncation=True, max_length=92)['input_ids'] for t in rows), key=len)
    for s in range(0, TEXTS, BATCH):
        x = tokenizer.pad({'input_ids': ids[s:s + BATCH]}, return_tensors='pt')
        sign = torch.tensor([rng.choice((1., -1.)) for _ in x['input_ids']]).double()
        first = torch.tensor([0 if v > 0 else rng.randrange(6, 40) for v in sign])
        yield x['input_ids'], x['attention_mask'].bool(), first, sign


@torch.no_grad()
def with_signs(rng, tokenizer):
    "The base with signs, by hand; its states stay near those of the base, layer by layer."
    old, new = bert().double(), bert().double()
    ids, masks, first, signs = zip(*some_texts(rng, tokenizer))
    sign = torch.cat([s[:, None].expand(m.shape)[m] for s, m in zip(signs, masks)])
    e, n = old.embeddings, new.embeddings
    places = [torch.arange(x.shape[1])[None] + f[:, None] for x, f in zip(ids, first)]
    kind = e.token_type_embeddings.weight[0]
    before = [e.word_embeddings(x) + e.position_embeddings(p) + kind for x, p in zip(ids, places)]
    u, size = quiet(flat(before, masks))
    n.token_type_embeddings.weight.data = e.token_type_embeddings.weight[:1] + STRENGTH * size * torch.stack([u, -u])
    h = [x + s[:, None, None] * STRENGTH * size * u for x, s in zip(before, signs)]
    h, g = normed(n.LayerNorm, e.LayerNorm, h, before, masks)
    for i, (l, o) in enumerate(zip(new.encoder.layer, old.encoder.layer)):
        at, out, width = l.attention.self, l.attention.output.dense, l.attention.self.attention_head_size
        x = flat(h, masks)
        v, (w, b, error) = ((x - flat(g, masks)) * sign[:, None]).mean(0), readout(x, sign)
        for f in (at.query, at.key, at.value): make_blind(f, v, w, b)
        q, k, value = (f(x) for f in (at.query, at.key, at.value))
        heads, scale = [slice(s, s + width) for s in range(0, len(w), width)], (PULL * width**.5)**.5
        for rows in heads:
            c, a, _ = least(q[:, rows].T @ q[:, rows] / len(q), torch.cov(k[:, rows].T, correction=0))
            for f, c, a in ((at.query, c, a), (at.key, a, c)): replace(f, rows, c, a, scale * w, scale * b)
        found = [least(value[:, r].T @ value[:, r] / len(x), out.weight[:, r].T @ out.weight[:, r]) for r in heads]
        (c, a, _), rows = min(zip(found, heads), key=lambda f: f[0][2])
        replace(at.value, rows, c, a, w, b)     # a text's tokens average their signs: the noise goes
        before = [attend(o, x, m) for x, m in zip(g, masks)]
        u, size = quiet(flat(before, masks))
        out.weight.data[:, rows] += torch.outer(STRENGTH * size * u - v - out.weight[:, rows] @ c, a)
        h, g = normed(l.attention.output.LayerNorm, o.attention.output.LayerNorm,
                      [attend(l, x, m) for x, m in zip(h, masks)], before, masks)
        x = flat(h, masks)
        make_blind(l.intermediate.dense, ((x - flat(g, masks)) * sign[:, None]).mean(0), *readout(x, sign)[:2])
        h, g = normed(l.output.LayerNorm, o.output.LayerNorm, [feed(l, x) for x in h], [feed(o, x) for x in g], masks)
        print(f'layer {i}: the sign is read with an error of {error:.2f}', flush=True)
    return new.float()


def pairs(rng, tokenizer, longest):
    "(query, document) in ids, framed as the base wants them alone."
    lines = read_jsonl(OUT/'near.jsonl')
    def ids(side, text, n): return tokenizer(SIDES[side] + text, truncation=True, max_length=n)['input_ids']
    while True:
        l = rng.choice(lines)
        yield ids('query', l['query'], 45), ids('doc', rng.choice(l['pos'] + l['neg']), rng.choice(longest))


def batches(rng, tokenizer, longest):
    "(ids, text of each token or 2 for padding, its position in its own text) of pairs of like lengths."
    found = pairs(rng, tokenizer, longest)
    while True:
        some = sorted((next(found) for _ in range(BATCH * 16)), key=lambda p: len(p[0]) + len(p[1]))
        for s in rng.sample(range(0, len(some), BATCH), 16):
            batch = some[s:s + BATCH]
            shape = len(batch), max(len(q) + len(d) for q, d in batch)
            ids, of = torch.full(shape, tokenizer.pad_token_id), torch.full(shape, 2)
            at = torch.zeros_like(of)
            for r, (q, d) in enumerate(batch):
                n, m = len(q), len(q) + len(d)
                ids[r, :m], of[r, :n], of[r, n:m] = torch.tensor(q + d), 0, 1
                at[r, :n], at[r, n:m] = torch.arange(n), torch.arange(m - n)
            yield ids, of, at


def learn_apart(model, rng, tokenizer, steps, rate, longest, weights, hold):
    "States of a pair become those of its texts alone, but for the sign."
    old, last = bert(attn_implementation='sdpa'), max(weights)
    for table in (model.embeddings.word_embeddings, model.embeddings.position_embeddings): table.requires_grad_(False)
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), rate, (.9, .98), weight_decay=0)
    held = None
    for step, (ids, of, at) in zip(range(steps), batches(rng, tokenizer, longest)):
        for group in optimizer.param_groups: group['lr'] = rate * min(1, (step + 1) / 20) * (1 - step / steps)
        real, alone = of < 2, (of[:, :, None] == of[:, None])[:, None]
        with torch.autocast('cpu', torch.bfloat16):
            with torch.no_grad(): g = old(ids, alone, position_ids=at, output_hidden_states=True).hidden_states
            h = model(ids, real.long(), of.clamp(max=1), output_hidden_states=True).hidden_states
        sign, loss = torch.where(of == 0, 1., -1.)[real][:, None], 0
        for layer, weight in weights.items():
            x, y = h[layer][real].float(), g[layer][real].float()
            v = (sign * (x - y)).mean(0).detach()
            if hold and layer == last:
                if held is None:
                    u, size = quiet(y.double())
                    held = (STRENGTH * size * u).float()
                v = held
            loss = loss + weight * (x - y - sign * v).pow(2).sum() / (y - y.mean(0)).pow(2).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.)
        optimizer.step()
        optimizer.zero_grad()
        off = float(loss) / sum(weights.values())
        if step % 50 == 49: print(f'step {step + 1}: {off:.3f} of the variance of a state is off', flush=True)


def main():
    if (OUT/'apart.pt').exists(): return
    torch.manual_seed(0)
    rng, tokenizer = random.Random(0), AutoTokenizer.from_pretrained(BASE)
    model = bert(attn_implementation='sdpa')
    model.load_state_dict(with_signs(rng, tokenizer).state_dict())
    for phase in PHASES: learn_apart(model, rng, tokenizer, *phase)
    torch.save(model.state_dict(), OUT/'apart.tmp')
    (OUT/'apart.tmp').rename(OUT/'apart.pt')


if __name__ == '__main__': main()
