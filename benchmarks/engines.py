"""Which engine scores pairs fastest on this machine's processor, and which gives the same order?

    python benchmarks/engines.py [--rounds 3] [--pairs 128]

A trained model (models/reranker-zh-en, the start of `make train`) on the dev lists of example_data, sorted by length,
in batches of 1, 4, 8 and 32 pairs: each engine over our own class, sentence-transformers by its `predict`. Each
contender runs in a process of its own, one after the other in each round. Quality is measured once, on all pairs of
the file: Kendall's tau and equal first places beside float32, and NDCG@10. Ten minutes on two idle cores.
torchao is not among the tests' packages: `pip install torchao` before, else its two rows are left out.
"""
import argparse, itertools
from importlib.util import find_spec
import numpy as np
from common import ROOT, Gate, Worker, bars, machine, median, save, spread

MODEL, DEV, MAX_LEN = ROOT/'models/reranker-zh-en', ROOT/'example_data/binary_dev.jsonl', 512
BATCHES = [1, 4, 8, 32]
OURS = 'rerank_nb float32'
HEAD = '| | batches of 1 | 4 | 8 | 32 | tau | same first | NDCG@10 |\n|---|---|---|---|---|---|---|---|'


# ---------- contenders: a function from (pairs, batch size) to logits ----------

def over_ours(reranker, **kw):
    def score(pairs, batch):
        return reranker.compute_score(pairs, batch_size=batch, max_len=MAX_LEN, progress=False, **kw).numpy()
    return score


def torch_packed(mixed_precision='no'):
    from rerank_nb.model import CrossEncoder
    return over_ours(CrossEncoder.from_pretrained(MODEL), mixed_precision=mixed_precision)


def torch_dynamic():
    "torch's own int8: one scale for all activations of a product."
    import torch
    from rerank_nb.model import CrossEncoder
    reranker = CrossEncoder.from_pretrained(MODEL)
    layers = reranker.model.base_model.encoder
    torch.ao.quantization.quantize_dynamic(layers, {torch.nn.Linear}, dtype=torch.qint8, inplace=True)
    return over_ours(reranker)


def torchao(settings):
    "torchao's products: a scale for each output of the weights, and for each token where activations are rounded."
    from torchao import quantization
    from rerank_nb.model import CrossEncoder
    reranker = CrossEncoder.from_pretrained(MODEL)
    quantization.quantize_(reranker.model.base_model.encoder, getattr(quantization, settings)())
    return over_ours(reranker)


def exported(to, int8=False):
    "The folder of an engine, written once."
    from rerank_nb.export import export_model
    from rerank_nb.runtimes import RUNTIMES
    out = ROOT/'output/engines'/f"{to}{'-int8' * int8}"
    if not (out/RUNTIMES[to].file).exists():
        export_model(MODEL, to, int8=int8, output_dir=str(out), accept_loss=True)
    return out


def engine(to, int8=False):
    from rerank_nb.model import CrossEncoder
    return over_ours(CrossEncoder.from_pretrained(exported(to, int8), engine=to))


def onnx_dynamic():
    "ONNX Runtime's usual int8: one scale for all activations of a product, one for each output of the weights."
    import shutil
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from rerank_nb.model import CrossEncoder
    plain, out = exported('onnx'), ROOT/'output/engines/onnx-dynamic'
    if not (out/'onnx/model.onnx').exists():
        shutil.copytree(plain, out, dirs_exist_ok=True)
        quantize_dynamic(plain/'onnx/model.onnx', out/'onnx/model.onnx', per_channel=True, weight_type=QuantType.QInt8)
    return over_ours(CrossEncoder.from_pretrained(out, engine='onnx'))


def sentence_transformers():
    import torch
    from sentence_transformers import CrossEncoder
    model = CrossEncoder(str(MODEL), max_length=MAX_LEN, device='cpu')
    how = dict(activation_fn=torch.nn.Identity(), show_progress_bar=False)
    return lambda pairs, batch: model.predict(pairs, batch_size=batch, **how)


