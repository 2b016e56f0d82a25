"""What do processes cost?

    python benchmarks/scaling.py [--rounds 3]

Pairs a second and core of `rerank_nb.trainer.train`: one process with 32 pairs a batch; two runs beside each other that
know nothing of each other, 16 pairs a batch; two processes of one run under DDP and under FSDP2, 16 pairs each, and two
that wait for each other in every step and exchange no gradients: what is left then is no matter of bytes. Each process
has one thread. Gloo on one machine's loopback; GPUs with NCCL are another matter, and were not at hand.
"""
import argparse, json, os, subprocess, sys, tempfile
from pathlib import Path
from common import MODEL, ROOT, bars, machine, make_pairs, median, save, spread, write_jsonl

FSDP = ['--config_file', 'config/default_fsdp.yaml']
KINDS = {   # name -> processes, words for accelerate launch; None: not launched together
    'one process': (1, None),
    'two runs side by side': (2, None),
    'two processes that wait and exchange nothing': (2, ['--multi_gpu']),
    'two processes, DDP': (2, ['--multi_gpu']),
    'two processes, FSDP2': (2, FSDP),
    'two processes, FSDP2, weights kept': (2, [*FSDP, '--fsdp_reshard_after_forward', 'false'])}
ENV = {'ACCELERATE_USE_CPU': '1', 'OMP_NUM_THREADS': '1', 'GLOO_SOCKET_IFNAME': 'lo'}


def words(**flags): return [word for k, v in flags.items() for word in (f'--{k}', str(v))]


def command(kind, data, out):
    n, engine = KINDS[kind]
    many = words(num_processes=n, num_machines=1, mixed_precision='no', dynamo_backend='no')
    launch = ['-m', 'accelerate.commands.launch', *engine, *many] if engine else []
    run = words(model_name_or_path=MODEL, dataset=data, output_dir=out, batch_size=32 // n, epochs=1, logging_steps=4,
                save_on_epoch_end=0, mixed_precision='no')
    script = ['benchmarks/scaling.py', '--waiting'] if 'wait' in kind else ['rerank_nb/train_reranker.py']
    return [sys.executable, *launch, *script, *run]


def wait_only(args):
    "A run of several processes, each with weights of its own; its steps still begin together."
    from rerank_nb import engine, rows, train_reranker, trainer
    def apart(accelerator, model, optimizer, head):
        rows.by_rows(model.model)
        return model, accelerator.prepare(optimizer)
    trainer.distribute = apart
    train_reranker.main(args)
    engine.leave()


def rates_of(out):
    "Median of a run's records; the first one holds the warm-up."
    return median([json.loads(l)['pairs_per_second'] for l in open(f'{out}/metrics.jsonl')][1:])


def run(kind, data):
    "Pairs a second and process."
    n, engine = KINDS[kind]
    outs = [tempfile.mkdtemp() + '/run' for _ in range(1 if engine else n)]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **ENV})
    runs = [subprocess.Popen(command(kind, data, out), cwd=ROOT, **pipes) for out in outs]
    said = [p.communicate() for p in runs]
    for p, (text, errors) in zip(runs, said):
        assert p.returncode == 0, errors[-3000:]
        if 'FSDP' in kind: assert 'sharded over 2 processes' in text
    return sum(map(rates_of, outs)) / n


def main():
    if sys.argv[1:2] == ['--waiting']: return wait_only(sys.argv[2:])
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
