"A line of code is read without scrolling: 120 characters in cells, modules, tests and scripts."
import json
from helpers import ROOT

WIDTH = 120
CODE = ('nbs/**/*.ipynb', 'nbs/*.py', 'rerank_nb/[!_]*.py', 'tests/*.py', 'benchmarks/*.py', 'docs/*.py',
        'examples/*.py')


def places(path):
    "(place, line) of each line of code; in a notebook the place has the id of the cell."
    text = path.read_text(encoding='utf-8')
    if path.suffix == '.ipynb':
        cells = [(c['id'], ''.join(c['source'])) for c in json.loads(text)['cells'] if c['cell_type'] == 'code']
        return [(f'cell {name}, line {i}', l) for name, source in cells for i, l in enumerate(source.split('\n'), 1)]
    lines = [(f'line {i}', l) for i, l in enumerate(text.split('\n'), 1)]
    cells = [i for i, (_, l) in enumerate(lines) if l.startswith('# %% ../nbs')]
    return lines[cells[0]:] if cells else lines   # above the first cell of a module stands what nbdev writes


def wide(path):
    "Where lines are wider than WIDTH characters (not bytes)."
    return [f'{place}: {len(line)} characters' for place, line in places(path) if len(line) > WIDTH]


def wide_lines():
    "{file: its wide lines} of all code; rerank_nb/_modidx.py is nbdev's."
    found = {}
    for pattern in CODE:
        files = [p for p in sorted(ROOT.glob(pattern)) if '.ipynb_checkpoints' not in p.parts]
        assert files, pattern
        found |= {p.relative_to(ROOT).as_posix(): wide(p) for p in files}
    return {name: lines for name, lines in found.items() if lines}


def test_no_line_of_code_is_wider_than_120_characters():
    found = [f'{name}, {line}' for name, lines in wide_lines().items() for line in lines]
    head = f'{len(found)} lines of code are wider than {WIDTH} characters, the first:'
    assert not found, '\n'.join([head, *found[:10]])


def test_characters_are_counted_in_code_only(tmp_path):
    fits, too_wide = '# ' + '文' * 118, '# ' + '文' * 119
    cells = [dict(cell_type='markdown', id='prose', source=['x' * 500]),
             dict(cell_type='code', id='fits', source=[fits + '\n', 'x = 1']),
             dict(cell_type='code', id='wide', source=['x = 1\n', too_wide])]
    (tmp_path/'a.ipynb').write_text(json.dumps(dict(cells=cells)), encoding='utf-8')
    assert wide(tmp_path/'a.ipynb') == ['cell wide, line 2: 121 characters']
    (tmp_path/'script.py').write_text(f'{fits}\n{too_wide}\n', encoding='utf-8')
    assert wide(tmp_path/'script.py') == ['line 2: 121 characters']
    title, cell = '"' + 'x' * 500 + '"', '# %% ../nbs/00_a.ipynb #id'
    (tmp_path/'module.py').write_text('\n'.join([title, cell, fits, too_wide]), encoding='utf-8')
    assert wide(tmp_path/'module.py') == ['line 4: 121 characters']
