"""What does each loss do to a ranked list, and what does sentence-transformers make of the same data?

    python benchmarks/quality.py [--losses classfication ce ...] [--seeds 0 1 2] [--layers 6]        # an hour and a half on 2 cores; a second call does what is missing

Data: `debian_docs.py` (man pages; Chinese, English, and Chinese questions for English pages). Start: the default base, whose head is first taught by the base's own cosines over the training texts, once, for all.
Then every contender sees the same pairs for one epoch, in batches of 28 pairs (four whole queries for a list-wise loss), so the steps are the same, with the same rate, schedule and seeds; sentence-transformers trains with its
BinaryCrossEntropyLoss. Reported is NDCG@10: a query's value is its mean over the seeds, intervals are paired bootstraps over the queries.
"""
import argparse, contextlib, io, json, os, tempfile, time
from pathlib import Path
import numpy as np, torch
from common import ROOT, machine, save
from debian_docs import build
from rerank_nb.base import cosine_scores, make_base, write_teacher
from rerank_nb.data import read_examples
from rerank_nb.evaluation import evaluate_scores, load_lists, paired_bootstrap
from rerank_nb.mining import BM25, words
from rerank_nb.model import CrossEncoder
from rerank_nb.trainer import TrainConfig, train

OUT, DATA = ROOT/'output/quality', ROOT/'output/debian_docs'
SETS = {'en': 'English', 'zh': 'Chinese', 'zhen': 'Chinese to English'}
LOSSES = ['classfication', 'ce', 'listnet', 'listmle', 'ranknet', 'lambda']
THEIRS = 'sentence-transformers'
MAX_LEN, BATCH, LR, EPOCHS = 160, 28, 5e-5, 1


def lists(): return {k: load_lists(DATA/f'dev_{k}.jsonl') for k in SETS}


def values(score):
    "NDCG@10 of each dev query: `score` is a function from pairs to numbers."
    return {k: evaluate_scores(ds, np.asarray(score([[p.query, p.doc] for p in ds])))['per_query']['ndcg@10'].tolist() for k, ds in lists().items()}


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


def taught(base):
    "The start of all runs: a head that knows what the base's cosine knows."
    out = OUT/f'{base.name}/taught'
    if not (out/'model/config.json').exists():
        out.mkdir(parents=True, exist_ok=True)
        label2id = write_teacher(base, [ex for _, ex in read_examples(DATA/'train.jsonl')], out/'teacher.tsv', others=5)
        train(TrainConfig(base, out/'teacher.tsv', out, loss_type='regression', label2id=json.dumps(label2id), lr=1e-4, epochs=2, max_len=MAX_LEN, save_on_epoch_end=False, overwrite_output_dir=True))
    return out/'model'


def ours(start, loss, seed, out):
    train(TrainConfig(start, DATA/'train.jsonl', out, loss_type=loss, lr=LR, epochs=EPOCHS, batch_size=BATCH, max_len=MAX_LEN, seed=seed, save_on_epoch_end=False, overwrite_output_dir=True))
    return reranker(f'{out}/model')


def theirs(start, seed):
    from datasets import Dataset
    from sentence_transformers import CrossEncoder as Theirs
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
    rows = [(ex.query, d, y) for _, ex in read_examples(DATA/'train.jsonl') for d, y in zip(ex.docs, ex.targets)]
    model = Theirs(str(start), num_labels=1, max_length=MAX_LEN, device='cpu')
    args = CrossEncoderTrainingArguments(output_dir=tempfile.mkdtemp(), per_device_train_batch_size=BATCH, learning_rate=LR, num_train_epochs=EPOCHS, lr_scheduler_type='cosine', warmup_steps=.1, weight_decay=.01, seed=seed,
                                         save_strategy='no', report_to='none', use_cpu=True, disable_tqdm=True)
    CrossEncoderTrainer(model=model, args=args, train_dataset=Dataset.from_dict(dict(zip(('query', 'passage', 'label'), map(list, zip(*rows))))), loss=BinaryCrossEntropyLoss(model)).train()
    return lambda pairs: model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)


def run(name, seed, base, start):
    "One contender with one seed: per-query values, from disk if they are there."
    path = OUT/f'{base.name}/{name}-{seed}.json'
    if not path.exists():
        began = time.time()
        with contextlib.redirect_stdout(io.StringIO()): score = theirs(start, seed) if name == THEIRS else ours(start, name, seed, OUT/f'{base.name}/{name}-{seed}')
        trained = time.time() - began
        path.write_text(json.dumps(dict(seconds=round(trained), values=values(score))))
        print(f'{name}, seed {seed}: {trained:.0f} s, ' + ', '.join(f'{k} {np.mean(v):.3f}' for k, v in json.loads(path.read_text())['values'].items()), flush=True)
    return json.loads(path.read_text())


def cell(a, b):
    mean, lo, hi = paired_bootstrap(a, b)
    return f'{mean:+.3f} ({lo:+.3f} to {hi:+.3f})' + ('' if lo <= 0 <= hi else ' *')


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--losses', nargs='+', default=LOSSES); p.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2]); p.add_argument('--layers', type=int, default=6); p.add_argument('--no_peer', action='store_true')
    a = p.parse_args()
    print(build(DATA), flush=True)
    base = Path(make_base(ROOT/('models/me5-small-zh-en' + (f'-{a.layers}' if a.layers < 12 else '')), n_layers=a.layers))
    start = taught(base)
    torch.manual_seed(0)
    rows = {'BM25': values(bm25), "the base's cosine": values(lambda pairs: cosine_scores(base, pairs)), 'before: a fresh head': values(reranker(base)), 'taught by the cosine': values(reranker(start))}
    spread = {}
    for seed in a.seeds:
        for name in [*a.losses, *([] if a.no_peer else [THEIRS])]: spread.setdefault(name, []).append(run(name, seed, base, start)['values'])
    rows |= {n: {k: np.mean([v[k] for v in all_], axis=0) for k in SETS} for n, all_ in spread.items()}
    print(f"\n{machine()}\nNDCG@10, {len(a.seeds)} seeds, {', '.join(f'{len(v)} {SETS[k]}' for k, v in rows['BM25'].items())} queries\n\n| | {' | '.join(SETS.values())} | all |\n|---|---|---|---|---|")
    whole = {n: np.concatenate([v[k] for k in SETS]) for n, v in rows.items()}
    for n, v in rows.items():
        between = [np.ptp([np.mean(x[k]) for x in spread[n]]) for k in SETS] if n in spread else None
        print(f"| {n} | " + ' | '.join(f'{np.mean(v[k]):.3f}' + (f' ±{between[i]/2:.3f}' if between else '') for i, k in enumerate(SETS)) + f' | {whole[n].mean():.3f} |')
    print(f"\n± half the range between seeds. Differences of {a.losses[0]} to the others, 95% interval, * where it does not contain 0\n\n| classfication beside | {' | '.join(SETS.values())} | all |\n|---|---|---|---|---|")
    for n in rows:
        if n != a.losses[0]: print(f'| {n} | ' + ' | '.join(cell(rows[n][k], rows[a.losses[0]][k]) for k in SETS) + f' | {cell(whole[n], whole[a.losses[0]])} |')
    save('quality', dict(layers=a.layers, seeds=a.seeds, ndcg={n: {k: round(float(np.mean(v[k])), 4) for k in SETS} for n, v in rows.items()}))


if __name__ == '__main__': main()
