"""How much memory does mining take as the corpus grows?

    python benchmarks/mining.py [--texts 10000 100000 500000] [--queries 256]

BM25 over texts of 6 to 40 words or pairs of Chinese characters; `python -m rerank_nb.mining` as users start it, in a
process of its own. The peak is while the index is made; a second call, after a kill, finds the index on disk.
"""
import argparse, json, re, subprocess, sys, tempfile, time
from pathlib import Path
from data import text_maker

HEAD = '''| texts | corpus | until the first part: time, peak memory | after a kill: time, peak memory |
|---|---|---|---|'''


def write_lines(path, rows):
    with open(path, 'w', encoding='utf-8') as f:
        f.writelines(json.dumps(row, ensure_ascii=False) + '\n' for row in rows)


def write_files(folder, texts, queries):
    text = text_maker()
    write_lines(folder/'corpus.jsonl', (dict(text=text()) for _ in range(texts)))
    write_lines(folder/'queries.jsonl', (dict(query=text(), pos=[text()], neg=[]) for _ in range(queries)))


def start(folder):
    "The command as users start it, in silence."
    files = {'--dataset': 'queries.jsonl', '--corpus': 'corpus.jsonl', '--output': 'mined.jsonl'}
    flags = [word for flag, name in files.items() for word in (flag, folder/name)]
    command = [sys.executable, '-m', 'rerank_nb.mining', *flags, '--lines_a_part', '16']
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def mine(folder, until=None):
    "(seconds, peak resident memory in MB) of the command; it is killed once `until` exists."
    began, peak = time.time(), 0
    p = start(folder)
    status = Path(f'/proc/{p.pid}/status')
    while p.poll() is None:
        try: peak = max(peak, int(re.search(r'VmHWM:\s+(\d+)', status.read_text())[1]) / 1024)
        except (OSError, TypeError): pass      # it has just ended
        if until and until.exists(): p.kill()
        time.sleep(.05)
    assert until or p.returncode == 0
    return round(time.time() - began), round(peak)


def row(texts, queries):
    "A line of the table: a corpus of `texts` texts, mined until the first part stands, and then to the end."
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_files(folder, texts, queries)
        corpus = (folder/'corpus.jsonl').stat().st_size / 2**20
        s1, m1 = mine(folder, folder/'mined.jsonl.parts/00000000.jsonl')
        s2, m2 = mine(folder)
    return f'| {texts:,} | {corpus:,.0f} MB | {s1} s, {m1:,} MB | {s2} s, {m2:,} MB |'


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--texts', type=int, nargs='+', default=[10_000, 100_000, 500_000])
    p.add_argument('--queries', type=int, default=256)
    a = p.parse_args()
    print(HEAD)
    for n in a.texts: print(row(n, a.queries), flush=True)


if __name__ == '__main__': main()
