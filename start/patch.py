"""Stage 8 of `make start`: what was learned, as a small file of differences.

    python start/patch.py [--rank 32]               # run/start -> rerank_nb/start.safetensors, and the sha256 to pin
    python start/patch.py --ranks 4 8 16 32         # size and NDCG@10 over the rank, beside the whole model's
"""
import argparse, random, sys
import numpy as np
from transformers import AutoTokenizer, BertForSequenceClassification, BertModel
from cosine import some_pairs
from lists import BASE, OUT, ROOT
from rerank_nb.base import E5, input_moments, make_base, make_patch, sum_of, write_patch
from rerank_nb.evaluation import evaluate_scores, load_lists
from rerank_nb.model import CrossEncoder
sys.path.insert(0, str(ROOT/'benchmarks'))
from common import save

PATCH = ROOT/'rerank_nb/start.safetensors'
ABOUT = ('It began as the encoder\'s own cosine: two texts kept apart by their token types, compared in a layer of '
         'their own. Then it was taught with the scores of ms-marco-MiniLM-L-12-v2 and of the cosine, on lists of '
         'Chinese and English texts from public packages; no query was labelled by a person.')
DEV = {'sections': OUT/'dev.jsonl', **{kind: ROOT/f'example_data/whole/{kind}_dev.{ext}'
                                       for kind, ext in (('binary', 'jsonl'), ('graded', 'tsv'))}}


def write(path, rank):
    base = BertModel.from_pretrained(BASE, add_pooling_layer=False)
    tuned = BertForSequenceClassification.from_pretrained(OUT/'run/start')
    moments = input_moments(tuned, some_pairs(random.Random(3), AutoTokenizer.from_pretrained(OUT/'run/start')))
    return write_patch(path, make_patch(base, tuned, rank, moments), E5.sha256, ABOUT)


def ndcg(folder):
    "{dev set: NDCG@10}"
    model = CrossEncoder.from_pretrained(folder)
    def value(ds):
        scores = model.compute_score(list(ds.texts()), max_len=400, mixed_precision='bf16', progress=False)
        return round(float(evaluate_scores(np.asarray(scores), ds)['ndcg@10']), 4)
    return {name: value(load_lists(path)) for name, path in DEV.items()}


def over_ranks(ranks):
    "Print and keep a row for each rank, and one for the whole model."
    rows = [dict(rank='whole', **ndcg(OUT/'run/start'))]
    for r in ranks:
        path = write(OUT/f'rank_{r}.safetensors', r)
        folder = make_base(OUT/f'rank_{r}', start=path, cache_dir=ROOT/'models/cache')
        rows.append(dict(rank=r, mb=round((OUT/f'rank_{r}.safetensors').stat().st_size / 2**20, 2), **ndcg(folder)))
    for row in rows: print(row)
    save('start_ranks', dict(rows=rows))


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--rank', type=int, default=32)
    p.add_argument('--ranks', type=int, nargs='+')
    a = p.parse_args()
    make_base(BASE, reranker=False)
    if a.ranks: over_ranks(a.ranks)
    else:
        write(PATCH, a.rank)
        print(f'{PATCH}: {PATCH.stat().st_size / 2**20:.1f} MB, sha256 {sum_of(PATCH)}: '
              f'START_SHA256 in nbs/09_base.ipynb')


if __name__ == '__main__': main()
