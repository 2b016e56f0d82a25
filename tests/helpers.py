"""What several tests use: small data files and models, processes that end in time, command lines of a run and what it
leaves. No hub is ever asked."""
import json, os, random, resource, subprocess, sys, sysconfig, time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORDS = '''fox dog jumps lazy quick list files folder command bread dough time query document score
中国 美国 泰山 文件 手机'''.split()
TRAIN = [sys.executable, '-m', 'rerank_nb.train_reranker']
ACCELERATE = [sys.executable, '-m', 'accelerate.commands.launch', '--main_process_port', '0']   # a free one
CONFIG = {'bert': 'config/default_fsdp.yaml', 'xlm-roberta': 'config/xlmroberta_default_config.yaml',
          'modernbert': 'config/modernbert_default_config.yaml', 'qwen3': 'config/qwen3_default_config.yaml'}


# ---------- data and models ----------

def read_jsonl(path): return [json.loads(l) for l in Path(path).read_text(encoding='utf-8').splitlines()]


def write_jsonl(path, rows):
    "Rows as lines of JSON; returns the path as text."
    lines = [json.dumps(r, ensure_ascii=False) + '\n' for r in rows]
    Path(path).write_text(''.join(lines), encoding='utf-8')
    return str(path)


def binary_file(path, n=40, seed=0):
    "Lines in which the relevant document names the query's word."
    rng = random.Random(seed)
    rows = []
    for _ in range(n):
        q, *others = rng.sample(WORDS, 6)
        negatives = [f'{a} {b}' for a, b in zip(others, others[1:])]
        rows.append(dict(query=q, pos=[f'{q} {others[0]}'], neg=negatives))
    return write_jsonl(path, rows)


def graded_file(path, n=40, seed=0):
    "Lines in which the grade counts how many of the query's words the document names."
    rng = random.Random(seed)
    lines = []
    for _ in range(n):
        q = rng.sample(WORDS, 3)
        rest = [w for w in WORDS if w not in q]
        for grade in range(4):
            doc = rng.sample(q, grade) + rng.sample(rest, 4 - grade)
            lines.append(f"{' '.join(q)}\t{' '.join(doc)}\t{grade}\n")
    Path(path).write_text(''.join(lines), encoding='utf-8')
    return str(path)


def still_model(path, kind='bert'):
    "A tiny model without dropout: the same numbers however a step is split."
    from rerank_nb.tiny import tiny_model
    return tiny_model(path, kind, hidden_dropout_prob=0., attention_probs_dropout_prob=0.)


# ---------- runs ----------

def quiet(config):
    "Train without tables and plots, also where a test runs in a notebook."
    from unittest.mock import patch
    from rerank_nb.trainer import train
    with patch('rerank_nb.records.in_notebook', lambda: False): return train(config)


# ---------- processes ----------

@contextmanager
def no_file_larger_than(size):
    "A limit on files stands for a full disk: writing fails in the same places."
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try: yield
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def run(*cmd, cwd=ROOT, env=None, timeout=600):
    "A real process; stdout and stderr as text."
    cmd, env = [str(c) for c in cmd], {**os.environ, **(env or {})}
    return subprocess.run(cmd, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout)


def until(condition, process=None, seconds=240):
    "Wait until `condition()` holds; the test fails after so many seconds, or when the process has ended before."
    end = time.time() + seconds
    while not condition():
        assert process is None or process.poll() is None, f'ended too early:\n{process.communicate(timeout=60)}'
        assert time.time() < end, f'not in {seconds} seconds'
        time.sleep(.01)


def own_environment(name, *requirements, without=(), beside_ours=False):
    """Python of an environment that is made once, under .engines/.

    `without`: what its packages bring and do not need; `beside_ours`: what is installed here is there too.
    """
    place = ROOT/'.engines'/name
    python = place/'bin/python'
    if (place/'installed').exists(): return python
    assert run(sys.executable, '-m', 'venv', place).returncode == 0
    there, = place.glob('lib/*/site-packages')
    if beside_ours: (there/'ours.pth').write_text(f"{sysconfig.get_path('purelib')}\n")
    p = run(python, '-m', 'pip', 'install', '-q', *requirements, timeout=1800)
    if p.returncode == 0 and without: p = run(python, '-m', 'pip', 'uninstall', '-q', '-y', *without)
    assert p.returncode == 0, p.stderr[-2000:]
    (place/'installed').touch()
    return python


def clean_env(**kw):
    "An environment in which nothing of accelerate's is set."
    plain = {k: v for k, v in os.environ.items() if not k.startswith(('ACCELERATE_', 'FSDP_', 'WANDB_'))}
    return {**plain, 'HF_HUB_OFFLINE': '1', **kw}


def env(cut=None, **kw):
    "An environment for processes that talk to each other on this machine; `cut` is an accident for tests/cut.py."
    alone = dict(ACCELERATE_USE_CPU='1', OMP_NUM_THREADS='1', GLOO_SOCKET_IFNAME='lo')
    accident = {'CUT': cut} if cut else {}
    return clean_env(**alone | accident | kw)


# ---------- a run: its command line, and what it leaves ----------

def as_flags(**kw):
    "--name value of each, as words."
    return [word for k, v in kw.items() for word in (f'--{k}', str(v))]


def flags(model, data, out, **kw):
    "The flags of a small run."
    usual = dict(loss_type='classfication', batch_size=16, lr=1e-3, epochs=1, num_labels=1, max_len=64,
                 save_on_epoch_end=1, warmup_proportion=.1, gradient_accumulation_steps=1)
    return as_flags(model_name_or_path=model, dataset=data, output_dir=out, **usual | kw)


def command(n, kind='bert', script='tests/cut.py'):
    "The start of a command line with one process, or with n under FSDP."
    if n == 1: return [sys.executable, script]
    return [*ACCELERATE, '--config_file', CONFIG[kind], '--num_processes', str(n), script]


def finished(p, out):
    "The records of a run that has ended well and left a model."
    from transformers import AutoModelForSequenceClassification
    assert p.returncode == 0, p.stdout + p.stderr
    AutoModelForSequenceClassification.from_pretrained(out/'model')
    return read_jsonl(out/'metrics.jsonl')


def records(out):
    "The records of a run but for the clock's."
    return [{k: v for k, v in r.items() if k != 'pairs_per_second'} for r in read_jsonl(out/'metrics.jsonl')]


def weights(out, name='model'): return (out/name/'model.safetensors').read_bytes()
