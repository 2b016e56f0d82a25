"How the start begins as a cosine: the algebra of start/apart.py, and the lists of start/near.py."
import random, sys
import numpy as np
import pytest, torch
from helpers import ROOT
sys.path.insert(0, str(ROOT/'start'))
import apart, near


@pytest.fixture
def states():
    "400 states of 16 numbers, correlated, and a sign laid along a direction of them."
    g = torch.Generator().manual_seed(0)
    x = torch.randn(400, 16, generator=g).double() @ torch.randn(16, 16, generator=g).double()
    sign = torch.where(torch.rand(400, generator=g) < .5, 1., -1.).double()
    u, size = apart.quiet(x)
    return x, sign, 3 * size * u


def test_the_sign_lies_where_states_hardly_vary(states):
    x, sign, v = states
    along = (x - x.mean(0)) @ (v / v.norm())
    assert along.std() < .2 * x.std() and abs(v.sum()) < .01 * v.norm()
    w, b, error = apart.readout(x + sign[:, None] * v, sign)
    assert error < .1 and torch.allclose((x + sign[:, None] * v) @ w + b, sign, atol=.5)


def test_a_blind_layer_gives_what_it_gave_without_the_sign(states):
    x, sign, v = states
    linear = torch.nn.Linear(16, 8).double().requires_grad_(False)
    wanted, seen = linear(x), x + sign[:, None] * v
    assert (linear(seen) - wanted).norm() > .2 * wanted.norm()
    apart.make_blind(linear, v, *apart.readout(seen, sign)[:2])
    assert (linear(seen) - wanted).norm() < .05 * wanted.norm()


def test_in_a_head_one_direction_gives_way_to_the_product_of_two_signs(states):
    x, sign, v = states
    seen = x + sign[:, None] * v
    w, b, _ = apart.readout(seen, sign)
    query, key = (torch.nn.Linear(16, 8).double().requires_grad_(False) for _ in range(2))
    q, k = query(seen), key(seen)
    c, a, share = apart.least(q.T @ q / len(q), torch.cov(k.T, correction=0))
    assert share < 1 / 8 and abs(c @ a - 1) < 1e-9
    s = seen @ w + b
    for linear, one, other in ((query, c, a), (key, a, c)): apart.replace(linear, slice(None), one, other, 2 * w, 2 * b)
    wanted = q @ k.T - torch.outer(q @ a, k @ c) + 4 * torch.outer(s, s)
    assert torch.allclose(query(seen) @ key(seen).T, wanted)


def row(**docs): return dict(query=dict.fromkeys(docs, 'title'), doc=docs)


def test_a_document_asks_by_its_first_sentence_if_another_is_left():
    two, one = row(en='Knead it for long. Then let it rest.', zh='先揉很久很久的面团。再放着。'), row(en='Knead it for long.')
    found = near.asked_by_its_beginning(two)
    assert found['query'] == dict(en='Knead it for long', zh='先揉很久很久的面团')
    assert found['doc'] == dict(en='Then let it rest.', zh='再放着。') and two['query']['en'] == 'title'
    assert near.asked_by_its_beginning(one) == one


def test_a_list_begins_with_its_own_document_and_has_no_text_twice():
    rng = random.Random(0)
    rows = [row(**{l: f'{l} {i // 2 if i < 8 else i}' for l in ls}) for ls in ('e', 'z', 'ez') for i in range(200)]
    rows = [{k: {dict(e='en', z='zh')[l]: t for l, t in v.items()} for k, v in r.items()} for r in rows]
    vectors = np.random.default_rng(0).standard_normal((600, 8)).astype('f')
    v = {(l, s): vectors for l in ('en', 'zh') for s in ('query', 'doc')}
    found = list(near.near_lists(rows, v, rng))
    assert len(found) > 500 and {w for _, w, *_ in found} == set(near.WAYS)
    for i, (_, answers), docs, cosines in found:
        texts = [rows[j]['doc'][answers] for j in docs]
        assert len(set(texts)) == near.SIZE and np.allclose(cosines, vectors[docs] @ vectors[i], atol=1e-5)
        if answers in rows[i]['doc']: assert texts[0] == rows[i]['doc'][answers]
