"""What do processes cost?

    python benchmarks/scaling.py [--rounds 3]

Pairs a second and core of `rerank_nb.trainer.train`: one process, two under DDP, two under FSDP2, each process with one
thread, 16 pairs a process and batch. Gloo on one machine's loopback; GPUs with NCCL are another matter, and were not at
hand.
"""
import argparse, json, os, subprocess, sys, tempfile
from pathlib import Path
from common import MODEL, ROOT, bars, machine, make_pairs, median, save, spread, write_jsonl

KINDS = {
    'one process': (1, []),
    'two processes, DDP': (2, ['--multi_gpu']),
    'two processes, FSDP2': (2, ['--config_file', 'config/default_fsdp.yaml'])}
ENV = {'ACCELERATE_USE_CPU': '1', 'OMP_NUM_THREADS': '1', 'GLOO_SOCKET_IFNAME': 'lo'}


def words(**flags): return [word for k, v in flags.items() for word in (f'--{k}', str(v))]


def command(kind, data, out):
    n, engine = KINDS[kind]
    many = words(num_processes=n, num_machines=1, mixed_precision='no', dynamo_backend='no')
    launch = ['-m', 'accelerate.commands.launch', *engine, *many] if n > 1 else []
    run = words(model_name_or_path=MODEL, dataset=data, output_dir=out, batch_size=32 // n, epochs=1, logging_steps=4,
                save_on_epoch_end=0, mixed_precision='no')
    return [sys.executable, *launch, 'rerank_nb/train_reranker.py', *run]


def run(kind, data):
    "Pairs a second and process."
    out = tempfile.mkdtemp() + '/run'
    p = subprocess.run(command(kind, data, out), cwd=ROOT, capture_output=True, text=True, env={**os.environ, **ENV})
    assert p.returncode == 0, p.stderr[-3000:]
    if 'FSDP' in kind: assert 'sharded over 2 processes' in p.stdout
    rates = [json.loads(l)['pairs_per_second'] for l in open(f'{out}/metrics.jsonl')]
    return median(rates[1:]) / KINDS[kind][0]   # the first record holds the warm-up


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--rounds', type=int, default=3)
    a = p.parse_args()
    data = write_jsonl(Path(tempfile.mkdtemp())/'t.jsonl', make_pairs(512, mean=72))
    rates = {k: [] for k in KINDS}
    for r in range(a.rounds):
        for k in KINDS: rates[k].append(run(k, data))
        print(f'round {r + 1}:', {k: round(v[-1], 2) for k, v in rates.items()}, flush=True)
    print(f'\n{machine()}\n\n| | pairs a second and core (median, spread) | beside one process |\n|---|---|---|')
    for k, v in rates.items():
        beside = median([x / y for x, y in zip(v, rates['one process'])])
        print(f'| {k} | {median(v):.2f} ({spread(v)}) | {beside:.2f} |')
    rows = [(f'rerank_nb, {k}', v) for k, v in rates.items()]
    figure = bars(rows, 'pairs a second and core', 'one thread a process')
    save('scaling', dict(pairs_per_second_and_core=rates), figure)


if __name__ == '__main__': main()
