"Each notebook by itself, in a real kernel, as `jupyter execute` runs it."
import json, sys
import pytest
from helpers import ROOT, run

NOTEBOOKS = sorted(p.relative_to(ROOT) for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)


def test_the_list_is_not_empty(): assert len(NOTEBOOKS) >= 8


@pytest.mark.parametrize('path', NOTEBOOKS, ids=str)
def test_a_cell_is_found_by_its_id(path):
    ids = [cell['id'] for cell in json.loads((ROOT/path).read_text(encoding='utf-8'))['cells']]
    assert len({*ids}) == len(ids), sorted(i for i in {*ids} if ids.count(i) > 1)


@pytest.mark.slow
@pytest.mark.parametrize('path', NOTEBOOKS, ids=str)
def test_jupyter_execute(path):
    p = run(sys.executable, '-m', 'jupyter', 'execute', path, timeout=1800)
    assert p.returncode == 0, p.stderr[-3000:]
