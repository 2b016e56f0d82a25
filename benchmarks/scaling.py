"""What do processes cost?

    python benchmarks/scaling.py [--rounds 3]

Pairs a second and core of `rerank_nb.trainer.train`: one process, two under DDP, two under FSDP2, each process with one thread, 16 pairs a process and batch. Gloo on one machine's loopback;
GPUs with NCCL are another matter, and were not at hand.
"""
import argparse, json, os, subprocess, sys, tempfile
from pathlib import Path
from common import MODEL, ROOT, bars, machine, make_pairs, median, save, spread, write_jsonl

KINDS = {'one process': (1, []), 'two processes, DDP': (2, ['--multi_gpu']), 'two processes, FSDP2': (2, ['--config_file', 'config/default_fsdp.yaml'])}


def run(kind, data):
    n, words = KINDS[kind]
    out = tempfile.mkdtemp()
    start = [sys.executable, '-m', 'accelerate.commands.launch', *words, '--num_processes', str(n), '--num_machines', '1', '--mixed_precision', 'no', '--dynamo_backend', 'no'] if n > 1 else [sys.executable]
    p = subprocess.run([*start, 'rerank_nb/train_reranker.py', '--model_name_or_path', MODEL, '--dataset', data, '--output_dir', out + '/run', '--batch_size', str(32 // n), '--epochs', '1', '--logging_steps', '4',
                        '--save_on_epoch_end', '0', '--mixed_precision', 'no'], cwd=ROOT, capture_output=True, text=True, env={**os.environ, 'ACCELERATE_USE_CPU': '1', 'OMP_NUM_THREADS': '1', 'GLOO_SOCKET_IFNAME': 'lo'})
    assert p.returncode == 0, p.stderr[-3000:]
    if 'FSDP' in kind: assert 'sharded over 2 processes' in p.stdout
    return median([json.loads(l)['pairs_per_second'] for l in open(f'{out}/run/metrics.jsonl')][1:]) / n   # the first record holds the warm-up


def main():
    p = argparse.ArgumentParser(); p.add_argument('--rounds', type=int, default=3)
    a = p.parse_args()
    data = write_jsonl(Path(tempfile.mkdtemp())/'t.jsonl', make_pairs(384, mean=72))
    rates = {k: [] for k in KINDS}
    for r in range(a.rounds):
        for k in KINDS: rates[k].append(run(k, data))
        print(f'round {r + 1}:', {k: round(v[-1], 2) for k, v in rates.items()}, flush=True)
    print(f'\n{machine()}\n\n| | pairs a second and core (median, spread) | beside one process |\n|---|---|---|')
    for k, v in rates.items(): print(f"| {k} | {median(v):.2f} ({spread(v)}) | {median([x / y for x, y in zip(v, rates['one process'])]):.2f} |")
    save('scaling', dict(pairs_per_second_and_core=rates), bars([(f'rerank_nb, {k}', v) for k, v in rates.items()], 'pairs a second and core', 'one thread a process'))


if __name__ == '__main__': main()
