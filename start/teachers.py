"""Stage 3 of `make start`: what the teachers say of every list, fused, for the lists in Chinese, English and across.

    python start/teachers.py     # english.jsonl, chinese.jsonl -> scored.jsonl, lessons.jsonl

The English cross-encoder reads the English lists; what it says of a pair holds for its translation. The base's cosine
reads each language. Both are standardised over all pairs and averaged; a query's own document has a bonus. A list of
translated texts gives two lessons: one in Chinese, one in English or across.
"""
import random
import numpy as np
from lists import BASE, OUT, ROOT, all_vectors, is_newer, read_jsonl, write_jsonl
from rerank_nb.base import make_base
from rerank_nb.scoring import score_dataset

ENGLISH = ROOT/'models/reranker-en'
WEIGHT = .5         # of the cross-encoder, beside the cosine
BONUS = .5          # of the query's own document, in standard deviations
SCALE = 2.5         # logits a standard deviation
ACROSS = {('en', 'en'): .5, ('zh', 'en'): .3, ('en', 'zh'): .2}     # the second lesson of a list


def standardised(x): return (x - x.mean()) / x.std()


def cosines(vectors, lists, language):
    query, doc = vectors[language, 'query'], vectors[language, 'doc']
    return standardised(np.einsum('ld,lnd->ln', query[lists[:, 0]], doc[lists]))


def fused(teachers, weights):
    "(lists, documents) logits."
    scores = standardised(sum(w * t for w, t in zip(weights, teachers)))
    scores[:, 0] += BONUS
    return SCALE * scores


def lesson(rows, chosen, scores, asks, answers):
    docs, marks = [rows[j]['doc'][answers] for j in chosen], [round(float(s), 3) for s in scores]
    return dict(query=rows[chosen[0]]['query'][asks], pos=docs[:1], neg=docs[1:], pos_scores=marks[:1],
                neg_scores=marks[1:])


def lessons(rows, vectors, scored, chinese, rng):
    lists = np.array([l['rows'] for l in scored])
    both = np.array([all('zh' in rows[j]['doc'] for j in l) for l in lists])
    judge = standardised(np.array([l['pos_scores'] + l['neg_scores'] for l in scored]))
    en = cosines(vectors, lists, 'en')
    for l, s in zip(lists[~both], fused((judge[~both], en[~both]), (WEIGHT, 1 - WEIGHT))):
        yield lesson(rows, l, s, 'en', 'en')
    half = (1 - WEIGHT) / 2
    zh = cosines(vectors, lists[both], 'zh')
    for l, s in zip(lists[both], fused((judge[both], en[both], zh), (WEIGHT, half, half))):
        yield lesson(rows, l, s, 'zh', 'zh')
        yield lesson(rows, l, s, *rng.choices(list(ACROSS), ACROSS.values())[0])
    lists = np.array([l['rows'] for l in chinese])
    for l, s in zip(lists, fused([cosines(vectors, lists, 'zh')], [1])): yield lesson(rows, l, s, 'zh', 'zh')


def main():
    make_base(BASE, reranker=False)
    if not is_newer(OUT/'scored.jsonl', OUT/'english.jsonl'):
        make_base(ENGLISH, kind='reranker-en')
        score_dataset(ENGLISH, OUT/'english.jsonl', OUT/'scored.jsonl', mixed_precision='bf16', max_len=400)
    rows, scored, chinese = (read_jsonl(OUT/f'{name}.jsonl') for name in ('rows', 'scored', 'chinese'))
    rng = random.Random(0)
    found = list(lessons(rows, all_vectors(rows), scored, chinese, rng))
    write_jsonl(OUT/'lessons.jsonl', rng.sample(found, len(found)))
    print(f'{len(found):,} lessons')


if __name__ == '__main__': main()
