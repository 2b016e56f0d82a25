"The example data keeps its own rules."
import re
from collections import defaultdict
from itertools import combinations
import pytest
from rerank_nb.data import PairDataset
from helpers import ROOT

FILES = {'binary_train': 'binary', 'binary_dev': 'binary', 'graded_train': 'graded', 'graded_dev': 'graded'}
SUFFIX = dict(binary='.jsonl', graded='.tsv')


def path(name): return ROOT/'example_data'/(name + SUFFIX[FILES[name]])


def lists(name):
    "query -> [(document, gain)]"
    ds, out = PairDataset(path(name), FILES[name]), defaultdict(list)
    assert not ds.index.stats['duplicates'] and not ds.index.stats['contradictions']
    for p in ds: out[p.query].append((p.doc, p.label))
    return out


@pytest.mark.parametrize('name', FILES)
def test_rules(name):
    for q, docs in lists(name).items():
        relevant = [d for d, y in docs if y >= (1 if FILES[name] == 'binary' else .75)]
        assert 1 <= len(relevant) <= 3 and len(docs) - len(relevant) >= 5, q
        assert all(20 <= len(d) <= 300 for d, _ in docs), q


def test_enough_in_both_languages():
    for fmt, n in (('binary', 120), ('graded', 60)):
        queries = [q for name in FILES if FILES[name] == fmt for q in lists(name)]
        chinese = sum(bool(re.search('[\u4e00-\u9fff]', q)) for q in queries)
        assert len(queries) >= n and len(set(queries)) == len(queries) and .4 <= chinese / len(queries) <= .6


def test_train_and_dev_share_neither_query_nor_document():
    for fmt in ('binary', 'graded'):
        a, b = lists(f'{fmt}_train'), lists(f'{fmt}_dev')
        assert not a.keys() & b.keys()
        assert not {d for l in a.values() for d, _ in l} & {d for l in b.values() for d, _ in l}


def test_no_near_copies():
    def grams(text): return {text[i:i + 4] for i in range(len(text) - 3)}
    for docs in (docs for name in FILES for docs in lists(name).values()):
        of = [(d, grams(d)) for d, _ in docs]
        for (d, a), (e, b) in combinations(of, 2): assert len(a & b) < .5 * min(len(a), len(b)), (d, e)
