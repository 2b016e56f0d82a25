"""Does a small reranker learn more from a large one's scores than from the labels? And what does it save?

    python benchmarks/distill.py        # about ten minutes on 2 cores; the teacher of quality.py is used if it is there

The teacher has twelve layers: the taught start of `make train`, trained on the labels with `ce`. The pupil has three of the base's layers and a fresh head. It learns from the labels, from the teacher's scores of the same documents, or from its
scores of many more: each training query with 40 documents of other queries, which nobody has labelled. All pupils see about the same number of pairs. Reported: NDCG@10 on the dev queries (mean of three seeds), how well the order inside a
list agrees with the teacher's, and scored pairs per second of both models, in turns.
"""
import json, time
import numpy as np, torch
from common import machine, save
from quality import BASE, MAX_LEN, OUT, ROOT, example, ours, reranker, values
from rerank_nb.base import make_base
from rerank_nb.data import read_examples
from rerank_nb.evaluation import load_lists, paired_bootstrap
from rerank_nb.model import CrossEncoder
from rerank_nb.scoring import score_dataset
from rerank_nb.trainer import TrainConfig, train

LAYERS, SEEDS, PAIRS, OTHERS = 3, (0, 1, 2), 8_000, 40


def wide(file, out):
    "Each query of the file with its documents and `OTHERS` of other queries."
    lines = [ex for _, ex in read_examples(file)]
    docs, rng = list(dict.fromkeys(d for ex in lines for d in ex.docs)), np.random.default_rng(0)
    with open(out, 'w', encoding='utf-8') as f:
        for ex in lines:
            others = [docs[i] for i in rng.permutation(len(docs)) if docs[i] not in ex.docs][:OTHERS]
            f.write(json.dumps(dict(query=ex.query, pos=ex.docs[:ex.n_pos], neg=ex.docs[ex.n_pos:] + others), ensure_ascii=False) + '\n')


def agreement(scores, teacher, groups):
    "Mean over the lists of the correlation with the teacher's logits."
    return float(np.mean([np.corrcoef(scores[groups == g], teacher[groups == g])[0, 1] for g in np.unique(groups)]))


def main():
    make_base(BASE)
    file, dev, start = example()
    teacher = OUT/'example/ce-0/model'
    if not (teacher/'config.json').exists(): ours(start, file, 'ce', 0, OUT/'example/ce-0')
    pupil, out = make_base(ROOT/f'models/me5-small-zh-en-{LAYERS}', n_layers=LAYERS), OUT/'distill'
    out.mkdir(parents=True, exist_ok=True)
    wide(file, out/'wide.jsonl')
    for name, source in (('labelled', file), ('wide', out/'wide.jsonl')):
        (out/f'{name}_scored.jsonl').unlink(missing_ok=True)
        score_dataset(str(teacher), source, out/f'{name}_scored.jsonl', max_len=MAX_LEN)
    lessons = {'the labels, classfication': (file, 'classfication'), 'the labels, ce': (file, 'ce'), "the teacher's scores of the same": (out/'labelled_scored.jsonl', 'margin_mse'), "the teacher's scores of many more": (out/'wide_scored.jsonl', 'margin_mse')}
    whole = load_lists(ROOT/'example_data/binary_dev.jsonl')
    pairs, groups = [[p.query, p.doc] for p in whole], whole.pair_groups()
    of_teacher = reranker(teacher)(pairs).numpy()
    rows = {'the teacher, 12 layers': (values(reranker(teacher), dev), 1.)}
    for name, (data, loss) in lessons.items():
        n = sum(len(ex.docs) for _, ex in read_examples(data))
        found, agree, spent = [], [], 0
        for seed in SEEDS:
            began = time.time()
            train(TrainConfig(pupil, data, out/'pupil', loss_type=loss, lr=1e-4, epochs=max(1, round(PAIRS/n)), batch_size=48, group_size=24 if loss == 'margin_mse' and n > 2000 else None, max_len=MAX_LEN, seed=seed, save_on_epoch_end=False, overwrite_output_dir=True, logging_steps=1000))
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
    base_line = rows['the labels, classfication'][0]
    print(f"\n{machine()}\n\n| the pupil learns from | {' | '.join(dev)} | all | beside the labels, classfication | agrees with the teacher |\n|---|{'---|' * (len(dev) + 3)}")
    for n, (v, r) in rows.items():
        mean, lo, hi = paired_bootstrap(np.concatenate([base_line[k] for k in dev]), np.concatenate([v[k] for k in dev]))
        print(f"| {n} | " + ' | '.join(f'{np.mean(v[k]):.3f}' for k in dev) + f" | {np.mean(np.concatenate([v[k] for k in dev])):.3f} | {mean:+.3f} ({lo:+.3f} to {hi:+.3f}) | {r:.2f} |")
    print(f"\nscoring: teacher {rates['teacher']:.0f} pairs/s, pupil {rates['pupil']:.0f}, {rates['pupil']/rates['teacher']:.1f} times")
    save('distill', dict(layers=[12, LAYERS], seeds=len(SEEDS), rows={n: dict(ndcg={k: round(float(np.mean(v[k])), 4) for k in v}, agrees=round(r, 3)) for n, (v, r) in rows.items()}, pairs_per_second={k: round(v, 1) for k, v in rates.items()}))


if __name__ == '__main__': main()
