"""Do the tests see it? Break the source in many small ways, one at a time, and count what no test notices.

    python tests/mutate.py                  # all edits, two at a time: make mutate
    python tests/mutate.py losses mining    # those of some modules
    python tests/mutate.py --list           # only say what would be done

Each edit is made in a copy of the tree: in the module and in the cell of the notebook that it is exported from, since
a notebook defines its own module's functions itself. An edit is caught when one of its tests fails or takes too long.
First each test runs on the source as it is: a test that fails already catches nothing.
"""
import argparse, json, os, re, shutil, signal, subprocess, sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = ('.git', '.venv', 'models', 'output', '_docs', 'build', 'dist', '__pycache__', '.pytest_cache', '*.egg-info')
SECONDS = 400   # the longest test takes a minute


class Edit(NamedTuple):
    "One way to break a module."
    module: str # Of rerank_nb
    old: str # A text that stands in it once
    new: str # What takes its place
    tests: tuple # Notebooks and pytest nodes, the quickest first


def notebook_of(module, root=ROOT):
    "The notebook that a module is exported from."
    text = (root/f'rerank_nb/{module}.py').read_text(encoding='utf-8')
    return re.search(r'File to edit: \.\./(\S+)', text)[1].rstrip('.')


def edits():
    "The list; an edit that names no test is left to its module's notebook."
    from mutations import EDITS
    return [Edit(m, old, new, tests or (notebook_of(m),)) for m, rows in EDITS.items() for old, new, *tests in rows]


def once(text, old, where):
    "`old` must stand there once, or the list has rotted."
    n = text.count(old)
    if n != 1: raise LookupError(f'{where}: {old!r} stands there {n} times, expected once')


def changed(root, edit):
    "The files that an edit changes, with their new texts."
    module, notebook = (root/p for p in (f'rerank_nb/{edit.module}.py', notebook_of(edit.module, root)))
    source = module.read_text(encoding='utf-8')
    once(source, edit.old, module.relative_to(root))
    nb = json.loads(notebook.read_text(encoding='utf-8'))
    texts = [''.join(c['source']) for c in nb['cells']]
    exported = [i for i, t in enumerate(texts) if re.match(r'#\s*\|\s*export', t) and edit.old in t]
    once('\n'.join(texts[i] for i in exported), edit.old, notebook.relative_to(root))
    nb['cells'][exported[0]]['source'] = texts[exported[0]].replace(edit.old, edit.new)
    return {module: source.replace(edit.old, edit.new), notebook: json.dumps(nb, ensure_ascii=False)}


def rotten(root, todo):
    "What is wrong with the list: texts that are gone or stand twice, tests that are not there."
    found = [f'{t}: no such file' for t in {t.split('::')[0] for e in todo for t in e.tests} if not (root/t).exists()]
    for e in todo:
        try: changed(root, e)
        except LookupError as error: found.append(str(error))
    return sorted(found)


def command(test):
    "A notebook by nbdev, the rest by pytest."
    if test.endswith('.ipynb'): return [Path(sys.executable).with_name('nbdev_test'), '--path', test]
    return [sys.executable, '-m', 'pytest', '-q', '-x', '-p', 'no:cacheprovider', '-m', '', test]


def outcome(root, test, seconds=SECONDS):
    "('passes', 'fails' or 'takes too long', the last lines it printed)."
    alone = dict(PYTHONPATH=str(root), PYTHONDONTWRITEBYTECODE='1', TMPDIR=str(root.parent))
    env = os.environ | alone | dict(OMP_NUM_THREADS='1', HF_HUB_OFFLINE='1', TOKENIZERS_PARALLELISM='false')
    p = subprocess.Popen(command(test), cwd=root, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                         start_new_session=True)
    try: said, code = p.communicate(timeout=seconds)[0], p.returncode
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, signal.SIGKILL)
        p.communicate(timeout=60)
        return 'takes too long', ''
    if code == 5: raise SystemExit(f'{test}: no such test: mend tests/mutations.py')
    return ('fails' if code else 'passes'), '\n'.join(said.splitlines()[-15:])


def caught(root, edit):
    "Which test sees an edit; None if all pass."
    texts = changed(root, edit)
    before = {p: p.read_bytes() for p in texts}
    try:
        for p, text in texts.items(): p.write_text(text, encoding='utf-8')
        return next((t for t in edit.tests if outcome(root, t)[0] != 'passes'), None)
    finally:
        for p, data in before.items(): p.write_bytes(data)


def copies(folder, n=2):
    "Copies of the tree, for as many threads."
    trees = Queue()
    for i in range(n):
        tree = Path(folder)/str(i)/'rerank_nb'
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
        if (ROOT/'models').exists(): (tree/'models').symlink_to((ROOT/'models').resolve())
        trees.put(tree)
    return trees


def spread(trees, f, items):
    "`f(tree, item)` of each item, one at a time in a tree; yields (item, value)."
    def one(item):
        tree = trees.get()
        try: return item, f(tree, item)
        finally: trees.put(tree)
    with ThreadPoolExecutor(trees.qsize()) as pool: yield from pool.map(one, items)


def run(todo):
    "Try all edits; returns those that no test saw."
    start, alive = time.time(), []
    with tempfile.TemporaryDirectory() as folder:
        trees = copies(folder)
        for test, (how, said) in spread(trees, outcome, sorted({t for e in todo for t in e.tests})):
            if how != 'passes': raise SystemExit(f'{test} {how} before anything was changed:\n{said}')
        print(f'{time.time() - start:.0f} s: all tests pass on the source as it is', flush=True)
        for edit, by in spread(trees, caught, todo):
            if by is None: alive.append(edit)
            print(f"{'SURVIVES' if by is None else 'caught  '} {edit.module}: {edit.old!r} -> {edit.new!r}", flush=True)
    print(f'{len(todo)} edits, {len(alive)} survive, {(time.time() - start) / 60:.0f} minutes')
    for e in alive: print(f'  {e.module}: {e.old!r} -> {e.new!r}, not seen by {", ".join(e.tests)}')
    return alive


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('modules', nargs='*', help='Only edits of these modules.')
    p.add_argument('--list', action='store_true', help='Only check the list and print it.')
    a = p.parse_args()
    todo = [e for e in edits() if not a.modules or e.module in a.modules]
    if found := rotten(ROOT, todo): sys.exit('\n'.join([*found, 'mend tests/mutations.py']))
    if a.list: print('\n'.join(f'{e.module}: {e.old!r} -> {e.new!r}: {", ".join(e.tests)}' for e in todo))
    else: sys.exit(bool(run(todo)))
