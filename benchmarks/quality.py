"""What does each loss make of the start, and what does sentence-transformers make of the same data?

    python benchmarks/quality.py [--data example] [--contenders classfication ce ...] [--seeds 0 1 2]
    python benchmarks/quality.py --data debian --contenders classfication ce listnet ...
    python benchmarks/quality.py --data debian_all --contenders ce --seeds 0
    python benchmarks/quality.py --data debian_all --contenders          # what the start knows, no training
    python benchmarks/quality.py --data debian_all --contenders ce --seeds 0 --lists 17      # so many labelled queries
    python benchmarks/quality.py --beside models/reranker-en ...         # a row for another reranker, as it is
    python benchmarks/quality.py --mixed_precision bf16 ...              # both sides train so, on a CPU that has it

A second call does what is missing. The second command is about man pages, see debian_docs.py; the third has up to 200
queries of each kind: man pages, package descriptions, handbooks and FAQs.

Start: the reranker of `python -m rerank_nb.base`, or `--start FOLDER`. Every contender sees all pairs of the training
file once or twice (`LESSONS`), in batches of 30 pairs (whole queries for a list-wise loss), so the steps are the same,
with the same rate, schedule and seeds; sentence-transformers trains with its BinaryCrossEntropyLoss. Reported is
NDCG@10: a query's value is its mean over the seeds, intervals are paired bootstraps over the queries.
"""
import argparse, contextlib, io, json, tempfile, time
from functools import partial
from pathlib import Path
import numpy as np, torch
from common import ROOT, machine, save
from debian_docs import build, is_chinese
from rerank_nb.base import cosine_scores, make_base
from rerank_nb.files import checksum
from rerank_nb.data import read_examples
from rerank_nb.evaluation import evaluate_scores, load_lists, paired_bootstrap
from rerank_nb.mining import BM25
from rerank_nb.model import CrossEncoder
from rerank_nb.trainer import TrainConfig, train

THEIRS = 'sentence-transformers'
CONTENDERS = ['classfication', 'ce', 'listnet', 'listmle', 'ranknet', 'lambda', THEIRS]
MAX_LEN, BATCH = 160, 30
QUIET = dict(max_len=MAX_LEN, save_on_epoch_end=False, overwrite_output_dir=True)
LESSONS = dict(example=(3e-5, 2), debian=(5e-5, 1), debian_all=(5e-5, 2))      # learning rate, epochs
OUT = ROOT/'output/quality'
EXAMPLE = ROOT/'example_data/whole'
BASE, START = ROOT/'models/me5-small-zh-en', ROOT/'models/reranker-zh-en'


def debian(everything=False):
    "(training file, {name: dev lists}); with everything up to 200 training lists of each kind, books and packages too."
    data = ROOT/'output/debian_docs'
    print(build(data), flush=True)
    names = dict(en='English', zh='Chinese', zhen='Chinese to English')
    if everything:
        data = ROOT/'output/debian_docs_all'
        print(build(data, everything=True, train_queries=200, dev_queries=40), flush=True)
        names |= {f'{kind}_{k}': f'{v}, {kind}s' for kind in ('book', 'package') for k, v in names.items()}
    dev = {name: load_lists(data/f'dev_{k}.jsonl') for k, name in names.items()}
    return data/'train.jsonl', dev


def example():
    "The same for example_data."
    out = OUT/'example'
    lines = (EXAMPLE/'binary_dev.jsonl').read_text(encoding='utf-8').splitlines(True)
    for name, chinese in (('zh', True), ('en', False)):
        text = ''.join(l for l in lines if is_chinese(json.loads(l)['query']) == chinese)
        (out/f'dev_{name}.jsonl').write_text(text, encoding='utf-8')
    dev = {'English': load_lists(out/'dev_en.jsonl'), 'Chinese': load_lists(out/'dev_zh.jsonl')}
    return EXAMPLE/'binary_train.jsonl', dev


