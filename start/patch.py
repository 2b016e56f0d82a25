"""Stage 8 of `make start`: what was learned, as a small file of differences.

    python start/patch.py [--rank 32]               # run/start -> rerank_nb/start.safetensors, and the sha256 to pin
    python start/patch.py --measure 32 16 8        # NDCG@10 of every stage and of patches; the last without moments too
    python start/patch.py --score FOLDER ...        # NDCG@10 of any rerankers, such as earlier stages of a run
"""
import argparse, random, sys
from pathlib import Path
import numpy as np
from transformers import AutoTokenizer, BertForSequenceClassification, BertModel
from cosine import some_pairs
from lists import BASE, LANGUAGES, OUT, ROOT, Pool, all_vectors, as_data, choose_rows, write_jsonl
from rerank_nb.base import E5, cosine_scores, input_moments, make_base, make_patch, sum_of, write_patch
from rerank_nb.evaluation import evaluate_scores, load_lists
from rerank_nb.model import CrossEncoder
sys.path.insert(0, str(ROOT/'benchmarks'))
from common import save

PATCH = ROOT/'rerank_nb/start.safetensors'
ABOUT = ('It began as the encoder\'s own cosine: two texts kept apart by their token types, compared in a layer of '
         'their own. Then it was taught with the scores of ms-marco-MiniLM-L-12-v2 and of the cosine, on lists of '
         'Chinese and English texts from public packages; no query was labelled by a person.')
DEV_QUERIES = 40      # of each way to ask
WAYS = (('en', 'en'), ('zh', 'zh'), ('zh', 'en'))
DEV = {'sections': OUT/'dev.jsonl', **{kind: ROOT/f'example_data/whole/{kind}_dev.{ext}'
                                       for kind, ext in (('binary', 'jsonl'), ('graded', 'tsv'))}}


def write_dev(path):
    "Lists of dev sections in Chinese, English and across."
    rng = random.Random(1)
    rows = [r for r in choose_rows(rng, dev=True) if len(r['doc']) == 2]
    members = list(range(len(rows)))
    pool = Pool(rows, members, LANGUAGES, all_vectors(rows), rng)
    def lines():
        for way in WAYS:
            some = rng.sample(members, DEV_QUERIES)
            for i, near in zip(some, pool.near(some)): yield as_data(rows, pool.list_of(i, near), *way)
    write_jsonl(path, lines())


def write(path, rank, weighed=True):
    base = BertModel.from_pretrained(BASE, add_pooling_layer=False)
    tuned = BertForSequenceClassification.from_pretrained(OUT/'run/start')
    pairs = some_pairs(random.Random(3), AutoTokenizer.from_pretrained(OUT/'run/start'))
    parts = make_patch(base, tuned, rank, input_moments(tuned, pairs) if weighed else None)
    return write_patch(path, parts, E5.sha256, ABOUT)


def ndcg(score):
    "{dev set: NDCG@10} of a function from pairs to scores"
    def value(ds): return round(float(evaluate_scores(np.asarray(score(list(ds.texts()))), ds)['ndcg@10']), 3)
    return {name: value(load_lists(path)) for name, path in DEV.items()}


def scores_of(folder):
    model = CrossEncoder.from_pretrained(folder)
    return lambda pairs: model.compute_score(pairs, max_len=400, mixed_precision='bf16', progress=False)


def patched(rank, weighed):
    "The folder that a patch makes, and its size in MB."
    name = f'rank_{rank}' + ('' if weighed else '_alone')
    path = write(OUT/f'{name}.safetensors', rank, weighed)
    return make_base(OUT/name, start=path, cache_dir=ROOT/'models/cache'), round(Path(path).stat().st_size / 1e6, 1)


def measure(ranks):
    "Print and keep NDCG@10 of the encoder's cosine, of every stage, and of patches."
    rows = [dict(what="the encoder's cosine", **ndcg(lambda pairs: cosine_scores(BASE, pairs)))]
    for what, folder in (('cosine.py', 'cosine'), ('train.py', 'run/model'), ('their mean, the start', 'run/start')):
        rows.append(dict(what=what, **ndcg(scores_of(OUT/folder))))
    for rank, weighed in [(r, True) for r in ranks] + [(ranks[-1], False)]:
        folder, size = patched(rank, weighed)
        what = f'patch of rank {rank}' + (', SVD of the difference alone' if not weighed else '')
        rows.append(dict(what=what, mb=size, **ndcg(scores_of(folder))))
    for row in rows: print(row)
    save('start', dict(rows=rows))


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--rank', type=int, default=32)
    p.add_argument('--measure', type=int, nargs='+', metavar='RANK')
    p.add_argument('--score', nargs='+', metavar='FOLDER')
    a = p.parse_args()
    make_base(BASE, reranker=False)
    if (a.measure or a.score) and not (OUT/'dev.jsonl').exists(): write_dev(OUT/'dev.jsonl')
    if a.measure: measure(a.measure)
    elif a.score:
        for folder in a.score: print(folder, ndcg(scores_of(folder)), flush=True)
    else:
        write(PATCH, a.rank)
        print(f'{PATCH}: {PATCH.stat().st_size / 1e6:.1f} MB, sha256 {sum_of(PATCH)}: '
              f'START_SHA256 in nbs/09_base.ipynb')


if __name__ == '__main__': main()
