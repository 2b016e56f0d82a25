"""First pass over a data file, and the start of a training run on it: seconds and resident memory, for 10 MB and 1 GB.

    python benchmarks/data.py [--mb 10 1000]         # 1400 MB are a million lines

Each size is measured in a process of its own, which first imports everything and notes its resident memory, then opens
the file as a dataset and reads pairs from all over it. Then the train script is started on it with a two-layer model,
until its first optimizer step is on record.

    python benchmarks/data.py --docs 8 100 1000 4000 [--docs_mb 20]

Files of the same bytes with so many documents a line: milliseconds per pair (of this process, not of the clock) of a
pass in order, of random batches of 32 and of whole lists, and in how many all labels are there. All in one process, the
least of three rounds, in turn.
"""
import argparse, json, math, os, random, resource, subprocess, sys, tempfile, time
from pathlib import Path
from common import peak_mb

LETTERS, CHARACTERS = 'etaoinshrdlu', '的一是在不了有和人这中大为上个国我以要他'


def text_maker(seed=0):
    "A function that makes another text of 6 to 40 words, English-looking ones and pairs of Chinese characters."
    rng = random.Random(seed)
    words = [''.join(rng.choices(LETTERS, k=rng.randint(2, 9))) for _ in range(5000)]
    words += [''.join(rng.choices(CHARACTERS, k=2)) for _ in range(2000)]
    return lambda: ' '.join(rng.choices(words, k=rng.randint(6, 40)))


def write_file(path, mb):
    "JSON lines with 1 positive and 7 negatives of 40-300 characters."
    text = text_maker()
    def line():
        row = dict(query=text(), pos=[text()], neg=[text() for _ in range(7)])
        return json.dumps(row, ensure_ascii=False) + '\n'
    with open(path, 'w', encoding='utf-8') as f:
        while f.tell() < mb * 2**20: f.writelines(line() for _ in range(200))


def rss():
    "Resident memory of this process in MB."
    return next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmRSS')) / 1024


def measure(path):
    "One line of the table as JSON, printed by a fresh process."
    from rerank_nb.data import PairBatches, PairDataset
    size, before, t = os.path.getsize(path) / 2**20, rss(), time.time()
    ds = PairDataset(path)
    seconds, after = time.time() - t, rss()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    t, n = time.time(), 0
    for batch in PairBatches(len(ds), 32):
        for i in batch: ds[i]
        n += len(batch)
        if n >= 20000: break
    rate, lines = n / (time.time() - t), len(ds.index.offsets)
    print(json.dumps(dict(
        mb=round(size), lines=lines, pairs=len(ds), seconds=round(seconds, 1), mb_per_second=round(size / seconds),
        rss_before_mb=round(before), rss_after_mb=round(after), rss_after_reading_mb=round(rss()), peak_mb=round(peak),
        kept_bytes_per_line=round(ds.index.nbytes / lines, 1), pairs_read_per_second=round(rate))))


def write_lists(path, mb, docs):
    """JSON lines with 1 positive and so many documents in all, of 60 words each; the same documents whatever their
    number in a line."""
    text, words = text_maker(), ' '.join(['word']*60)
    negatives = [f'{i} {words}' for i in range(docs - 1)]
    with open(path, 'w', encoding='utf-8') as f:
        while f.tell() < mb * 2**20:
            f.write(json.dumps(dict(query=text(), pos=[f'right {words}'], neg=negatives)) + '\n')


def read_batches(ds, sampler, enough=20000):
    "Read batches until there are enough pairs; how many there were."
    n = 0
    for batch in sampler:
        n += len(ds.__getitems__(batch))
        if n >= enough: break
    return n


def seconds_of(f):
    "(seconds of this process, value) of a call."
    t = time.process_time()
    value = f()
    return time.process_time() - t, value


def per_pair(path, rounds):
    "Milliseconds per pair of three ways to read a file, milliseconds for all labels; the least of all rounds."
    from rerank_nb.data import ListBatches, PairBatches, PairDataset
    ds, best = PairDataset(path), {}
    ways = dict(
        in_order=lambda: sum(1 for _ in ds),
        random_batches=lambda: read_batches(ds, PairBatches(len(ds), 32)),
        lists=lambda: read_batches(ds, ListBatches(ds.pair_groups(), 32)))
    def note(name, milliseconds): best[name] = min(best.get(name, math.inf), milliseconds)
    yield   # ready
    for _ in range(rounds):
        for name, way in ways.items():
            seconds, n = seconds_of(way)
            note(name, seconds / n * 1e3)
        note('labels_ms', seconds_of(ds.labels)[0] * 1e3)
        sizes = dict(pairs=len(ds), index_bytes_a_pair=round(ds.index.nbytes / len(ds), 1))
        yield {k: round(v, 4) for k, v in best.items()} | sizes


def by_documents(counts, mb, rounds=3):
    "The table of `--docs`."
    import rerank_nb.data   # no part of the first pass
    with tempfile.TemporaryDirectory() as tmp:
        files = {n: f'{tmp}/{n}.jsonl' for n in counts}
        for n, f in files.items(): write_lists(f, mb, n)
        runs = {n: per_pair(f, rounds) for n, f in files.items()}
        first = {n: round(seconds_of(lambda: next(run))[0], 2) for n, run in runs.items()}
        for _ in range(rounds): rows = {n: next(run) for n, run in runs.items()}
        for n in counts: print(json.dumps(dict(documents_a_line=n, mb=mb, first_pass_seconds=first[n], **rows[n])))


def start_up(path, tmp):
    "Seconds from starting the train script to its first optimizer step, and its peak memory in MB."
    from rerank_nb.tiny import tiny_model
    out, t = Path(tmp)/'run', time.time()
    flags = {'--model_name_or_path': tiny_model(f'{tmp}/tiny', 'bert'), '--dataset': path, '--output_dir': out,
             '--logging_steps': '1', '--max_len': '64', '--mixed_precision': 'no'}
    command = [sys.executable, '-m', 'rerank_nb.train_reranker', *(word for flag in flags.items() for word in flag)]
    p = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (out/'metrics.jsonl').exists():
        if p.poll() is not None: raise RuntimeError('the train script ended before its first step')
        time.sleep(.05)
    seconds, peak = time.time() - t, peak_mb(p.pid)
    p.kill()
    p.wait()
    return dict(first_step_after_seconds=round(seconds, 1), training_peak_mb=round(peak))


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--mb', type=int, nargs='+', default=[10, 1000])
    p.add_argument('--docs', type=int, nargs='+', help='Documents a line: measure reading in place of the first pass.')
    p.add_argument('--docs_mb', type=int, default=20)
    p.add_argument('--measure', help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.docs: return by_documents(a.docs, a.docs_mb)
    if a.measure: return measure(a.measure)
    with tempfile.TemporaryDirectory() as tmp:
        for mb in a.mb:
            path = Path(tmp)/f'{mb}.jsonl'
            write_file(path, mb)
            command = [sys.executable, __file__, '--measure', path]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            row = json.loads(said)
            with tempfile.TemporaryDirectory() as sub: print(json.dumps({**row, **start_up(path, sub)}), flush=True)
            path.unlink()


if __name__ == '__main__': main()
