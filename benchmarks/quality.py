"""What does each loss do to a ranked list, and what does sentence-transformers make of the same data?

    python benchmarks/quality.py [--data example] [--contenders classfication ce ...] [--seeds 0 1 2]        # half an hour on 2 cores; a second call does what is missing
    python benchmarks/quality.py --data debian --contenders classfication ce listnet ranknet lambda sentence-transformers     # an hour: man pages, see debian_docs.py
    python benchmarks/quality.py --data debian_all --contenders ce --seeds 0                                 # up to 200 queries of each kind: man pages, package descriptions, handbooks and FAQs; an hour, the taught start included

Start: the default base with all twelve layers, whose head is first taught by the base's own cosines over the training texts, once, for all (no label is read). Then every contender sees all pairs of the training file once or twice (`LESSONS`), in batches of
30 pairs (whole queries for a list-wise loss), so the steps are the same, with the same rate, schedule and seeds; sentence-transformers trains with its BinaryCrossEntropyLoss. Reported is NDCG@10: a query's value is its mean over the seeds, intervals
are paired bootstraps over the queries.
"""
import argparse, contextlib, io, json, re, tempfile, time
from functools import partial
from pathlib import Path
import numpy as np, torch
from common import ROOT, machine, save
from debian_docs import build
from example import DATA as EXAMPLE, SETTINGS, teach
from rerank_nb.base import cosine_scores, make_base, write_teacher
from rerank_nb.files import checksum
from rerank_nb.data import read_examples
from rerank_nb.evaluation import evaluate_scores, load_lists, paired_bootstrap
from rerank_nb.mining import BM25, words
from rerank_nb.model import CrossEncoder
from rerank_nb.trainer import TrainConfig, train

THEIRS = 'sentence-transformers'
CONTENDERS = ['classfication', 'ce', 'listnet', 'listmle', 'ranknet', 'lambda', THEIRS]
MAX_LEN, BATCH = 160, 30
LESSONS = dict(example=(3e-5, 2), debian=(5e-5, 1), debian_all=(5e-5, 2))      # learning rate, epochs
OUT = ROOT/'output/quality'
BASE = ROOT/'models/me5-small-zh-en'


def debian(everything=False):
    "(training file, {name: dev lists}, folder of the taught start); with everything there are up to 200 training lists of each kind, and dev lists of books and packages too, but the start is the same."
    data, out = ROOT/'output/debian_docs', OUT/'debian'
    print(build(data), flush=True)
    if not (out/'taught/model/config.json').exists():
        (out/'taught').mkdir(parents=True, exist_ok=True)
        label2id = write_teacher(BASE, [ex for _, ex in read_examples(data/'train.jsonl')], out/'teacher.tsv', others=5)
        train(TrainConfig(BASE, out/'teacher.tsv', out/'taught', loss_type='regression', label2id=json.dumps(label2id), lr=8e-5, epochs=2, max_len=MAX_LEN, save_on_epoch_end=False, overwrite_output_dir=True))
    names = dict(en='English', zh='Chinese', zhen='Chinese to English')
    if everything:
        data = ROOT/'output/debian_docs_all'
        print(build(data, everything=True, train_queries=200, dev_queries=40), flush=True)
        names |= {f'{kind}_{k}': f'{v}, {kind}s' for kind in ('book', 'package') for k, v in names.items()}
        (OUT/'debian_all').mkdir(exist_ok=True)
    return data/'train.jsonl', {name: load_lists(data/f'dev_{k}.jsonl') for k, name in names.items()}, out/'taught/model'


def example():
    "The same for example_data, which shares its taught start with `make train`."
    start, out = ROOT/'output/example/teacher/model', OUT/'example'
    out.mkdir(parents=True, exist_ok=True)
    if not (start/'config.json').exists(): teach(str(BASE), str(ROOT/'output/example'), SETTINGS['teacher'])
    lines = (EXAMPLE/'binary_dev.jsonl').read_text(encoding='utf-8').splitlines(True)
    for name, chinese in (('zh', True), ('en', False)): (out/f'dev_{name}.jsonl').write_text(''.join(l for l in lines if bool(re.search('[\u4e00-\u9fff]', json.loads(l)['query'])) == chinese), encoding='utf-8')
    return EXAMPLE/'binary_train.jsonl', {'English': load_lists(out/'dev_en.jsonl'), 'Chinese': load_lists(out/'dev_zh.jsonl')}, start


def values(score, dev):
    "NDCG@10 of each dev query: `score` is a function from pairs to numbers."
    return {k: evaluate_scores(np.asarray(score([[p.query, p.doc] for p in ds])), ds)['per_query']['ndcg@10'].tolist() for k, ds in dev.items()}


def bm25(pairs):
    docs = list(dict.fromkeys(d for _, d in pairs))
    place, index, out = {d: i for i, d in enumerate(docs)}, BM25(docs), {}
    for q in dict.fromkeys(q for q, _ in pairs):
        known = [w for w in words(q) if w in index.index.vocab_dict]
        out[q] = index.index.get_scores(known) if known else np.zeros(len(docs))
    return [out[q][place[d]] for q, d in pairs]


def reranker(folder):
    m = CrossEncoder.from_pretrained(folder); m.new_head = False
    return lambda pairs: m.compute_score(pairs, max_len=MAX_LEN, progress=False)


def ours(start, file, loss, seed, out, lr, epochs):
    train(TrainConfig(start, file, out, loss_type=loss, lr=lr, epochs=epochs, batch_size=BATCH, max_len=MAX_LEN, seed=seed, save_on_epoch_end=False, overwrite_output_dir=True))
    return reranker(f'{out}/model')


