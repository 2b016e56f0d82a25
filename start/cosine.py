"""Stage 6 of `make start`: a layer that takes the cosine of two texts which are kept apart.

    python start/cosine.py       # apart.pt -> cosine/

After `apart.py` the states of a pair's two texts are those that the base gives to each alone. What is left to do is
the cosine of their means, and a layer of BERT can do that. Of its twelve heads six attend to the own text and six to
the other one, evenly: the sign of a token is all that queries and keys look at. So the first token has the mean of
the query in one half of its state and that of the document in the other, each in its 190 leading directions. The
feed-forward part multiplies. Since gelu(z) + gelu(-z) is near 0.8 z² for small z,

    gelu(a + b) + gelu(-a - b) - gelu(a - b) - gelu(b - a)

is near 3.2 a b, and four units a direction make the product of two means. The head reads it. Nothing is learned here.
"""
import random
import torch
from torch.nn.functional import cosine_similarity
from transformers import BertConfig, BertForSequenceClassification
from apart import readout
from lists import BASE, OUT, read_jsonl
from rerank_nb.base import E5, E5_WORDS, BaseFile, make_tokenizer, pieces_to_keep
from rerank_nb.files import atomic_folder
from teachers import SCALE

WIDE, PULL = 190, 4.                   # leading directions of a mean; logits by which a sign attracts
STEP, GAIN, LINEAR = .3, .1, .3        # z a standard deviation; score a product; part of tanh that is used


def tokenizer_of(path):
    f = BaseFile(path)
    keep = pieces_to_keep(f.pieces)
    return make_tokenizer([f.pieces[i] for i in keep], f.scores[keep], f.config['max_position_embeddings'], E5_WORDS)


def some_pairs(rng, tokenizer, n=300):
    lists = rng.sample(read_jsonl(OUT/'near.jsonl'), n)
    found = [(l['query'], d) for l in lists for d in rng.sample(l['pos'] + l['neg'], 4)]
    found.sort(key=lambda p: len(p[1]))
    for s in range(0, len(found), 32):
        yield tokenizer(*map(list, zip(*found[s:s + 32])), padding=True, truncation='only_second', max_length=200,
                        return_tensors='pt')


def hidden(model, batch):
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        return model.bert(**batch, output_hidden_states=True).hidden_states


def means_of(model, batches):
    "Means of queries and of documents, first tokens, and some tokens with their signs."
    found = [], [], [], [], []
    for b in batches:
        real, of, h = b['attention_mask'].bool(), b['token_type_ids'], hidden(model, b)[-2].float()
        for x, q, d in zip(h, real & (of == 0), real & (of == 1)):
            some = x[q | d][::4], torch.where(q, 1., -1.)[q | d][::4]
            for kept, new in zip(found, (x[q].mean(0), x[d].mean(0), x[0], *some)): kept.append(new)
    return *map(torch.stack, found[:3]), torch.cat(found[3]).double(), torch.cat(found[4]).double()


def zero(*parts):
    for p in parts: p.weight.data.zero_(), p.bias.data.zero_()


def add_cosine(model, batches):
    "Write the last layer and the head."
    query, doc, first, tokens, sign = means_of(model, batches)
    w, b, error = readout(tokens, sign, 1e-4)
    w, b = w.float(), b.float()
    width, n = len(w), model.config.num_attention_heads
    dims, half = width // n, n // 2
    a, c = query - query.mean(0), doc - doc.mean(0)
    means = torch.cat([a, c]).double()
    leading = torch.linalg.eigh(means.T @ means)[1].flip(1)[:, :WIDE].float()
    centred = (first - first.mean(0)).double()
    one = torch.ones(width, 1).double() / width**.5
    free = torch.linalg.eigh(centred.T @ centred / len(first) + one @ one.T * 1e3)[1].float()   # quiet ones first
    u, places = free[:, 0], free[:, 1:1 + 2 * WIDE] @ torch.linalg.qr(torch.randn(2 * WIDE, 2 * WIDE))[0]
    own, other = places[:, :WIDE], places[:, WIDE:]
    layer = model.bert.encoder.layer[-1]
    at, out, up, down = layer.attention.self, layer.attention.output.dense, layer.intermediate.dense, layer.output.dense
    zero(at.query, at.key, at.value, out, up, down)
    scale, read = (PULL * dims**.5)**.5, torch.zeros(half * dims, width)
    read[:WIDE] = leading.T
    for h in range(n):
        row, way = h * dims, 1 if h < half else -1
        at.query.weight.data[row], at.query.bias.data[row] = way * scale * w, way * scale * b
        at.key.weight.data[row], at.key.bias.data[row] = scale * w, scale * b
    at.value.weight.data = torch.cat([read, read])
    loud = 4 * first.std() * width**.5 / a.norm(dim=1).mean()          # above what stands there
    out.weight.data[:, :WIDE], out.weight.data[:, half * dims:half * dims + WIDE] = loud * own, loud * other
    out.bias.data = -loud * (own @ (leading.T @ query.mean(0)) + other @ (leading.T @ doc.mean(0))) - first.mean(0)
    for k, (x, y) in enumerate(((1, 1), (-1, -1), (1, -1), (-1, 1))):
        rows = slice(k * WIDE, (k + 1) * WIDE)
        up.weight.data[rows], down.weight.data[:, rows] = STEP * (x * own + y * other).T, x * y * GAIN * u[:, None]
    for norm in (layer.attention.output.LayerNorm, layer.output.LayerNorm):
        norm.weight.data.fill_(1.), norm.bias.data.zero_()
    score = torch.cat([hidden(model, x)[-1][:, 0].float() for x in batches]) @ u
    sign, slope = torch.where(torch.arange(width) % 2 == 0, 1., -1.), LINEAR / score.std()
    pooler = model.bert.pooler.dense
    pooler.weight.data = .004 * torch.randn(width, width) + torch.outer(sign * slope, u)
    pooler.bias.data = -sign * slope * score.mean()
    model.classifier.weight.data = (sign * SCALE / LINEAR / width)[None]
    model.classifier.bias.data.zero_()
    return error, float(torch.corrcoef(torch.stack([score, cosine_similarity(a, c)]))[0, 1])


def main():
    if (OUT/'cosine').exists(): return
    torch.manual_seed(0)
    config = BertConfig.from_pretrained(BASE)
    config.num_hidden_layers, config.num_labels = config.num_hidden_layers + 1, 1
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.     # a product does not survive it
    model, tokenizer = BertForSequenceClassification(config).eval(), tokenizer_of(BASE.parent/'cache'/E5.name)
    model.load_state_dict({f'bert.{k}': v for k, v in torch.load(OUT/'apart.pt').items()}, strict=False)
    error, like = add_cosine(model, list(some_pairs(random.Random(2), tokenizer)))
    print(f'the sign is read with an error of {error:.2f}; the score correlates with the cosine: {like:.3f}')
    with atomic_folder(OUT/'cosine') as new:
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)


if __name__ == '__main__': main()
