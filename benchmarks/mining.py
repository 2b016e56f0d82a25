"""How much memory does mining take as the corpus grows?

    python benchmarks/mining.py [--texts 10000 100000 500000] [--queries 256]

BM25 over texts of 6 to 40 words or pairs of Chinese characters; `python -m rerank_nb.mining` as users start it, in a process of its own. The peak is while the index is made; a second call, after a kill,
finds the index on disk.
"""
import argparse, json, re, subprocess, sys, tempfile, time
from pathlib import Path
from data import text_maker


def write_files(folder, texts, queries):
    text = text_maker()
    with open(folder/'corpus.jsonl', 'w', encoding='utf-8') as f: f.writelines(json.dumps(dict(text=text()), ensure_ascii=False) + '\n' for _ in range(texts))
    with open(folder/'queries.jsonl', 'w', encoding='utf-8') as f: f.writelines(json.dumps(dict(query=text(), pos=[text()], neg=[]), ensure_ascii=False) + '\n' for _ in range(queries))


def mine(folder, until=None):
    "(seconds, peak resident memory in MB) of the command; it is killed once `until` exists."
    began, peak = time.time(), 0
    p = subprocess.Popen([sys.executable, '-m', 'rerank_nb.mining', '--dataset', folder/'queries.jsonl', '--corpus', folder/'corpus.jsonl', '--output', folder/'mined.jsonl', '--lines_a_part', '16'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while p.poll() is None:
        try: peak = max(peak, int(re.search(r'VmHWM:\s+(\d+)', Path(f'/proc/{p.pid}/status').read_text())[1]) / 1024)
        except (OSError, TypeError): pass      # it has just ended
        if until and until.exists(): p.kill()
        time.sleep(.05)
    assert until or p.returncode == 0
    return round(time.time() - began), round(peak)


def main():
    a = argparse.ArgumentParser()
    a.add_argument('--texts', type=int, nargs='+', default=[10_000, 100_000, 500_000]); a.add_argument('--queries', type=int, default=256)
    a = a.parse_args()
    print('| texts | corpus | until the first part: time, peak memory | after a kill: time, peak memory |\n|---|---|---|---|')
    for n in a.texts:
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder); write_files(folder, n, a.queries)
            (s1, m1), (s2, m2) = mine(folder, folder/'mined.jsonl.parts/00000000.jsonl'), mine(folder)
            print(f'| {n:,} | {(folder/"corpus.jsonl").stat().st_size / 2**20:,.0f} MB | {s1} s, {m1:,} MB | {s2} s, {m2:,} MB |', flush=True)


if __name__ == '__main__': main()
