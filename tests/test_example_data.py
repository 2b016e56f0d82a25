"The example data keeps its own rules."
import json
import re
from collections import Counter, defaultdict
from itertools import combinations
import numpy as np
import pytest
from rerank_nb.data import PairDataset
from rerank_nb.metrics import ranking_metrics
from rerank_nb.mining import BM25, words
from helpers import ROOT

FILES = {'binary_train': 'binary', 'binary_dev': 'binary', 'graded_train': 'graded', 'graded_dev': 'graded'}
SUFFIX = dict(binary='.jsonl', graded='.tsv')
LEAST = dict(train=200, dev=100)


def path(name, folder='example_data/whole'): return ROOT/folder/(name + SUFFIX[FILES[name]])


def dataset(name): return PairDataset(path(name), FILES[name])


def lists(name):
    "query -> [(document, gain)]"
    ds, out = dataset(name), defaultdict(list)
    assert not ds.index.stats['duplicates'] and not ds.index.stats['contradictions']
    for p in ds: out[p.query].append((p.doc, p.label))
    return out


def documents(name): return {d for docs in lists(name).values() for d, _ in docs}


def is_chinese(text): return bool(re.search('[\u4e00-\u9fff]', text))


def answers(name, label): return label >= (1 if FILES[name] == 'binary' else .75)


def ahead(name, value):
    "How often an answer has more of `value` than a document that does not answer, ties half: one mean a language."
    out = {True: [], False: []}
    for q, docs in lists(name).items():
        v = value(q, [d for d, _ in docs])
        right = np.array([answers(name, y) for _, y in docs])
        a, b = v[right][:, None], v[~right][None]
        out[is_chinese(q)].append(((a > b) + (a == b) / 2).mean())
    return {('zh' if zh else 'en'): float(np.mean(x)) for zh, x in out.items()}


@pytest.mark.parametrize('name', FILES)
def test_rules(name):
    for q, docs in lists(name).items():
        relevant = [d for d, y in docs if answers(name, y)]
        assert 1 <= len(relevant) <= 3 and len(docs) - len(relevant) >= 5, q
        assert max(y for _, y in docs) == 1, q
        assert all(20 <= len(d) <= 600 for d, _ in docs), q
        assert len({is_chinese(d) for d, _ in docs}) == 1 and is_chinese(docs[0][0]) == is_chinese(q), q


@pytest.mark.parametrize('name', FILES)
def test_enough_in_both_languages(name):
    queries = list(lists(name))
    share = sum(map(is_chinese, queries)) / len(queries)
    assert len(queries) >= LEAST[name.split('_')[1]] and .47 <= share <= .53


@pytest.mark.parametrize('name', FILES)
def test_lengths_vary_in_both_languages(name):
    for zh, long, short in ((True, 120, 30), (False, 300, 75)):
        n = [len(d) for d in documents(name) if is_chinese(d) == zh]
        assert sum(x >= long for x in n) >= 4 and sum(x <= short for x in n) >= 10


@pytest.mark.parametrize('name', FILES)
def test_nearly_every_document_answers_a_query(name):
    right = {d for docs in lists(name).values() for d, y in docs if answers(name, y)}
    assert len(right) >= .8 * len(documents(name))


@pytest.mark.parametrize('name', FILES)
def test_no_length_gives_the_label_away(name):
    for share in ahead(name, lambda q, docs: np.array([len(d) for d in docs])).values(): assert .45 <= share <= .57


@pytest.mark.parametrize('name', FILES)
def test_words_alone_fail_and_do_not_give_the_label_away(name):
    "BM25 is near chance (a random order has 0.37 to 0.43), and answers do not stand out by sharing no word either."
    ds = dataset(name)
    pairs = [[p.query, p.doc] for p in ds]
    scores, gains, groups = np.array(BM25().score_pairs(pairs)), ds.gains(), ds.pair_groups()
    chinese = np.array([is_chinese(q) for q, _ in pairs])
    for m in (chinese, ~chinese): assert ranking_metrics(scores[m], gains[m], groups[m])['ndcg@10'] < .5
    of = dict(zip(map(tuple, pairs), scores))
    for share in ahead(name, lambda q, docs: np.array([of[q, d] for d in docs])).values(): assert .5 <= share <= .7


def test_no_query_twice():
    queries = [q for name in FILES for q in lists(name)]
    assert len(set(queries)) == len(queries)