def thinned(file, n, out):
    "A file of `n` of its lines, drawn by a fixed seed; fewer are the first of more."
    lines = file.read_text(encoding='utf-8').splitlines(True)
    chosen = np.random.default_rng(0).permutation(len(lines))[:n]
    out.write_text(''.join(lines[i] for i in chosen), encoding='utf-8')
    return out


def values(score, dev):
    "NDCG@10 of each dev query: `score` is a function from pairs to numbers."
    def ndcg(ds):
        scores = np.asarray(score([[p.query, p.doc] for p in ds]))
        return evaluate_scores(scores, ds)['per_query']['ndcg@10'].tolist()
    return {k: ndcg(ds) for k, ds in dev.items()}


def bm25(pairs): return BM25().score_pairs(pairs)


def reranker(folder):
    m = CrossEncoder.from_pretrained(folder)
    return lambda pairs: m.compute_score(pairs, max_len=MAX_LEN, progress=False)


def ours(start, file, loss, seed, out, lr, epochs, precision):
    lesson = dict(loss_type=loss, lr=lr, epochs=epochs, batch_size=BATCH, seed=seed, mixed_precision=precision)
    train(TrainConfig(start, file, out, **lesson, **QUIET))
    return reranker(f'{out}/model')


def theirs(start, file, seed, lr, epochs, precision):
    from datasets import Dataset
    from sentence_transformers import CrossEncoder as Theirs
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
    rows = [(ex.query, d, y) for _, ex in read_examples(file) for d, y in zip(ex.docs, ex.targets)]
    queries, passages, labels = map(list, zip(*rows))
    data = Dataset.from_dict(dict(query=queries, passage=passages, label=labels))
    model = Theirs(str(start), num_labels=1, max_length=MAX_LEN, device='cpu')
    args = CrossEncoderTrainingArguments(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=BATCH, learning_rate=lr, num_train_epochs=epochs,
        lr_scheduler_type='cosine', warmup_steps=.1, weight_decay=.01, seed=seed, save_strategy='no', report_to='none',
        use_cpu=True, bf16=precision == 'bf16', disable_tqdm=True)
    CrossEncoderTrainer(model=model, args=args, train_dataset=data, loss=BinaryCrossEntropyLoss(model)).train()
    return lambda pairs: model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)


def run(name, seed, data, file, dev, start, precision):
    "One contender with one seed: per-query values, from disk if they are there."
    lr, epochs = LESSONS[data]
    marks = [f'{checksum(p):08x}' for p in (file, f'{start}/model.safetensors')]
    lesson = '-'.join([*marks, f'{lr:g}', f'{epochs}', precision])      # other data, start or lesson: another run
    path = OUT/f'{data}/{name}-{seed}-{lesson}.json'
    if not path.exists():
        began = time.time()
        with contextlib.redirect_stdout(io.StringIO()):
            if name == THEIRS: score = theirs(start, file, seed, lr, epochs, precision)
            else: score = ours(start, file, name, seed, OUT/f'{data}/{name}-{seed}', lr, epochs, precision)
        trained = time.time() - began
        found = values(score, dev)
        path.write_text(json.dumps(dict(seconds=round(trained), values=found)))
        means = ', '.join(f'{k} {np.mean(v):.3f}' for k, v in found.items())
        print(f'{name}, seed {seed}: {trained:.0f} s, {means}', flush=True)
    return json.loads(path.read_text())['values']


def untrained(dev, start, beside):
    "Per-query values of what stands beside the contenders."
    return {
        'BM25': values(bm25, dev),
        "the base's cosine": values(lambda pairs: cosine_scores(BASE, pairs), dev),
        **{folder.name: values(reranker(folder), dev) for folder in beside},
        'the start': values(reranker(start), dev)}


def keep_scores(start, runs):
    "Every dev pair's score, in the order of the file, for the tutorial on errors."
    pairs = [[p.query, p.doc] for p in load_lists(ROOT/'example_data/binary_dev.jsonl')]
    scores = {"the base's cosine": cosine_scores(BASE, pairs), 'the start': reranker(start)(pairs)}
    for name, seed in runs: scores[name] = reranker(OUT/f'example/{name}-{seed}/model')(pairs)
    save('example_dev_scores', dict(scores={n: [round(float(x), 4) for x in s] for n, s in scores.items()}))


