"The package outside its tree, and the files that describe it."
import ast, configparser, json, re, sys, venv, zipfile
import pytest, vermin
from IPython.core.inputtransformer2 import TransformerManager
from helpers import ROOT, run

WHERE_FROM = """
import sys
import rerank_nb, rerank_nb.trainer
print(rerank_nb.__file__, rerank_nb.__version__, 'nbdev' in sys.modules, 'fastcore' in sys.modules)
"""
A_RUN = """
import json
from rerank_nb.tiny import tiny_model
from rerank_nb.trainer import TrainConfig, train
line = json.dumps(dict(query='list', pos=['files'], neg=['dog']))
open('d.jsonl', 'w').write(line + '\\n')
train(TrainConfig(tiny_model('m'), 'd.jsonl', 'out', epochs=1, max_len=64))
"""
transform_cell = TransformerManager().transform_cell
TESTER = {f'GIT_{who}_{what}': 'tester@example.org' for who in ('AUTHOR', 'COMMITTER') for what in ('NAME', 'EMAIL')}


def build_wheel(folder):
    p = run(sys.executable, '-m', 'build', '--wheel', '--no-isolation', '--outdir', folder, ROOT)
    assert p.returncode == 0, p.stdout + p.stderr
    return next(folder.glob('*.whl'))


def test_a_wheel_is_whole(tmp_path):
    wheel = build_wheel(tmp_path)
    cfg = configparser.ConfigParser(delimiters=['='])
    cfg.read(ROOT/'settings.ini', encoding='utf-8')
    assert cfg['DEFAULT']['version'] in wheel.name
    with zipfile.ZipFile(wheel) as z:
        names = z.namelist()
        z.extractall(tmp_path/'site')
        meta = z.read(next(n for n in names if n.endswith('METADATA'))).decode()
    assert {f'rerank_nb/{p.name}' for p in (ROOT/'rerank_nb').glob('*.py')} <= {*names}
    assert 'rerank_nb/start.safetensors' in names and wheel.stat().st_size < 8e6
    assert not [n for n in names if n.startswith(('tests', 'nbs', 'benchmarks'))]
    assert all(f'Requires-Dist: {r}'.split('>')[0] in meta for r in cfg['DEFAULT']['requirements'].split())
    out = run(sys.executable, '-c', WHERE_FROM, cwd=tmp_path, env={'PYTHONPATH': str(tmp_path/'site')})
    assert out.returncode == 0, out.stderr
    package = str(tmp_path/'site/rerank_nb/__init__.py')
    assert out.stdout.split() == [package, cfg['DEFAULT']['version'], 'False', 'False']


@pytest.mark.slow
def test_a_wheel_installs_and_trains_in_an_empty_environment(tmp_path):
    wheel, python = build_wheel(tmp_path), tmp_path/'env/bin/python'
    venv.create(tmp_path/'env', with_pip=True)
    p = run(python, '-m', 'pip', 'install', '-q', '-c', ROOT/'constraints.txt', wheel, timeout=1500)
    assert p.returncode == 0, p.stderr
    p = run(python, '-c', A_RUN, cwd=tmp_path)
    assert p.returncode == 0 and (tmp_path/'out/model/model.safetensors').exists(), p.stderr


READS, MODEL = {'files', 'data'}, {'files', 'data', 'model'}
ROOMS = {   # module -> what it may import of ours
    'files': set(), 'runtimes': {'files'}, 'losses': set(), 'metrics': set(), 'tiny': set(), 'rows': {'files'},
    'formats': {'files'}, 'data': {'files', 'formats'}, 'convert': READS | {'formats'},
    'engine': {'files', 'rows'}, 'playground': {'files'},
    'model': READS | {'metrics', 'runtimes'}, 'base': MODEL, 'export': MODEL | {'evaluation', 'runtimes'},
    'checkpoint': {'files', 'engine'}, 'parts': {'files', 'engine'},
    'records': {'files', 'losses', 'metrics'}, 'candidates': READS, 'card': {'files', 'evaluation'},
    'trainer': MODEL | {'candidates', 'card', 'checkpoint', 'engine', 'losses', 'metrics', 'records'},
    'train_reranker': {'files', 'engine', 'trainer'}, 'calibration': MODEL | {'losses', 'metrics'},
    'evaluation': MODEL | {'candidates', 'engine', 'metrics', 'mining', 'parts'},
    'scoring': MODEL | {'engine', 'parts'}, 'mining': MODEL | {'engine', 'parts'}}


def imports(text):
    "(module of ours, name) of each import in a source; the name is '' where the module itself is imported."
    found = []
    for node in ast.walk(ast.parse(text)):
        names = [a.name for a in getattr(node, 'names', [])]
        if isinstance(node, ast.Import): found += [(n[10:], '') for n in names if n.startswith('rerank_nb.')]
        if not isinstance(node, ast.ImportFrom): continue
        module = '.' * node.level + (node.module or '')
        if module in ('.', 'rerank_nb'): found += [(n, '') for n in names]
        elif module.startswith(('.', 'rerank_nb.')):
            room = module.removeprefix('rerank_nb').lstrip('.')
            found += [(room, n) for n in names]
    return found


