"""The main job, end to end: a reranker to start from, both data formats, before and after, a list in two languages.

    make train          # or: python examples/zh_en.py [--start FOLDER] [--output_dir output/example]
                        #     [--mixed_precision no]; unset: bf16 on a CPU that has it, in 0.6 of the time
                        #     [--seeds 42 1 2]; a query's value is then the mean of the runs

The start ranks before it has seen a label (`python -m rerank_nb.base`; start/ holds the recipe that made it). Binary
data trains it list-wise; from there the grades go on, after the head has been brought to their level (`fit_head`). BM25
and the cosine of the encoder inside stand beside it, on the same lists. BM25 is bm25s with words and, for Chinese,
pairs of characters; its statistics come from all documents of the dev file.
"""
import argparse, json, re, time
from pathlib import Path
import numpy as np, torch
from rerank_nb.base import cosine_scores, make_base
from rerank_nb.data import PairDataset, read_examples
from rerank_nb.evaluation import evaluate_scores, paired_bootstrap
from rerank_nb.mining import BM25
from rerank_nb.model import CrossEncoder
from rerank_nb.trainer import TrainConfig, train

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT/'example_data/whole'
START, ENCODER = ROOT/'models/reranker-zh-en', ROOT/'models/me5-small-zh-en'
MAX_LEN = 256
QUESTIONS = ('新领养的猫一直躲着不出来', 'weak wifi signal in the bedroom')
FILES = {'binary': ('binary_train.jsonl', 'binary_dev.jsonl'), 'graded': ('graded_train.tsv', 'graded_dev.tsv')}
SETTINGS = dict(
    binary=dict(loss_type='ce', lr=5e-5, epochs=2, batch_size=32, group_size=6),
    graded=dict(loss_type='regression', lr=5e-5, epochs=2, batch_size=32, fit_head=512))


def has_bf16():
    "Does this CPU multiply bfloat16 by itself?"
    can = torch.cpu.get_capabilities() if hasattr(torch.cpu, 'get_capabilities') else {}
    return bool(can.get('avx512_bf16') or can.get('amx_bf16'))


def learn(start, out, **settings):
    "Train on one format, then go on with the other; the models' folders."
    folders = {}
    for kind, (file, _) in FILES.items():
        train(TrainConfig(start, DATA/file, f'{out}/{kind}', max_len=MAX_LEN, save_on_epoch_end=False,
                          overwrite_output_dir=True, freeze_embeddings=True, **settings, **SETTINGS[kind]))
        start = folders[kind] = f'{out}/{kind}/model'
    return folders


def score(folder, pairs, precision):
    return CrossEncoder.from_pretrained(folder, mixed_precision=precision).compute_score(pairs, max_len=MAX_LEN)


def per_query(ds, scores): return np.array(evaluate_scores(np.asarray(scores), ds)['per_query']['ndcg@10'])


def measured(kind, start, trained, precision):
    "{what: NDCG@10 of each dev query, a mean over the trained models}, and which queries are Chinese."
    ds = PairDataset(DATA/FILES[kind][1])
    pairs = list(ds.texts())
    scores = {
        'BM25': [BM25().score_pairs(pairs)], "the encoder's cosine": [cosine_scores(ENCODER, pairs)],
        'the start, no label read': [score(start, pairs, precision)],
        f"after: {SETTINGS[kind]['loss_type']}": [score(folder, pairs, precision) for folder in trained]}
    queries = {p.group: p.query for p in ds}
    chinese = np.array([bool(re.search('[\u4e00-\u9fff]', queries[g])) for g in sorted(queries)])
    return {what: np.mean([per_query(ds, x) for x in s], axis=0) for what, s in scores.items()}, chinese


def table(values, chinese):
    return [dict(what=what, zh=v[chinese].mean(), en=v[~chinese].mean()) for what, v in values.items()]


def print_format(kind, rows, queries):
    print(f'\n{kind} data, {queries} dev queries, NDCG@10:')
    print(f"{'':26}{'zh':>8}{'en':>8}")
    for r in rows: print(f"{r['what']:26}{r['zh']:8.3f}{r['en']:8.3f}")


def print_differences(all_values):
    "What training gained over each row, both formats pooled."
    names = [list(v) for v in all_values]
    after = np.concatenate([v[n[-1]] for v, n in zip(all_values, names)])
    print('\nafter beside the others, all queries, mean difference and 95% interval:')
    for i, name in enumerate(names[0][:-1]):
        other = np.concatenate([v[n[i]] for v, n in zip(all_values, names)])
        mean, lo, hi = paired_bootstrap(other, after)
        print(f'  {name:26}{mean:+.3f} ({lo:+.3f} to {hi:+.3f})')


def show_list(folder, question):
    "The dev documents of one question, as a model ranks them."
    ex = next(ex for _, ex in read_examples(DATA/'binary_dev.jsonl') if ex.query == question)
    print(f'\n{question}')
    for r in CrossEncoder.from_pretrained(folder).rank(question, ex.docs, top_k=4, max_len=MAX_LEN):
        mark = '*' if r['corpus_id'] < ex.n_pos else ' '
        print(f"  {r['score']:.2f} {mark} {r['text']}")


def main():
    p = argparse.ArgumentParser(description='Train the example rerankers and print before and after.')
    p.add_argument('--start', default=str(START))
    p.add_argument('--output_dir', default=str(ROOT/'output/example'))
    p.add_argument('--seeds', type=int, nargs='+', default=[42])
    p.add_argument('--mixed_precision', choices=['no', 'bf16'], default='bf16' if has_bf16() else 'no')
    a = p.parse_args()
    began, results, values = time.time(), [], []
    make_base(ENCODER, reranker=False)
    outs = [a.output_dir, *(f'{a.output_dir}/seed_{seed}' for seed in a.seeds[1:])]
    runs = [learn(a.start, out, seed=seed, mixed_precision=a.mixed_precision) for seed, out in zip(a.seeds, outs)]
    for kind in FILES:
        found, chinese = measured(kind, a.start, [folders[kind] for folders in runs], a.mixed_precision)
        values.append(found)
        rows = table(found, chinese)
        results.append(dict(format=kind, settings=SETTINGS[kind], seeds=a.seeds, queries=len(chinese), table=rows))
    for r in results: print_format(r['format'], r['table'], r['queries'])
    print_differences(values)
    for q in QUESTIONS: show_list(f'{a.output_dir}/binary/model', q)
    print('(* marks the documents that answer)')
    Path(a.output_dir, 'results.json').write_text(json.dumps(results, indent=1, ensure_ascii=False))
    print(f'\n{time.time() - began:.0f} s in all. Models: {a.output_dir}/binary/model and graded/model; '
          f'figures: {a.output_dir}/results.json')


if __name__ == '__main__': main()