def cell(a, b):
    mean, lo, hi = paired_bootstrap(a, b)
    return f'{mean:+.3f} ({lo:+.3f} to {hi:+.3f})' + ('' if lo <= 0 <= hi else ' *')


def whole(found): return np.concatenate(list(found.values()))


def table(corner, dev, rows):
    "A table in Markdown: {name: cells}, a column for each dev set and one for all."
    head = f"|{corner}| {' | '.join(dev)} | all |\n|---|{'---|' * (len(dev) + 1)}"
    return '\n'.join([head, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items())])


def mean_cells(found, seeds):
    "Means of the dev sets, with half the range between the seeds where there are some, and the mean of all."
    cells = [f'{np.mean(v):.3f}' for v in found.values()]
    if seeds:
        ranges = [np.ptp([np.mean(s[k]) for s in seeds]) for k in found]
        cells = [f'{c} ±{r/2:.3f}' for c, r in zip(cells, ranges)]
    return [*cells, f'{whole(found).mean():.3f}']


def difference_cells(found, other):
    return [*(cell(found[k], other[k]) for k in found), cell(whole(found), whole(other))]


def report(rows, spread, first, dev):
    "The tables: means of all, and differences of the first contender to the others."
    seeds, queries = len(spread.get(first, '')), ', '.join(f'{len(v)} {k}' for k, v in rows['BM25'].items())
    print(f'\n{machine()}\nNDCG@10, {seeds} seeds, {queries} queries\n')
    print(table(' ', dev, {n: mean_cells(v, spread.get(n)) for n, v in rows.items()}))
    print(f'\n± half the range between seeds. '
          f'Differences of {first} to the others, 95% interval, * where it does not contain 0\n')
    others = {n: difference_cells(v, rows[first]) for n, v in rows.items() if n != first}
    print(table(f' {first} beside ', dev, others))


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument('--data', choices=list(LESSONS), default='example')
    p.add_argument('--start', type=Path, default=START)
    p.add_argument('--beside', type=Path, nargs='*', default=[])
    p.add_argument('--contenders', nargs='*', default=CONTENDERS)
    p.add_argument('--lists', type=int)
    p.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    p.add_argument('--mixed_precision', choices=['no', 'bf16'], default='no')
    return p.parse_args()


def main():
    a = arguments()
    make_base(BASE, reranker=False)
    if a.start == START: make_base(START)
    (OUT/a.data).mkdir(parents=True, exist_ok=True)
    sources = dict(example=example, debian=debian, debian_all=partial(debian, everything=True))
    file, dev = sources[a.data]()
    if a.lists: file = thinned(file, a.lists, OUT/f'{a.data}/train_{a.lists}.jsonl')
    rows, spread = untrained(dev, a.start, a.beside), {n: [] for n in a.contenders}
    for n, v in rows.items(): print(n, {k: round(float(np.mean(x)), 3) for k, x in v.items()}, flush=True)
    for seed in a.seeds:
        for n in a.contenders: spread[n].append(run(n, seed, a.data, file, dev, a.start, a.mixed_precision))
    rows |= {n: {k: np.mean([v[k] for v in seeds], axis=0) for k in dev} for n, seeds in spread.items()}
    report(rows, spread, [*a.contenders, 'the start'][0], dev)
    ours = [(n, a.seeds[0]) for n in a.contenders[:2] if n != THEIRS]
    if a.data == 'example' and ours: keep_scores(a.start, ours)
    ndcg = {n: {k: round(float(np.mean(x)), 4) for k, x in v.items()} for n, v in rows.items()}
    per_query = {n: {k: np.round(x, 4).tolist() for k, x in v.items()} for n, v in rows.items()}
    kind = 'quality' if a.contenders else 'start'
    some = f'_{a.lists}' if a.lists else ''
    save(f'{kind}_{a.data}{some}', dict(seeds=a.seeds, ndcg=ndcg, per_query=per_query))


if __name__ == '__main__': main()