CONTENDERS = {
    OURS: torch_packed, 'rerank_nb bfloat16': lambda: torch_packed('bf16'),
    'rerank_nb over ONNX Runtime': lambda: engine('onnx'),
    'rerank_nb over ONNX Runtime, int8': lambda: engine('onnx', True),
    'rerank_nb over OpenVINO': lambda: engine('openvino'),
    'rerank_nb over OpenVINO, int8': lambda: engine('openvino', True),
    'torch, dynamic int8': torch_dynamic, 'ONNX Runtime, dynamic int8': onnx_dynamic,
    'torchao, int8': lambda: torchao('Int8DynamicActivationInt8WeightConfig'),
    'torchao, int8 weights': lambda: torchao('Int8WeightOnlyConfig'),
    'sentence-transformers': sentence_transformers}


# ---------- in turn ----------

def lists(): # From the dev file, labels included
    from rerank_nb.evaluation import load_lists
    return load_lists(str(DEV))


def serve(name, n):
    "In a worker: 'go K' scores the first n pairs in batches of BATCHES[K - 1]; the first answer has all logits."
    gate, score, pairs = Gate(), CONTENDERS[name](), [*lists().texts()]
    logits = [float(x) for x in score(pairs, 32)]
    score(pairs[:n], 1)
    for turn in itertools.count():
        gate.step(logits=logits if turn == 0 else None)
        score(pairs[:n], BATCHES[gate.left - 1])
        gate.left = 1


def quality(workers):
    "Of each contender beside float32."
    from rerank_nb.evaluation import evaluate_scores
    from rerank_nb.export import agreement
    ds = lists()
    wanted = np.array(workers[0].first['logits'])
    found = {w.name: np.array(w.first['logits']) for w in workers}
    return {k: agreement(wanted, v, ds.pair_groups()) | {'ndcg@10': float(evaluate_scores(v, ds)['ndcg@10'])}
            for k, v in found.items()}


def turns(workers, rounds, n):
    "{contender: {batch: pairs a second, a value a round}}"
    rates = {w.name: {b: [] for b in BATCHES} for w in workers}
    for r in range(rounds):
        for i, b in enumerate(BATCHES, 1):
            for w in workers: rates[w.name][b].append(n / w.go(i)['seconds'])
        print(f'round {r + 1}:', {k: round(v[32][-1], 1) for k, v in rates.items()}, flush=True)
    return rates


def beside(rates, name, batch):
    "Ratio to float32 of ours, median over the rounds."
    return median([a / b for a, b in zip(rates[name][batch], rates[OURS][batch])])


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--worker', nargs='+')
    p.add_argument('--rounds', type=int, default=3)
    p.add_argument('--pairs', type=int, default=128)
    p.add_argument('--contenders', nargs='+', choices=CONTENDERS)
    a = p.parse_args()
    if a.worker: return serve(a.worker[0], int(a.worker[1]))
    absent = [n for n in CONTENDERS if n.startswith('torchao') and not find_spec('torchao')]
    if absent and not a.contenders: print('left out, torchao is not installed:', *absent, sep='\n    ')
    wanted = a.contenders or [n for n in CONTENDERS if n not in absent]
    workers = [Worker(__file__, n, a.pairs) for n in dict.fromkeys([OURS, *wanted])]
    good, rates = quality(workers), turns(workers, a.rounds, a.pairs)
    for w in workers: w.end()
    base = ', '.join(f'{b}: {median(rates[OURS][b]):.1f} ({spread(rates[OURS][b])})' for b in BATCHES)
    print(f'\n{machine()}\n{OURS}, pairs a second in batches of {base}\n\n{HEAD}')
    for name, q in good.items():
        ratios = ' | '.join(f'{beside(rates, name, b):.2f}' for b in BATCHES)
        print(f"| {name} | {ratios} | {q['tau']:.3f} | {q['first']:.2f} | {q['ndcg@10']:.4f} |")
    rows = [(name, [beside(rates, name, b) for b in BATCHES]) for name in rates]
    save('engines', dict(pairs=a.pairs, pairs_per_second=rates, quality=good),
         bars(rows, f'pairs a second beside {OURS}: median and range of the batch sizes', 'engines on a CPU'))


if __name__ == '__main__': main()
