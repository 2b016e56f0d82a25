"The example data keeps its own rules."
import json, re
from collections import defaultdict
import pytest
from rerank_nb.data import PairDataset
from conftest import ROOT

FILES = {'binary_train': 'binary', 'binary_dev': 'binary', 'graded_train': 'graded', 'graded_dev': 'graded'}
path = lambda n: ROOT/'example_data'/(n + ('.jsonl' if FILES[n] == 'binary' else '.tsv'))


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
    grams = lambda t: {t[i:i + 4] for i in range(len(t) - 3)}
    for name in FILES:
        for docs in lists(name).values():
            g = [grams(d) for d, _ in docs]
            for i in range(len(g)):
                for j in range(i): assert len(g[i] & g[j]) < .5 * min(len(g[i]), len(g[j])), (docs[i], docs[j])
