"What an installation of this package brings along may be used and passed on by anyone."
import configparser, re
from importlib.metadata import PackageNotFoundError, distribution
import pytest
from packaging.requirements import Requirement
from helpers import ROOT

FREE = re.compile(r'MIT|BSD|Apache|ISC|PSF|Python Software Foundation|MPL[- ]2|HPND|Zlib|CC0|Unlicense', re.I)


def licence(about):
    "What a package says of its licence: an expression, a classifier, or a text's first line."
    kinds = [c.split('::')[-1].strip() for c in about.get_all('Classifier', []) if c.startswith('License')]
    return about.get('License-Expression') or '; '.join(kinds) or (about.get('License') or '').split('\n')[0]


def brought_along(todo):
    "Licences by package, of some packages and of all that they require here; what is not installed is left out."
    found = {}
    while todo:
        name = todo.pop()
        if name.lower().replace('_', '-') in found: continue
        try: d = distribution(name)
        except PackageNotFoundError: continue
        found[name.lower().replace('_', '-')] = licence(d.metadata)
        needs = map(Requirement, d.requires or [])
        todo += [r.name for r in needs if not r.marker or r.marker.evaluate({'extra': ''})]
    return found


def test_all_licences_are_free():
    cfg = configparser.ConfigParser(delimiters=['='])
    cfg.read(ROOT/'settings.ini', encoding='utf-8')
    found = brought_along([Requirement(r).name for r in cfg['DEFAULT']['requirements'].split()])
    assert {'torch', 'transformers', 'numpy', 'tokenizers'} <= {*found} and len(found) > 20
    # drivers that torch brings along for GPUs have licences of their own
    others = {k: v for k, v in found.items() if not k.startswith(('nvidia-', 'cuda-'))}
    odd = {k: v for k, v in others.items() if not FREE.search(v) or 'GPL' in v}
    assert not odd, odd


@pytest.mark.parametrize('text', ['GPL-3.0', 'Proprietary', ''])
def test_another_licence_would_be_seen(text): assert not FREE.search(text)
