"""The main job, end to end: base weights, both data formats, before and after, and a ranked list in two languages.

The base has no head that scores. First it teaches itself: a regression on its own cosines over the training texts
(`rerank_nb.base.write_teacher`, no label is read). Then each format is learned from there.

    make train          # or: python examples/zh_en.py [--base FOLDER] [--output_dir output/example]

BM25 and the base's own cosine stand beside the reranker, on the same lists. BM25 is bm25s with words and, for Chinese,
pairs of characters; its statistics come from all documents of the dev file.
"""
import argparse, json, re, time
from pathlib import Path
import numpy as np, torch
from rerank_nb.base import cosine_scores, write_teacher
from rerank_nb.data import PairDataset, read_examples
from rerank_nb.metrics import ranking_metrics
from rerank_nb.mining import BM25
from rerank_nb.model import CrossEncoder
from rerank_nb.trainer import TrainConfig, train

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT/'example_data'
MAX_LEN = 256
QUESTIONS = ('猫不在猫砂盆里尿尿', 'weak wifi signal in the bedroom')


def by_language(ds, scores):
    "NDCG@10 on the Chinese and on the English queries."
    gains, groups = ds.gains(), ds.pair_groups()
    chinese = np.array([bool(re.search('[\u4e00-\u9fff]', p.query)) for p in ds])
    return [ranking_metrics(np.asarray(scores)[m], gains[m], groups[m])['ndcg@10'] for m in (chinese, ~chinese)]


FILES = {'binary': ('binary_train.jsonl', 'binary_dev.jsonl'), 'graded': ('graded_train.tsv', 'graded_dev.tsv')}
SETTINGS = dict(
    teacher=dict(loss_type='regression', lr=8e-5, epochs=2),
    binary=dict(loss_type='classfication', lr=5e-5, epochs=4, batch_size=16, negatives_per_query=2),
    graded=dict(loss_type='regression', lr=5e-5, epochs=5, batch_size=16))


def config(model, files, out, settings, **kw):
    same = dict(max_len=MAX_LEN, save_on_epoch_end=False, overwrite_output_dir=True)
    return TrainConfig(model, files, out, **same, **settings, **kw)


def teach(base, out, settings):
    "A head that knows what the base knows; returns the model's folder."
    texts = [ex for kind, (f, _) in FILES.items() for _, ex in read_examples(DATA/f, kind)]
    Path(out).mkdir(parents=True, exist_ok=True)
    label2id = write_teacher(base, texts, f'{out}/teacher.tsv', others=20)
    train(config(base, f'{out}/teacher.tsv', f'{out}/teacher', settings, label2id=json.dumps(label2id)))
    return f'{out}/teacher/model'


def one_format(base, taught, kind, out, settings):
    "Train on one format; the model, and NDCG@10 of BM25, cosine, fresh head, taught head and trained model."
    train_file, dev_file = (DATA/f for f in FILES[kind])
    c = config(taught, train_file, f'{out}/{kind}', settings, eval_dataset=dev_file)
    ds, started = PairDataset(dev_file, kind), time.time()
    pairs = [[p.query, p.doc] for p in ds]
    torch.manual_seed(c.seed)
    fresh = CrossEncoder.from_pretrained(base)
    fresh.new_head = False   # known, and meant
    scores = {
        'BM25': np.array(BM25().score_pairs(pairs)),
        "the base's cosine": cosine_scores(base, pairs),
        'before: fresh head': fresh.compute_score(pairs, max_len=MAX_LEN),
        'taught by the cosine': CrossEncoder.from_pretrained(taught).compute_score(pairs, max_len=MAX_LEN)}
    train(c)
    after = CrossEncoder.from_pretrained(f'{c.output_dir}/model')
    scores[f'after: {c.loss_type}'] = after.compute_score(pairs, max_len=MAX_LEN)
    measured = {name: by_language(ds, s) for name, s in scores.items()}
    table = [dict(what=name, zh=zh, en=en) for name, (zh, en) in measured.items()]
    queries, seconds = ds.index.stats['queries'], round(time.time() - started)
    return after, dict(format=kind, settings=settings, seconds=seconds, queries=queries, table=table)


def print_table(result):
    print(f"\n{result['format']} data, {result['queries']} dev queries, NDCG@10, {result['seconds']} s:")
    print(f"{'':24}{'zh':>8}{'en':>8}")
    for r in result['table']: print(f"{r['what']:24}{r['zh']:8.3f}{r['en']:8.3f}")


def show_list(reranker, question):
    "The dev documents of one question, as the trained model ranks them."
    ex = next(ex for _, ex in read_examples(DATA/'binary_dev.jsonl') if ex.query == question)
    print(f'\n{question}')
    for r in reranker.rank(question, ex.docs, top_k=4, max_len=MAX_LEN):
        mark = '*' if r['corpus_id'] < ex.n_pos else ' '
        print(f"  {r['score']:.2f} {mark} {r['text']}")


def main():
    p = argparse.ArgumentParser(description='Train the example rerankers and print before and after.')
    p.add_argument('--base', default=str(ROOT/'models/me5-small-zh-en'))
    p.add_argument('--output_dir', default=str(ROOT/'output/example'))
    a = p.parse_args()
    started = time.time()
    taught = teach(a.base, a.output_dir, SETTINGS['teacher'])
    kinds = ('graded', 'binary')
    made = [one_format(a.base, taught, kind, a.output_dir, SETTINGS[kind]) for kind in kinds]
    models, results = zip(*made)
    for r in results: print_table(r)
    for q in QUESTIONS: show_list(models[1], q)
    print('(* marks the documents that answer)')
    Path(a.output_dir, 'results.json').write_text(json.dumps(results, indent=1, ensure_ascii=False))
    print(f'\n{time.time() - started:.0f} s in all. Models: {a.output_dir}/binary/model and graded/model; '
          f'curves: history.png beside them; figures: {a.output_dir}/results.json')


if __name__ == '__main__': main()
