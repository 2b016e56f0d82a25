"""Does a smaller reranker learn more from a large one's scores than from the labels? And what does it save?

    python benchmarks/distill.py        # about ten minutes on 2 cores; the teacher of quality.py is used if it is there

The teacher has twelve layers: the taught start of `make train`, trained on the labels with `ce`. The pupil begins with six of the teacher's layers and its head. It learns from the labels, from the teacher's scores of the
same documents, or from its scores of many more: the queries of both training files, each with 40 documents of other queries, whose labels nobody reads. Reported: NDCG@10 on the dev queries (mean of three seeds), how well the order
inside a list agrees with the teacher's, and scored pairs per second of both models, in turns.
"""
import json, time
import numpy as np, torch
from common import machine, save
from quality import BASE, EXAMPLE, LESSONS, MAX_LEN, OUT, ROOT, example, ours, reranker, values
from rerank_nb.base import make_base
from rerank_nb.data import read_examples
from rerank_nb.evaluation import load_lists, paired_bootstrap
from rerank_nb.model import CrossEncoder
from rerank_nb.scoring import score_dataset
from rerank_nb.trainer import TrainConfig, train

LAYERS, SEEDS, OTHERS = 6, (0, 1, 2), 40


def wide(out):
    "Each query of both training files with its documents and `OTHERS` of other queries, without labels; returns how many pairs."
    own = {}
    for _, ex in read_examples(EXAMPLE/'binary_train.jsonl'): own.setdefault(ex.query, []).extend(ex.docs)
    for p in load_lists(EXAMPLE/'graded_train.tsv'): own.setdefault(p.query, []).append(p.doc)
    docs, rng = list(dict.fromkeys(d for ds in own.values() for d in ds)), np.random.default_rng(0)
    lists = {q: ds + [docs[i] for i in rng.permutation(len(docs)) if docs[i] not in ds][:OTHERS] for q, ds in own.items()}
    out.write_text(''.join(json.dumps(dict(query=q, pos=[], neg=ds), ensure_ascii=False) + '\n' for q, ds in lists.items()), encoding='utf-8')
    return sum(map(len, lists.values()))


def agreement(scores, teacher, groups):
    "Mean over the lists of the correlation with the teacher's logits."
    return float(np.mean([np.corrcoef(scores[groups == g], teacher[groups == g])[0, 1] for g in np.unique(groups)]))


def main():
    make_base(BASE)
    file, dev, start = example()
    teacher = OUT/'example/ce-0/model'
    if not (teacher/'config.json').exists(): ours(start, file, 'ce', 0, OUT/'example/ce-0', *LESSONS['example'])
    out = OUT/'distill'
    out.mkdir(parents=True, exist_ok=True)
    pupil = CrossEncoder.from_pretrained(str(teacher)).keep_layers(LAYERS).save_pretrained(out/'start')
    n = wide(out/'wide.jsonl')
    for name, source in (('labelled', file), ('wide', out/'wide.jsonl')):
        (out/f'{name}_scored.jsonl').unlink(missing_ok=True)
        score_dataset(str(teacher), source, out/f'{name}_scored.jsonl', max_len=MAX_LEN)
    lessons = {'the labels, ce': (file, 'ce', 5), 'the labels, classfication': (file, 'classfication', 5),
               "the teacher's scores of the same": (out/'labelled_scored.jsonl', 'margin_mse', 5), f"the teacher's scores of {n:,} pairs": (out/'wide_scored.jsonl', 'margin_mse', 3)}
    whole = load_lists(ROOT/'example_data/binary_dev.jsonl')
    pairs, groups = [[p.query, p.doc] for p in whole], whole.pair_groups()
    of_teacher = reranker(teacher)(pairs).numpy()
    rows = {f'{name} layers': (values(reranker(m), dev), agreement(reranker(m)(pairs).numpy(), of_teacher, groups)) for name, m in (('the teacher, 12', teacher), (f'nothing: its {LAYERS}', pupil))}
    for name, (data, loss, epochs) in lessons.items():
        found, agree, spent = [], [], 0
        for seed in SEEDS:
            began = time.time()
            train(TrainConfig(pupil, data, out/'pupil', loss_type=loss, lr=1e-4, epochs=epochs, batch_size=48, group_size=None if loss == 'classfication' else 24, max_len=MAX_LEN, seed=seed, save_on_epoch_end=False, overwrite_output_dir=True, logging_steps=1000))
            spent += time.time() - began
            score = reranker(out/'pupil/model')
            found.append(values(score, dev)); agree.append(agreement(score(pairs).numpy(), of_teacher, groups))
        rows[name] = {k: np.mean([f[k] for f in found], 0) for k in dev}, float(np.mean(agree))
        print(f'{name}: {spent/len(SEEDS):.0f} s a run', flush=True)
    models = {'teacher': CrossEncoder.from_pretrained(str(teacher)), 'pupil': CrossEncoder.from_pretrained(str(out/'pupil/model'))}
    rates = {k: [] for k in models}
    for _ in range(5):
        for k, m in models.items():
            began = time.perf_counter(); m.compute_score(pairs, max_len=MAX_LEN, progress=False); rates[k].append(len(pairs)/(time.perf_counter() - began))
    rates = {k: float(np.median(v)) for k, v in rates.items()}
    base_line = rows['the labels, ce'][0]
    print(f"\n{machine()}\n\n| the pupil learns from | {' | '.join(dev)} | all | beside the labels, ce | agrees with the teacher |\n|---|{'---|' * (len(dev) + 3)}")
    for n, (v, r) in rows.items():
        mean, lo, hi = paired_bootstrap(np.concatenate([base_line[k] for k in dev]), np.concatenate([v[k] for k in dev]))
        print(f"| {n} | " + ' | '.join(f'{np.mean(v[k]):.3f}' for k in dev) + f" | {np.mean(np.concatenate([v[k] for k in dev])):.3f} | {mean:+.3f} ({lo:+.3f} to {hi:+.3f}) | {r:.2f} |")
    print(f"\nscoring: teacher {rates['teacher']:.0f} pairs/s, pupil {rates['pupil']:.0f}, {rates['pupil']/rates['teacher']:.1f} times")
    save('distill', dict(layers=[12, LAYERS], seeds=len(SEEDS), rows={n: dict(ndcg={k: round(float(np.mean(v[k])), 4) for k in v}, agrees=round(r, 3)) for n, (v, r) in rows.items()}, pairs_per_second={k: round(v, 1) for k, v in rates.items()}))


if __name__ == '__main__': main()
