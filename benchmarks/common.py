"""What the speed benchmarks share: real text of natural lengths, the model, workers in turn, the machine's limit.

Each contender runs in a process of its own and does its steps when it is told to, one contender after the other, round
by round, so that what else happens on the machine falls on all of them. Reported are medians over the rounds and the
spread.
"""
import ctypes, json, os, platform, re, subprocess, sys, time
from pathlib import Path
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT/'models/me5-small-zh-en-6'   # 6 layers of 384, the shape of MiniLM-L6
RESULTS = ROOT/'benchmarks/results'


def corpus():
    "English prose that every installation has: the manuals inside torch and numpy, in words."
    import torch
    modules = (torch, torch.nn, torch.nn.functional, np, np.linalg, np.random)
    docs = [getattr(getattr(m, n), '__doc__', None) for m in modules for n in sorted(dir(m))]
    return [w for d in docs if isinstance(d, str) for w in re.findall(r"[\w'.,;:()-]+", d)]


def make_pairs(n, mean=100., sigma=.6, seed=0):
    "`n` (query, passage, label): passages of log-normal length around `mean` words, queries of 4 to 12."
    words, rng = corpus(), np.random.default_rng(seed)
    def text(k):
        i = int(rng.integers(0, len(words) - k))
        return ' '.join(words[i:i + k])
    lengths = np.clip(rng.lognormal(np.log(mean) - sigma**2/2, sigma, n), 8, 400).astype(int)
    return [(text(int(rng.integers(4, 13))), text(int(k)), int(i % 4 == 0)) for i, k in enumerate(lengths)]


# tail of the lengths: (words of a passage, sigma)
MIXTURES = {'short': (52, .3), 'natural': (57, .6), 'long': (80, 1.)}


def padding(lengths, batch_size=32, draws=100, seed=0):
    "Share of tokens that are padding when shuffled batches are padded to their longest pair."
    rng, n = np.random.default_rng(seed), np.asarray(lengths)
    batches = [rng.choice(n, batch_size, replace=False) for _ in range(draws)]
    return 1 - sum(b.sum() for b in batches) / sum(batch_size * b.max() for b in batches)


def token_lengths(pairs, max_len):
    "Tokens of each (query, passage, label), special ones included."
    from transformers import AutoTokenizer
    ids = AutoTokenizer.from_pretrained(MODEL)([q for q, _, _ in pairs], [d for _, d, _ in pairs])['input_ids']
    return [min(len(x), max_len) for x in ids]


def write_jsonl(path, pairs):
    "Pairs as a binary file, one pair a line."
    lines = [json.dumps(dict(query=q, pos=[d] * y, neg=[d] * (1 - y))) for q, d, y in pairs]
    Path(path).write_text('\n'.join(lines), encoding='utf-8')
    return str(path)


def flops(lengths, layers=6, hidden=384, training=True):
    """Floating point operations for pairs of these lengths: matrix products of the layers and of attention; backward
    counts twice."""
    n = np.asarray(lengths, dtype=float)
    return (3 if training else 1) * layers * float((24 * hidden**2 * n + 4 * hidden * n**2).sum())


def gemm_rate(seconds=.5):
    "Operations a second of plain float32 matrix products of the layers' shape."
    import torch
    a, b = torch.randn(4096, 384), torch.randn(384, 1536)
    a @ b
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        a @ b
        done += 1
    return done * 2 * 4096 * 384 * 1536 / (time.perf_counter() - start)


def peak_mb(process='self'):
    "Largest resident memory of a process so far, in MB."
    return int(re.search(r'VmHWM:\s+(\d+)', Path(f'/proc/{process}/status').read_text())[1]) / 1024


class Gate:
    "In a worker: wait for 'go K', let K steps pass, report the seconds they took."
    def __init__(self):
        self.left, self.start, self.tokens = 0, None, []
        self.channel = os.fdopen(os.dup(1), 'w')
        os.dup2(2, 1)   # what libraries print goes to stderr

    def say(self, **kw): print(json.dumps(kw), file=self.channel, flush=True)

    def step(self, tokens=(), **kw):
        "Call after each step (and once after the warm-up); `tokens` are the lengths of its pairs."
        self.tokens += tokens
        if self.left: self.left -= 1
        if self.left: return
        seconds = time.perf_counter() - self.start if self.start else None
        self.say(seconds=seconds, peak_mb=peak_mb(), tokens=self.tokens, **kw)
        ctypes.CDLL(None).malloc_trim(0)   # while it waits, the others may have the memory
        word = sys.stdin.readline().split()
        if not word: os._exit(0)
        self.left, self.tokens, self.start = int(word[1]), [], time.perf_counter()


class Worker:
    "In the controller: one contender's process."
    def __init__(self, script, name, *args, env=None):
        self.name = name
        command = [sys.executable, script, '--worker', name, *map(str, args)]
        env = {**os.environ, 'HF_HUB_OFFLINE': '1', 'TOKENIZERS_PARALLELISM': 'false', **(env or {})}
        stderr = None if os.environ.get('BENCH_VERBOSE') else subprocess.PIPE
        self.process = subprocess.Popen(command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=stderr)
        self.first = self.answer()

    def answer(self):
        line, stderr = self.process.stdout.readline(), self.process.stderr
        if not line: raise RuntimeError(f'{self.name} ended:\n{stderr.read()[-3000:] if stderr else ""}')
        return json.loads(line)

    def go(self, steps):
        print(f'go {steps}', file=self.process.stdin, flush=True)
        return self.answer()

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def machine():
    "What the figures were measured on."
    import torch, transformers
    names = [l.split(':')[1].strip() for l in open('/proc/cpuinfo') if l.startswith('model name')]
    head = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], cwd=ROOT, capture_output=True, text=True)
    return dict(
        cpu=names[0] if names else platform.processor(), threads=torch.get_num_threads(),
        isa=torch.backends.cpu.get_cpu_capability(), torch=torch.__version__, transformers=transformers.__version__,
        commit=head.stdout.strip())


def median(xs): return float(np.median(xs))
def spread(xs): return f'{min(xs):.3g}-{max(xs):.3g}'


def save(name, record, fig=None):
    "results/NAME.json, and NAME.png."
    RESULTS.mkdir(exist_ok=True)
    (RESULTS/f'{name}.json').write_text(json.dumps(dict(machine=machine(), **record), indent=1) + '\n')
    if fig: fig.savefig(RESULTS/f'{name}.png', dpi=100)


def bars(rows, xlabel, title):
    "A bar with its spread for each (name, values)."
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    fig, ax = plt.subplots(figsize=(7, .45 * len(rows) + 1), layout='constrained')
    for y, (name, values) in enumerate(reversed(rows)):
        m, color = median(values), 'tab:blue' if name.startswith('rerank_nb') else 'tab:gray'
        ax.barh(y, m, xerr=[[m - min(values)], [max(values) - m]], color=color, ecolor='black')
    ax.set(yticks=range(len(rows)), yticklabels=[n for n, _ in reversed(rows)], xlabel=xlabel, title=title)
    return fig
