"""What many files and many pairs cost before the first step.

    python tests/faults/scale.py --files 10000 --lines 50000 --long 10000000 --pairs 10000000

`--long` is a file of so many lines, 1.1 GB as it is, which is read whole. The pairs are an index without a file: what is
measured is the order of a list-wise epoch, which reads no line.
"""
import argparse, os, resource, sys, tempfile, time, tracemalloc
from pathlib import Path
sys.path[:0] = [str(Path(__file__).resolve().parents[i]) for i in (2, 1)]
import numpy as np
from helpers import write_jsonl
from rerank_nb.data import ListBatches, PairBatches, PairDataset


def mb(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def timed(what, f):
    "Say what a call costs in processor time and in memory."
    before, start = mb(), time.process_time()
    out = f()
    print(f'{what:<58}{time.process_time() - start:8.1f} s {mb() - before:8.0f} MB', flush=True)
    return out


def apart(f, *args):
    "Call a function in a fork: the highest memory of a process never falls, and this one is its own."
    pid = os.fork()
    if not pid:
        f(*args)
        os._exit(0)
    if os.waitpid(pid, 0)[1]: sys.exit(f'{f.__name__} failed')


def many_files(n, folder):
    "A dataset of n files, each with a line."
    for i in range(n): write_jsonl(f'{folder}/{i:05}.jsonl', [dict(query=f'q{i}', pos=['a'], neg=['b', 'c', 'd'])])
    ds = timed(f'first pass over {n:,} files', lambda: PairDataset([f'{folder}/{i:05}.jsonl' for i in range(n)]))
    some = next(iter(PairBatches(len(ds), 512)))
    timed('a batch of 512 pairs out of them', lambda: ds.__getitems__(some))
    print(f'open files: {len(os.listdir("/proc/self/fd"))}')


def first_pass(lines, folder, docs=10):
    "What a line and a pair take in memory, while the files are read and afterwards."
    def row(i): return dict(query=f'query {i}', pos=[f'doc {i}'], neg=[f'doc {i} {j}' for j in range(docs - 1)])
    path = write_jsonl(f'{folder}/lines.jsonl', map(row, range(lines)))
    tracemalloc.start()
    ds = timed(f'first pass over {lines * docs:,} pairs, traced', lambda: PairDataset(path))
    most = tracemalloc.get_traced_memory()[1] / len(ds)
    tracemalloc.stop()
    print(f'{most:.0f} bytes a pair at the highest, {ds.index.nbytes / lines:.0f} bytes a line afterwards')


def many_lines(n, folder):
    "A file of n lines with four pairs each, as every process of a run reads it at its start."
    path = Path(folder)/'long.jsonl'
    with path.open('w') as f:
        for i in range(n):
            f.write(f'{{"query": "query {i}", "pos": ["doc {i}"], "neg": ["doc {i} 0", "doc {i} 1", "doc {i} 2"]}}\n')
    ds = timed(f'first pass over {n:,} lines, {path.stat().st_size / 1e6:,.0f} MB', lambda: PairDataset(str(path)))
    print(f'{len(ds):,} pairs, an index of {ds.index.nbytes / 1e6:,.0f} MB')
    path.unlink()


def many_pairs(n, docs=10):
    "The first batch of a list-wise epoch over n pairs."
    groups = np.repeat(np.arange(n // docs, dtype=np.int32), docs)
    labels = np.tile((np.arange(docs) == 0).astype(np.float32), n // docs)
    batches = timed(f'order of {n:,} pairs in lists of {docs}', lambda: ListBatches(groups, 32))
    timed('the first batch', lambda: next(iter(batches)))
    drawn = ListBatches(groups, 32, group_size=4, labels=lambda pairs: labels[pairs])
    timed('the first batch with --group_size 4', lambda: next(iter(drawn)))
    drawn.set_epoch(1, done=len(drawn) - 1)
    timed('the last batch, as a run that goes on takes it', lambda: next(iter(drawn)))


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--files', type=int, default=10_000)
    parser.add_argument('--lines', type=int, default=50_000)
    parser.add_argument('--long', type=int, default=10_000_000)
    parser.add_argument('--pairs', type=int, default=10_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        apart(first_pass, given.lines, folder)
        apart(many_files, given.files, folder)
        apart(many_lines, given.long, folder)
    apart(many_pairs, given.pairs)