def test_every_way_to_import_is_seen():
    lines = ['import rerank_nb.data, os', 'from . import files', 'from rerank_nb import model', 'from .a import b',
             'from rerank_nb.c import _d']
    assert imports('\n'.join(lines)) == [('data', ''), ('files', ''), ('model', ''), ('a', 'b'), ('c', '_d')]


def test_modules_import_only_what_stands_below_them():
    for path in (ROOT/'rerank_nb').glob('[!_]*.py'):
        used = {module for module, _ in imports(path.read_text(encoding='utf-8'))}
        assert used <= ROOMS[path.stem], (path.stem, used - ROOMS[path.stem])


def test_no_module_takes_a_private_name_of_another():
    sources = {p.stem: p.read_text(encoding='utf-8') for p in (ROOT/'rerank_nb').glob('[!_]*.py')}
    private = [(stem, *found) for stem, text in sources.items() for found in imports(text) if found[1].startswith('_')]
    assert not private


def test_a_release_is_one_command(tmp_path):
    root = tmp_path/'rerank_nb'
    assert run('git', 'clone', '--quiet', ROOT, root).returncode == 0
    (root/'.venv').symlink_to(sys.prefix)
    (root/'.venv/.installed').touch()
    def release(version): return run('make', '--silent', 'release', f'VERSION={version}', cwd=root, env=TESTER)
    p = release('9.8.7')
    assert p.returncode and 'CHANGELOG.md has no heading' in p.stdout, p.stdout + p.stderr
    log = root/'CHANGELOG.md'
    log.write_text(log.read_text(encoding='utf-8').replace('## ', '## 9.8.7\n\n- Nothing.\n\n## ', 1), encoding='utf-8')
    assert 'commit or stash first' in release('9.8.7').stdout
    assert run('git', 'commit', '--quiet', '-am', 'log', cwd=root, env=TESTER).returncode == 0
    p = release('9.8.7')
    assert p.returncode == 0, p.stdout + p.stderr
    built = sorted(f.name for f in (root/'dist').iterdir())
    assert built == ['rerank_nb-9.8.7-py3-none-any.whl', 'rerank_nb-9.8.7.tar.gz']
    assert run('git', 'tag', cwd=root).stdout.split() == ['v9.8.7']
    assert run('git', 'status', '--porcelain', cwd=root).stdout == ''
    assert "__version__ = \"9.8.7\"" in (root/'rerank_nb/__init__.py').read_text()


def newer_than_3_10(source):
    "What Python 3.10 lacks of a source: the release that has its syntax and all it calls, and patterns it cannot read."
    config = vermin.Config()
    config.set_ignore_incomp(True)   # with Python 2
    for name in ('compression', 'compression.zstd'): config.add_exclusion(name)   # asked for before it is imported
    least = vermin.detect(source, config)[1]
    calls = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    of_re = [c.args[0] for c in calls if isinstance(c.func.value, ast.Name) and c.func.value.id == 're' and c.args]
    patterns = [a.value for a in of_re if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    parser = getattr(re, '_parser', None)   # 3.10 itself refuses such patterns
    newer = [p for p in patterns if parser and re.search('POSSESSIVE|ATOMIC', repr(parser.parse(p)))]
    return newer + [least] * bool(least and least > (3, 10))


def sources(folder):
    "Name -> Python, of files and of the cells of notebooks."
    for p in sorted((ROOT/folder).rglob('*.py')): yield p.name, p.read_text(encoding='utf-8')
    for p in sorted((ROOT/folder).rglob('[!.]*.ipynb')):
        for c in json.loads(p.read_text(encoding='utf-8'))['cells']:
            if c['cell_type'] == 'code': yield f'{p.name} {c["id"]}', transform_cell(''.join(c['source']))


@pytest.mark.parametrize('folder', ['rerank_nb', 'nbs', 'tests', 'benchmarks', 'examples', 'start', 'docs'])
def test_python_3_10_reads_it(folder):
    found = {name: newer_than_3_10(source) for name, source in sources(folder)}
    assert found and not {name: what for name, what in found.items() if what}, 'vermin -vvv FILE says which'


@pytest.mark.skipif(sys.version_info < (3, 11), reason='3.10 cannot read them')
@pytest.mark.parametrize('source', ["re.compile('a*+b')", "re.sub('(?>a)', '', x)", 'try: f()\nexcept* E: pass',
                                    "import warnings\nwith warnings.catch_warnings(action='ignore'): f()"])
def test_what_is_newer_would_be_seen(source): assert newer_than_3_10(source)