def theirs(start, file, seed, lr, epochs):
    from datasets import Dataset
    from sentence_transformers import CrossEncoder as Theirs
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
    rows = [(ex.query, d, y) for _, ex in read_examples(file) for d, y in zip(ex.docs, ex.targets)]
    model = Theirs(str(start), num_labels=1, max_length=MAX_LEN, device='cpu')
    args = CrossEncoderTrainingArguments(output_dir=tempfile.mkdtemp(), per_device_train_batch_size=BATCH, learning_rate=lr, num_train_epochs=epochs, lr_scheduler_type='cosine', warmup_steps=.1, weight_decay=.01, seed=seed,
                                         save_strategy='no', report_to='none', use_cpu=True, disable_tqdm=True)
    CrossEncoderTrainer(model=model, args=args, train_dataset=Dataset.from_dict(dict(zip(('query', 'passage', 'label'), map(list, zip(*rows))))), loss=BinaryCrossEntropyLoss(model)).train()
    return lambda pairs: model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)


def run(name, seed, data, file, dev, start):
    "One contender with one seed: per-query values, from disk if they are there."
    lr, epochs = LESSONS[data]
    path = OUT/f'{data}/{name}-{seed}-{checksum(file):08x}-{lr:g}-{epochs}.json'      # other data or another lesson is another run
    if not path.exists():
        began = time.time()
        with contextlib.redirect_stdout(io.StringIO()): score = theirs(start, file, seed, lr, epochs) if name == THEIRS else ours(start, file, name, seed, OUT/f'{data}/{name}-{seed}', lr, epochs)
        trained = time.time() - began
        path.write_text(json.dumps(dict(seconds=round(trained), values=values(score, dev))))
        print(f'{name}, seed {seed}: {trained:.0f} s, ' + ', '.join(f'{k} {np.mean(v):.3f}' for k, v in json.loads(path.read_text())['values'].items()), flush=True)
    return json.loads(path.read_text())


def keep_scores(start, runs):
    "Every dev pair's score, in the order of the file, for the tutorial on errors."
    pairs = [[p.query, p.doc] for p in load_lists(EXAMPLE/'binary_dev.jsonl')]
    scores = {"the base's cosine": cosine_scores(BASE, pairs), 'taught by the cosine': reranker(start)(pairs), **{n: reranker(OUT/f'example/{n}-{seed}/model')(pairs) for n, seed in runs}}
    save('example_dev_scores', dict(scores={n: [round(float(x), 4) for x in s] for n, s in scores.items()}))


def cell(a, b):
    mean, lo, hi = paired_bootstrap(a, b)
    return f'{mean:+.3f} ({lo:+.3f} to {hi:+.3f})' + ('' if lo <= 0 <= hi else ' *')


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--data', choices=list(LESSONS), default='example'); p.add_argument('--contenders', nargs='+', default=CONTENDERS); p.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    a = p.parse_args()
    make_base(BASE)
    file, dev, start = dict(example=example, debian=debian, debian_all=partial(debian, everything=True))[a.data]()
    torch.manual_seed(42)
    rows = {'BM25': values(bm25, dev), "the base's cosine": values(lambda pairs: cosine_scores(BASE, pairs), dev), 'before: a fresh head': values(reranker(BASE), dev), 'taught by the cosine': values(reranker(start), dev)}
    for n, v in rows.items(): print(n, {k: round(float(np.mean(x)), 3) for k, x in v.items()}, flush=True)
    spread = {}
    for seed in a.seeds:
        for name in a.contenders: spread.setdefault(name, []).append(run(name, seed, a.data, file, dev, start)['values'])
    rows |= {n: {k: np.mean([v[k] for v in all_], axis=0) for k in dev} for n, all_ in spread.items()}
    print(f"\n{machine()}\nNDCG@10, {len(a.seeds)} seeds, {', '.join(f'{len(v)} {k}' for k, v in rows['BM25'].items())} queries\n\n| | {' | '.join(dev)} | all |\n|---|{'---|' * (len(dev) + 1)}")
    whole = {n: np.concatenate([v[k] for k in dev]) for n, v in rows.items()}
    for n, v in rows.items():
        between = [np.ptp([np.mean(x[k]) for x in spread[n]]) for k in dev] if n in spread else None
        print(f"| {n} | " + ' | '.join(f'{np.mean(v[k]):.3f}' + (f' ±{between[i]/2:.3f}' if between else '') for i, k in enumerate(dev)) + f' | {whole[n].mean():.3f} |')
    print(f"\n± half the range between seeds. Differences of {a.contenders[0]} to the others, 95% interval, * where it does not contain 0\n\n| {a.contenders[0]} beside | {' | '.join(dev)} | all |\n|---|{'---|' * (len(dev) + 1)}")
    for n in rows:
        if n != a.contenders[0]: print(f'| {n} | ' + ' | '.join(cell(rows[n][k], rows[a.contenders[0]][k]) for k in dev) + f' | {cell(whole[n], whole[a.contenders[0]])} |')
    if a.data == 'example': keep_scores(start, [(n, a.seeds[0]) for n in a.contenders[:2] if n != THEIRS])
    save(f'quality_{a.data}', dict(seeds=a.seeds, ndcg={n: {k: round(float(np.mean(v[k])), 4) for k in dev} for n, v in rows.items()}, per_query={n: {k: np.round(v[k], 4).tolist() for k in dev} for n, v in rows.items()}))


if __name__ == '__main__': main()
