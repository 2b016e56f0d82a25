"""Stage 4 of `make start`: lists of near documents, which the cosine alone judges.

    python start/near.py         # texts/*.jsonl -> near.jsonl

The lessons of `teachers.py` are documentation, half of it at least, and a cross-encoder's opinion of it. What the start
must not lose is the cosine's judgement of everyday texts and of other ways to ask: these lists are of all kinds of
texts, each query meets its nearest ones, and a third of the queries are the first sentence of a document, which is
taken out of it. Both languages ask, both answer.
"""
import random, re
import numpy as np
from lists import LANGUAGES, OUT, SIZE, all_vectors, is_newer, read_jsonl, with_length, write_jsonl
from teachers import SCALE, standardised

MOST = dict(review=800, news=800, idiom=500, word=700, wordnet=1500, story=5000, thing=4000, wiki=1200, guide=700,
            kernel=300, office=1500, package=1500, gnome=800, man=1000, book=400, gimp=400, setting=200)
WAYS = {('zh', 'zh'): .4, ('en', 'en'): .3, ('zh', 'en'): .15, ('en', 'zh'): .15}   # of texts with a translation
ACROSS = .2                                                                          # of texts without one
PLACES = ((0, 2, 2), (2, 20, 3), (20, 150, 2), (0, None, 3))    # from this place by the cosine, to it: so many


def sentences(text): return [s for s in re.split(r'(?<=[。！？；])|(?<=[.!?;])\s+', text) if s]


def asked_by_its_beginning(row):
    "The first sentence of each document becomes its query, where there is another."
    row = row | dict(query=dict(row['query']), doc=dict(row['doc']))
    for k, text in row['doc'].items():
        first, *rest = sentences(text) or ['']
        if rest and 8 < len(first) < 160:
            row['query'][k] = first.strip(' 。.')
            row['doc'][k] = (' ' if k == 'en' else '').join(rest).strip()
    return row


def choose(rng):
    "Rows of all kinds, the dev side left out."
    rows = []
    for path in sorted((OUT/'texts').glob('*.jsonl')):
        found = [r for r in read_jsonl(path) if not r['dev']]
        rows += map(with_length, rng.sample(found, min(len(found), MOST.get(path.stem, len(found)))))
    return [asked_by_its_beginning(r) if rng.random() < .34 else r for r in rows]


def way(row, rng):
    "In which language a row asks, and in which it is answered."
    if len(row['doc']) == 2: return rng.choices(list(WAYS), WAYS.values())[0]
    own, = row['doc']
    return own, next(l for l in LANGUAGES if l != own) if rng.random() < ACROSS else own


def near_lists(rows, vectors, rng):
    "(row of the query, its way, rows of the documents, their cosines)"
    ways = [way(r, rng) for r in rows]
    for w in WAYS:
        asks, answers = w
        has = [j for j, r in enumerate(rows) if r['doc'].get(answers)]
        place = {j: k for k, j in enumerate(has)}
        some = [i for i, x in enumerate(ways) if x == w]
        if len(has) < PLACES[-2][1]: continue
        for s in range(0, len(some), 512):
            cosines = vectors[asks, 'query'][some[s:s + 512]] @ vectors[answers, 'doc'][has].T
            for i, c in zip(some[s:s + 512], cosines):
                order = np.argsort(-c).tolist()
                chosen = [k for a, b, n in PLACES for k in rng.sample(order[a:b], n)]
                texts = {}
                for k in [place[i], *chosen] if i in place else chosen: texts.setdefault(rows[has[k]]['doc'][answers], k)
                chosen = list(texts.values())[:SIZE]
                if len(chosen) == SIZE: yield i, w, [has[k] for k in chosen], c[chosen]


def main():
    if is_newer(OUT/'near.jsonl', *(OUT/'texts').glob('*.jsonl')): return
    rng = random.Random(7)
    rows = choose(rng)
    found = list(near_lists(rows, all_vectors(rows), rng))
    lines = []
    for w in WAYS:
        some = [f for f in found if f[1] == w]
        scores = SCALE * standardised(np.array([f[3] for f in some]))
        for (i, (asks, answers), chosen, _), marks in zip(some, np.round(scores, 3).tolist()):
            docs = [rows[j]['doc'][answers] for j in chosen]
            lines.append(dict(query=rows[i]['query'][asks], pos=docs[:1], neg=docs[1:], pos_scores=marks[:1],
                              neg_scores=marks[1:]))
    write_jsonl(OUT/'near.jsonl', rng.sample(lines, len(lines)))
    print(f'{len(lines):,} lists')


if __name__ == '__main__': main()