def test_train_and_dev_share_neither_query_nor_document():
    "Nor do they across the formats."
    names = [[n for n in FILES if n.endswith(side)] for side in ('train', 'dev')]
    train, dev = ([x for n in side for x in lists(n).items()] for side in names)
    assert not {q for q, _ in train} & {q for q, _ in dev}
    assert not {d for _, docs in train for d, _ in docs} & {d for _, docs in dev for d, _ in docs}


def grams(text, n): return {text[i:i + n] for i in range(len(text) - n + 1)}


def test_no_near_copies():
    for docs in (docs for name in FILES for docs in lists(name).values()):
        of = [(d, grams(d, 4)) for d, _ in docs]
        for (d, a), (e, b) in combinations(of, 2): assert len(a & b) < .5 * min(len(a), len(b)), (d, e)


def test_no_near_copies_of_train_in_dev():
    train, dev = ({d for n in FILES if n.endswith(side) for d in documents(n)} for side in ('train', 'dev'))
    of = [(d, grams(d, 8)) for d in train]
    for d in dev:
        a = grams(d, 8)
        for e, b in of: assert len(a & b) < .3 * min(len(a), len(b)), (d, e)


@pytest.mark.parametrize('name', FILES)
def test_the_short_file_is_the_beginning_of_the_whole_one(name):
    short, whole = path(name, 'example_data').read_text(encoding='utf-8'), path(name).read_text(encoding='utf-8')
    assert short.endswith('\n') and whole.startswith(short) and len(whole) > 2*len(short)
    assert set(documents(name)) >= {p.doc for p in PairDataset(path(name, 'example_data'))}


# --- parallel.jsonl ---------------------------------------------------------------------------------------------------
SECTIONS = [json.loads(l) for l in (ROOT/'example_data/parallel.jsonl').read_text(encoding='utf-8').splitlines()]
SMALL_WORDS = set('a an and are be by can do does for how i in is it may me my no of on or the to up what when where '
                  'which who you your'.split())


def test_parallel_sections_are_96_of_16_topics():
    assert Counter(Counter(s['topic'] for s in SECTIONS).values()) == {6: 16}
    for s in SECTIONS: assert set(s) == {'topic', 'query', 'doc'} and set(s['query']) == set(s['doc']) == {'en', 'zh'}


@pytest.mark.parametrize('side', ['query', 'doc'])
@pytest.mark.parametrize('language', ['en', 'zh'])
def test_parallel_texts_are_of_their_language_and_stand_once(language, side):
    texts = [s[side][language] for s in SECTIONS]
    assert len({''.join(words(t)) for t in texts}) == len(texts)
    for t in texts:
        assert t == ' '.join(t.split())
        if language == 'en': assert t.isascii(), t
        else: assert len(re.findall('[\u4e00-\u9fff]', t)) > .7 * len(t) and not re.search('[,;!?:]', t), t


def test_parallel_texts_have_25_to_60_words_and_translations_of_their_length():
    for s in SECTIONS:
        n = len(s['doc']['en'].split())
        assert 25 <= n <= 60 and 1 <= len(s['doc']['zh']) / n <= 2, s['query']


@pytest.mark.parametrize('language', ['en', 'zh'])
def test_parallel_headings_are_not_in_their_texts_but_their_words_in_others(language):
    "Each heading has a word that another text of its topic has, and BM25 does not tell the texts of a topic apart."
    bm25, shares = BM25().build([s['doc'][language] for s in SECTIONS]), []
    for i, s in enumerate(SECTIONS):
        query, doc = ''.join(words(s['query'][language])), ''.join(words(s['doc'][language]))
        assert query not in doc, s['query']
        others = [j for j, t in enumerate(SECTIONS) if t['topic'] == s['topic'] and j != i]
        asked = set(words(s['query'][language])) - SMALL_WORDS
        assert any(asked & set(words(SECTIONS[j]['doc'][language])) for j in others), s['query']
        v = np.array(bm25.scores(s['query'][language]))
        shares.append(((v[i] > v[others]) + (v[i] == v[others]) / 2).mean())
    assert .4 <= np.mean(shares) <= .6


def test_parallel_texts_are_in_no_other_file():
    others = {x for n in FILES for q, docs in lists(n).items() for x in [q, *(d for d, _ in docs)]}
    assert not others & {t for s in SECTIONS for side in ('query', 'doc') for t in s[side].values()}
    of = {l: [grams(d, 8) for d in {d for n in FILES for d in documents(n)} if is_chinese(d) == (l == 'zh')]
          for l in ('en', 'zh')}
    for s in SECTIONS:
        for l, d in s['doc'].items():
            a = grams(d, 8)
            assert all(len(a & b) < .3 * min(len(a), len(b)) for b in of[l]), d
