"""How a fresh head learns, and how it does not: the 12-layer base trained four ways, six minutes on 2 cores.

    python benchmarks/curves.py          # writes benchmarks/results/curves.json, which nbs/tutorials/01_quickstart.ipynb draws

A dense signal (the base's own cosines, no label is read) at a modest and at a bold learning rate; the labels of example_data at once, and after the dense signal.
"""
import json, tempfile
from pathlib import Path
from rerank_nb.base import write_teacher
from rerank_nb.data import read_examples
from rerank_nb.trainer import TrainConfig, train

ROOT = Path(__file__).resolve().parent.parent
DATA, BASE = ROOT/'example_data', ROOT/'models/me5-small-zh-en'


def main():
    texts = [ex for f, kind in (('binary_train.jsonl', 'binary'), ('graded_train.tsv', 'graded')) for _, ex in read_examples(DATA/f, kind)]
    out = Path(tempfile.mkdtemp())
    label2id = json.dumps(write_teacher(BASE, texts, out/'teacher.tsv'))

    def run(name, model, **kw):
        history = train(TrainConfig(model, kw.pop('data'), out/name, max_len=128, save_on_epoch_end=False, logging_steps=4, **kw))
        return [dict(step=r['step'], loss=r['loss']) for r in history if 'loss' in r]

    dense = dict(data=out/'teacher.tsv', loss_type='regression', label2id=label2id, epochs=1)
    thin = dict(data=DATA/'binary_train.jsonl', epochs=5, batch_size=16, negatives_per_query=2)
    curves = {'dense': {'cosine teacher, lr 7e-5': run('t1', BASE, lr=7e-5, **dense), 'cosine teacher, lr 2e-4': run('t2', BASE, lr=2e-4, **dense)},
              'thin': {'labels at once, lr 2e-4': run('b1', BASE, lr=2e-4, **thin), 'labels after the teacher, lr 5e-5': run('b2', out/'t1/model', lr=5e-5, **thin)}}
    (ROOT/'benchmarks/results').mkdir(exist_ok=True)
    (ROOT/'benchmarks/results/curves.json').write_text(json.dumps(curves, indent=1))


if __name__ == '__main__': main()
