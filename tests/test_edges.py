"Numbers at the edge: a clear result or a clear error; the same seed gives the same bits."
import math
import pytest
from helpers import binary_file, command, env, finished, flags, graded_file, records, run, weights, write_jsonl
from rerank_nb import data, trainer
from rerank_nb.data import ListBatches, PairBatches
from rerank_nb.files import UserError
from rerank_nb.model import CrossEncoder
from rerank_nb.tiny import tiny_model
from rerank_nb.train_reranker import parse_args

ONE = [dict(query='list', pos=['the files'], neg=[])]
EQUAL = [dict(query=f'q{i}', pos=[f'doc {i}'], neg=[]) for i in range(8)]


@pytest.fixture
def train(tmp_path):
    "A function that trains on some lines."
    model, many = tiny_model(tmp_path/'tiny', 'bert'), binary_file(tmp_path/'many.jsonl', 10)
    usual = dict(logging_steps=1, save_on_epoch_end=0, max_len=32)
    def go(rows=None, out='out', **kw):
        data = write_jsonl(tmp_path/'t.jsonl', rows) if rows else many
        return trainer.train(parse_args(flags(model, data, tmp_path/out, **usual | kw)))
    return go


def finite(history): return all(math.isfinite(r['loss']) for r in history if 'loss' in r)


def test_a_learning_rate_of_1(train, tmp_path):
    "It ends well or with the step and its lines."
    try: assert finite(train(lr=1))
    except UserError as e: assert 'is not a finite number' in str(e) and '--lr is too high' in str(e)
    else: assert CrossEncoder.from_pretrained(tmp_path/'out/model').compute_score([['a', 'b']]).isfinite().all()


def test_a_learning_rate_that_moves_nothing(train, tmp_path):
    assert finite(train(lr=1e-12, weight_decay=0))
    a, b = (CrossEncoder.from_pretrained(tmp_path/f).compute_score([['a', 'b']]) for f in ('tiny', 'out/model'))
    assert (a - b).abs().max() < 1e-6


@pytest.mark.parametrize('loss_type', ['classfication', 'ce', 'ranknet'])
def test_a_batch_of_1(loss_type, train):
    history = train(batch_size=1, loss_type=loss_type)
    assert finite(history) and history[-1]['step'] > 5


@pytest.mark.parametrize('accumulation', [1, 3])
def test_one_pair(accumulation, train):
    history = train(ONE, gradient_accumulation_steps=accumulation)
    assert finite(history) and history[-1]['step'] == 1


def test_one_query_for_a_list_wise_loss(train):
    history = train([dict(query='q', pos=['a'], neg=['b', 'c'])], loss_type='listnet')
    assert finite(history) and history[-1]['step'] == 1
    with pytest.raises(UserError, match='compares the documents of a query, but no query'):
        train(ONE, 'other', loss_type='ce')


def test_all_labels_equal(train, capsys):
    assert finite(train(EQUAL))
    assert 'there is nothing to tell apart' in capsys.readouterr().out
    for loss_type in ('ce', 'lambda'):
        with pytest.raises(UserError, match='no query'): train(EQUAL, loss_type, loss_type=loss_type)


def test_the_least_max_len(train, tmp_path):
    "Each length is refused with the least one, or trains."
    refused = []
    for n in range(1, 12):
        try: assert finite(train(out=f'out{n}', max_len=n))
        except UserError as e:
            assert f'max_len {n}' in str(e) or 'max_len' in str(e), e
            assert not (tmp_path/f'out{n}').exists()
            refused.append(n)
        else: break
    assert refused == [*range(1, n)] and 1 < n < 10
    model = CrossEncoder.from_pretrained(tmp_path/'tiny')
    with pytest.raises(UserError): model.compute_score([['a', 'b']], max_len=refused[-1])
    assert model.compute_score([['a', 'b']], max_len=n).isfinite().all()


@pytest.mark.parametrize('world', [2, 7])
def test_more_processes_than_pairs(world):
    "Every process has as many batches as the others; the pairs are there once."
    for n in (1, 2):
        shares = [list(PairBatches(n, 4, rank=r, world=world)) for r in range(world)]
        assert {len(s) for s in shares} == {1} and sorted(i for s in shares for b in s for i in b) == [*range(n)]
        shares = [list(ListBatches([0]*n, 4, rank=r, world=world, labels=[1.]*n)) for r in range(world)]
        assert {len(s) for s in shares} == {1} and sorted(i for s in shares for b in s for i in b) == [*range(n)]


def test_more_queries_than_their_numbers_reach(tmp_path, monkeypatch):
    "The limit is 2**31 - 1; here it is 2."
    monkeypatch.setattr(data, 'MOST_QUERIES', 2)
    rows = [dict(query=f'q{i}', pos=['a'], neg=[]) for i in range(3)]
    with pytest.raises(UserError, match='found 3 queries, expected at most 2'):
        data.PairDataset(write_jsonl(tmp_path/'t.jsonl', rows))
    assert len(data.PairDataset(write_jsonl(tmp_path/'t.jsonl', rows[:2]))) == 2


@pytest.mark.slow
def test_two_processes_for_one_pair(tmp_path):
    model, data = tiny_model(tmp_path/'tiny', 'bert'), write_jsonl(tmp_path/'t.jsonl', ONE)
    out = tmp_path/'out'
    p = run(*command(2), *flags(model, data, out, mixed_precision='no', dataloader_num_workers=1), env=env())
    assert [r['step'] for r in finished(p, out)] == [1]


def test_the_same_seed_gives_the_same_bits(train, tmp_path):
    for out, seed in (('a', 7), ('b', 7), ('c', 8)): train(out=out, seed=seed, negatives_per_query=2, batch_size=8)
    a, b, c = (tmp_path/out for out in 'abc')
    assert weights(a) == weights(b) and records(a) == records(b) and weights(a) != weights(c)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_in_two_processes(tmp_path):
    model, data = tiny_model(tmp_path/'tiny', 'bert'), graded_file(tmp_path/'t.tsv', 10)
    usual = dict(loss_type='regression', mixed_precision='no', logging_steps=1, batch_size=4)
    a, b = tmp_path/'a', tmp_path/'b'
    for out in (a, b): finished(run(*command(2), *flags(model, data, out, **usual), env=env()), out)
    assert weights(a) == weights(b) and records(a) == records(b)
