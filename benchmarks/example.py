"""The main job, end to end: the base's weights, both data formats, before and after, and a ranked list in two languages.

    make train          # or: python benchmarks/example.py [--epochs 10] [--output_dir output/example]

BM25 and the base's own cosine stand beside the reranker, on the same lists. BM25 is bm25s with words and, for Chinese, pairs of characters; its statistics
come from all documents of the dev file.
"""
import argparse, json, re, time
from pathlib import Path
import bm25s, numpy as np, torch
from rerank_nb.base import cosine_scores
from rerank_nb.data import PairDataset
from rerank_nb.metrics import gains_of, ranking_metrics
from rerank_nb.model import CrossEncoder
from rerank_nb.trainer import TrainConfig, data_format, train

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT/'example_data'
QUESTIONS = ('猫不在猫砂盆里尿尿', 'forgot the router admin password')


def tokens(text):
    "Words, and pairs of Chinese characters."
    text = text.lower()
    return re.findall('[a-z0-9]+', text) + [r[i:i + 2] for r in re.findall('[\u4e00-\u9fff]+', text) for i in range(max(1, len(r) - 1))]


def bm25_scores(pairs):
    "BM25 of each pair; ties are broken against it by the metric."
    docs = list(dict.fromkeys(d for _, d in pairs))
    place = {d: i for i, d in enumerate(docs)}
    index = bm25s.BM25()
    index.index([tokens(d) for d in docs], show_progress=False)
    known = index.vocab_dict
    scores = {q: index.get_scores([t for t in tokens(q) if t in known]) if any(t in known for t in tokens(q)) else np.zeros(len(docs)) for q in dict.fromkeys(q for q, _ in pairs)}
    return np.array([scores[q][place[d]] for q, d in pairs])


def by_language(ds, scores):
    "NDCG@10 on the Chinese and on the English queries."
    gains, groups = gains_of([p.label for p in ds], ds.label2id if ds.data_format == 'graded' else None), ds.pair_groups()
    chinese = np.array([bool(re.search('[\u4e00-\u9fff]', p.query)) for p in ds])
    return [ranking_metrics(np.asarray(scores)[m], gains[m], groups[m])['ndcg@10'] for m in (chinese, ~chinese)]


def one_format(base, kind, out, **settings):
    "Train on one format; a table with BM25, cosine, before and after."
    suffix = 'jsonl' if kind == 'binary' else 'tsv'
    train_file, dev_file = DATA/f'{kind}_train.{suffix}', DATA/f'{kind}_dev.{suffix}'
    c = TrainConfig(base, train_file, f'{out}/{kind}', eval_dataset=dev_file, max_len=256, save_on_epoch_end=False, overwrite_output_dir=True, **settings)
    started = time.time()
    ds = PairDataset(dev_file, kind)
    pairs = [[p.query, p.doc] for p in ds]
    torch.manual_seed(c.seed)
    before = CrossEncoder.from_pretrained(base)
    before.new_head = False   # its scores are meant to be those of an untrained head
    rows = [('BM25', bm25_scores(pairs)), ("the base's cosine", cosine_scores(base, pairs)), ('before: fresh head', before.compute_score(pairs, max_len=256))]
    train(c)
    after = CrossEncoder.from_pretrained(f'{c.output_dir}/model')
    rows.append((f'after: {c.loss_type}', after.compute_score(pairs, max_len=256)))
    table = [dict(what=name, zh=zh, en=en) for name, s in rows for zh, en in [by_language(ds, s)]]
    return after, dict(format=kind, loss_type=c.loss_type, lr=c.lr, epochs=c.epochs, batch_size=c.batch_size, negatives_per_query=c.negatives_per_query,
                       seconds=round(time.time() - started), queries=ds.index.stats['queries'], table=table)


def print_table(result):
    print(f"\n{result['format']} data, {result['queries']} dev queries, NDCG@10, {result['seconds']} s:")
    print(f"{'':24}{'zh':>8}{'en':>8}")
    for r in result['table']: print(f"{r['what']:24}{r['zh']:8.3f}{r['en']:8.3f}")


def show_list(reranker, question):
    "The dev documents of one question, as the trained model ranks them."
    ex = next(e for e in (json.loads(l) for l in open(DATA/'binary_dev.jsonl', encoding='utf-8')) if e['query'] == question)
    print(f'\n{question}')
    for r in reranker.rank(question, ex['pos'] + ex['neg'], top_k=4, max_len=256): print(f"  {r['score']:.2f} {'*' if r['text'] in ex['pos'] else ' '} {r['text']}")


def main():
    p = argparse.ArgumentParser(description='Train the example reranker and print before and after.')
    p.add_argument('--base', default=str(ROOT/'models/me5-small-zh-en'))
    p.add_argument('--output_dir', default=str(ROOT/'output/example'))
    p.add_argument('--loss_type', default=DEFAULTS['binary']['loss_type'])
    p.add_argument('--epochs', type=int, default=None, help='instead of the defaults')
    a = p.parse_args()
    results = []
    for kind in ('graded', 'binary'):
        settings = dict(DEFAULTS[kind])
        if kind == 'binary': settings['loss_type'] = a.loss_type
        if a.epochs: settings['epochs'] = a.epochs
        reranker, r = one_format(a.base, kind, a.output_dir, **settings)
        results.append(r)
    for r in results: print_table(r)
    for q in QUESTIONS: show_list(reranker, q)
    print('(* marks the documents that answer)')
    Path(a.output_dir, 'results.json').write_text(json.dumps(results, indent=1, ensure_ascii=False))
    print(f'\nmodels: {a.output_dir}/binary/model, {a.output_dir}/graded/model; curves: history.png beside them; figures: {a.output_dir}/results.json')


DEFAULTS = dict(binary=dict(loss_type='classfication', lr=2e-4, epochs=20, batch_size=16, negatives_per_query=2),
                graded=dict(loss_type='regression', lr=2e-4, epochs=8, batch_size=16))

if __name__ == '__main__': main()
