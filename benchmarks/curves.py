"""How a fresh head learns, and how it does not: the 12-layer base trained four ways, six minutes on 2 cores.

    python benchmarks/curves.py          # writes benchmarks/results/curves.json

The first tutorial (nbs/tutorials/01_quickstart.ipynb) draws that file.
A dense signal (the base's own cosines, no label is read) at a modest and at a bold learning rate; the labels of
example_data at once, and after the dense signal.
"""
import argparse, json, tempfile
from pathlib import Path
from rerank_nb.base import write_teacher
from rerank_nb.data import read_examples
from rerank_nb.trainer import TrainConfig, train

ROOT = Path(__file__).resolve().parent.parent
DATA, BASE = ROOT/'example_data', ROOT/'models/me5-small-zh-en'


def run(model, data, out, **kw):
    "Train; the curve of the loss."
    history = train(TrainConfig(model, data, out, max_len=128, save_on_epoch_end=False, logging_steps=4, **kw))
    return [dict(step=r['step'], loss=r['loss']) for r in history if 'loss' in r]


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    files = (('binary_train.jsonl', 'binary'), ('graded_train.tsv', 'graded'))
    texts = [ex for f, kind in files for _, ex in read_examples(DATA/f, kind)]
    out = Path(tempfile.mkdtemp())
    label2id = json.dumps(write_teacher(BASE, texts, out/'teacher.tsv'))

    def dense(name, lr):
        return run(BASE, out/'teacher.tsv', out/name, loss_type='regression', label2id=label2id, epochs=1, lr=lr)

    def thin(name, model, lr):
        labels = dict(epochs=5, batch_size=16, negatives_per_query=2)
        return run(model, DATA/'binary_train.jsonl', out/name, lr=lr, **labels)

    curves = {
        'dense': {
            'cosine teacher, lr 7e-5': dense('t1', 7e-5),
            'cosine teacher, lr 2e-4': dense('t2', 2e-4)},
        'thin': {
            'labels at once, lr 2e-4': thin('b1', BASE, 2e-4),
            'labels after the teacher, lr 5e-5': thin('b2', out/'t1/model', 5e-5)}}
    (ROOT/'benchmarks/results').mkdir(exist_ok=True)
    (ROOT/'benchmarks/results/curves.json').write_text(json.dumps(curves, indent=1))


if __name__ == '__main__': main()
