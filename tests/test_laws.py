"Laws and values by hand that small changes of the source would break; found by tests/mutate.py."
import errno, itertools, json, math
import numpy as np, pytest, torch
from safetensors.torch import load_file
from helpers import binary_file, graded_file, read_jsonl, write_jsonl
from rerank_nb import engine, trainer
from rerank_nb.checkpoint import rewind_folder
from rerank_nb.data import DataError, PairBatches, PairDataset, read_label2id, shuffled
from rerank_nb.evaluation import evaluate_scores, load_lists, paired_bootstrap, write_files
from rerank_nb.files import UserError, no_space
from rerank_nb.losses import LOSSES, get_loss
from rerank_nb.mining import choose
from rerank_nb.model import CrossEncoder, head_modules, packed_sdpa
from rerank_nb.records import under_the_start
from rerank_nb.tiny import tiny_model
from rerank_nb.trainer import TrainConfig, make_schedule, open_data, run_settings, train

LOGITS = torch.tensor([.5, -1., 2., 0., .3, -.7, 1.1, .2, -.4])
LABELS = torch.tensor([1., 0., .5, .25, 1., 0., .5, 1., 0.])
GROUPS = torch.tensor([3, 3, 3, 3, 7, 7, 7, 5, 5])   # lists of four, three and two documents, the last in between


@pytest.mark.parametrize('name', sorted(n for n, loss in LOSSES.items() if loss.per == 'query'))
def test_a_list_costs_the_same_beside_longer_ones(name):
    together = get_loss(name)(LOGITS, LABELS, GROUPS)
    alone = [get_loss(name)(LOGITS[m], LABELS[m], GROUPS[m]) for m in (GROUPS == g for g in (3, 5, 7))]
    assert torch.allclose(together, torch.cat(alone), atol=1e-6)


def scored_file(path, score, n=40):
    "Binary lines with a teacher's scores: `score(query, doc, relevant)`."
    rows = read_jsonl(binary_file(path, n=n))
    def taught(r): return {f'{k}_scores': [score(r['query'], d, k == 'pos') for d in r[k]] for k in ('pos', 'neg')}
    return write_jsonl(path, [r | taught(r) for r in rows])


@pytest.mark.parametrize('name', sorted(n for n, loss in LOSSES.items() if 'scored' in loss.reads))
def test_a_pupil_that_learns_nothing_of_a_teacher_is_warned_of(name, tmp_path, capsys):
    score = lambda query, doc, relevant: 8. * relevant - len(doc) % 3
    lessons = scored_file(tmp_path/'scored.jsonl', score)
    dev = binary_file(tmp_path/'dev.jsonl', n=10, seed=1)
    model = CrossEncoder.from_pretrained(tiny_model(tmp_path/'tiny', 'bert'))
    for module in head_modules(model.model):
        for p in module.parameters(): p.data.zero_()   # all pairs have one score
    start = model.save_pretrained(tmp_path/'even')
    history = train(TrainConfig(start, [lessons], str(tmp_path/'run'), loss_type=name, eval_dataset=[dev], lr=1e-12,
                                epochs=10, batch_size=16, logging_steps=1, max_len=32))
    said = capsys.readouterr().out
    assert 'nothing is being learned' in said
    assert "a teacher's scores (pos_scores, neg_scores) for labels" in said
    assert all(math.isfinite(v) for r in history for v in r.values())


@pytest.mark.parametrize('name', ['margin_mse', 'kl', 'logit_mse'])
def test_a_teacher_that_left_a_document_out_is_named(name, tmp_path):
    rows = read_jsonl(scored_file(tmp_path/'scored.jsonl', lambda query, doc, relevant: 1. * relevant))
    rows[2]['neg_scores'][1] = None
    path = write_jsonl(tmp_path/'scored.jsonl', rows)
    with pytest.raises(DataError, match=r'scored.jsonl:3: neg_scores\[1\]: found null, expected a finite number'):
        open_data(TrainConfig('m', [path], str(tmp_path/'run'), loss_type=name))


@pytest.mark.parametrize('name,learned_from', [('listnet', 'scored'), ('ranknet', 'scored'), ('ce', 'binary')])
def test_labels_judge_whatever_was_learned_from(name, learned_from, tmp_path):
    path = scored_file(tmp_path/'scored.jsonl', lambda query, doc, relevant: -3. * relevant)
    ds, dev = open_data(TrainConfig('m', [path], str(tmp_path/'run'), loss_type=name, eval_dataset=[path]))
    assert (ds.data_format, dev.data_format) == (learned_from, 'binary')


def lambda_by_hand(x, y, mu=10.):
    "NDCG-Loss2++ of one list, pair by pair, as Wang et al. 2018 write it."
    place = {i: r for r, i in enumerate(sorted(range(len(x)), key=lambda i: -x[i]), 1)}
    def D(r): return math.log2(1 + r)
    gain = [2**t - 1 for t in y]
    ideal = sum(g / D(r) for r, g in enumerate(sorted(gain, reverse=True), 1))
    total, n = 0., 0
    for i, j in itertools.permutations(range(len(x)), 2):
        if y[i] <= y[j]: continue
        gap = abs(place[i] - place[j])
        near, far = abs(1 / D(gap) - 1 / D(gap + 1)), abs(1 / D(place[i]) - 1 / D(place[j]))
        total += (gain[i] - gain[j]) / ideal * (mu * near + far) * math.log2(1 + math.exp(x[j] - x[i]))
        n += 1
    return total / n


def test_lambda_is_that_of_the_paper_for_grades():
    for g in (3, 5, 7):
        x, y = LOGITS[GROUPS == g], LABELS[GROUPS == g]
        got = get_loss('lambda')(x, y, torch.zeros(len(x), dtype=torch.long)).item()
        assert got == pytest.approx(lambda_by_hand(x.tolist(), y.tolist()), rel=1e-5)


def test_the_order_depends_on_seed_and_epoch():
    orders = {(s, e): tuple(shuffled(np.arange(50), 50, s, e)) for s in (0, 1, 2) for e in (0, 1)}
    assert len(set(orders.values())) == 6 and all(sorted(o) == list(range(50)) for o in orders.values())


@pytest.mark.parametrize('value', [-.5, 1.5, 'NaN'])
def test_a_target_outside_0_and_1_is_refused(value):
    with pytest.raises(UserError, match='between 0 and 1'): read_label2id(f'{{"1": {value}, "0": 0}}')


def test_twenty_problems_are_shown_in_full(tmp_path):
    path = tmp_path/'bad.jsonl'
    path.write_text('{"query": "q", "pos": "abc", "neg": []}\n' * 23)
    with pytest.raises(DataError) as e: PairDataset(path, 'binary')
    said = str(e.value)
    assert said.count('expected a list of texts') == 20 and f'{path}:20:' in said and '... and 3 more' in said


def test_a_machine_with_one_gpu_takes_one_process(monkeypatch):
    monkeypatch.delenv('ACCELERATE_USE_CPU', raising=False)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    engine.forget_accelerator()
    engine.preflight(1)
    with pytest.raises(UserError, match='this machine has 1 GPU:'): engine.preflight(2)


def test_a_full_quota_is_a_full_disk():
    assert all(no_space(OSError(n, 'so it is')) for n in (errno.ENOSPC, errno.EDQUOT))
    assert not no_space(OSError(errno.EACCES, 'permission denied'))


def test_each_step_has_a_seed_of_its_own(tiny, tmp_path, monkeypatch):
    asked, seed_step = [], trainer.seed_step
    monkeypatch.setattr(trainer, 'seed_step', lambda *key: (asked.append(key), seed_step(*key)))
    data = binary_file(tmp_path/'t.jsonl', 8)
    train(TrainConfig(tiny['bert'], data, str(tmp_path/'out'), batch_size=16, epochs=2, seed=7, max_len=32))
    assert asked == [(7, step, 0) for step in range(len(asked))] and len(asked) == 6


def test_a_fresh_head_follows_from_the_seed(tmp_path):
    base, data = tiny_model(tmp_path/'base', 'bert', head=False), binary_file(tmp_path/'t.jsonl', 4)
    def head(name, seed):
        train(TrainConfig(base, data, str(tmp_path/name), lr=1e-12, epochs=1, seed=seed, max_len=32))
        return load_file(tmp_path/name/'model/model.safetensors')['classifier.weight']
    a, b, c = head('a', 1), head('b', 2), head('c', 1)
    assert torch.allclose(a, c, atol=1e-9) and (a - b).abs().max() > 1e-3


def test_a_run_goes_on_only_with_the_settings_that_decide_its_mathematics(tmp_path):
    ds = PairDataset(binary_file(tmp_path/'t.jsonl', 4), 'binary')
    def settings(**kw): return run_settings(TrainConfig('model', ds.paths, 'out', **kw), ds, PairBatches(len(ds), 8))
    changes = dict(lr=1e-3, weight_decay=.5, max_grad_norm=2., max_len=64, seed=1, epochs=7, warmup_proportion=.5,
                   negatives_per_query=1, loss_type='regression')
    for k, v in changes.items(): assert settings() != settings(**{k: v}), k
    assert settings() == settings(logging_steps=3, num_max_checkpoints=1)


def test_attention_takes_the_scale_it_is_given():
    q, k, v = torch.randn(3, 1, 2, 9, 8, generator=torch.Generator().manual_seed(0)).unbind()
    for scale in (None, .3):
        whole = packed_sdpa(q, k, v, [4, 4, 1], scale=scale)
        for s in (slice(0, 4), slice(4, 8), slice(8, 9)):
            a, b, c = (x[:, :, s] for x in (q, k, v))
            alone = (a @ b.mT * (scale or 8**-.5)).softmax(-1) @ c
            assert torch.allclose(whole[:, s], alone.transpose(1, 2), atol=1e-6)


def test_the_learning_rate_rises_in_a_line_and_falls_in_half_a_cosine():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.)
    schedule, rates = make_schedule(optimizer, 10, .4), []
    for _ in range(11):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0, .25, .5, .75] + [(1 + math.cos(math.pi * i / 6)) / 2 for i in range(7)])


def test_only_an_evaluation_below_the_start_is_warned_of():
    def said(*values): return under_the_start([{'step': i, 'eval_ndcg@10': v} for i, v in enumerate(values)])
    assert said(.6, .59) and not said(.6, .6) and not said(.6, .597) and not said(.6, .604) and not said(.6)


def test_the_lowest_grade_has_no_share_of_a_list(tmp_path):
    data = graded_file(tmp_path/'t.tsv', 4)
    def targets(loss): return {p.label for p in open_data(TrainConfig('m', data, 'out', loss_type=loss))[0]}
    assert targets('ce') == {0., .25, .5, .75} and targets('regression') == {.25, .5, .75, 1.}


def test_the_checkpoint_of_a_run_stays_where_it_is(tmp_path):
    for n in (4, 8, 12):
        (tmp_path/f'checkpoint_{n}').mkdir()
        (tmp_path/f'checkpoint_{n}/state.json').touch()
    rewind_folder(tmp_path, dict(step=8, history=[dict(step=8, loss=.5)]))
    assert {p.name for p in tmp_path.glob('checkpoint_*')} == {'checkpoint_4', 'checkpoint_8', 'checkpoint_12.aside'}
    assert json.loads((tmp_path/'metrics.jsonl').read_text()) == dict(step=8, loss=.5)


def test_as_many_first_hits_are_skipped_as_was_said():
    hits = [f'document {i}' for i in 'abcdefg']
    assert choose(hits, ['right'], [], 3, skip_top=2)[0] == hits[2:5]
    assert choose(hits, ['right'], [], 3)[0] == hits[:3]
    assert choose(hits, [hits[1]], [hits[2]], 2)[0] == [hits[0], hits[3]]


def test_an_interval_leaves_out_queries_without_a_value():
    nan = float('nan')
    mean, lo, hi = paired_bootstrap([0., nan, .2, .4], [.5, .3, nan, .9])
    assert mean == pytest.approx(.5) and lo == pytest.approx(.5) and hi == pytest.approx(.5)
    assert all(map(math.isnan, paired_bootstrap([nan], [1.])))


def test_a_run_file_says_the_scores_and_breaks_ties_against_the_model(tmp_path):
    ds = load_lists(binary_file(tmp_path/'d.jsonl', 6))
    scores = np.round(np.linspace(3., -3., len(ds)), 0)   # with ties
    write_files(tmp_path/'out', ds, scores, evaluate_scores(scores, ds))
    runs = {}
    for line in (tmp_path/'out/run.trec').read_text().splitlines():
        q, _, d, rank, score, _ = line.split()
        runs.setdefault(q, []).append((int(rank), np.float32(score), d))
    judged = [line.split() for line in (tmp_path/'out/qrels.trec').read_text().splitlines()]
    relevant = {(q, d) for q, _, d, gain in judged if gain == '1'}
    assert len(runs) == 6
    for q, rows in runs.items():
        ranks, values, docs = zip(*rows)
        assert list(ranks) == list(range(1, len(rows) + 1)) and all(a > b for a, b in zip(values, values[1:]))
        whole = [round(float(v)) for v in values]
        assert all(abs(v - w) < 1e-4 for v, w in zip(values, whole)) and whole == sorted(whole, reverse=True)
        assert set(whole) <= set(range(-3, 4))
        for w in set(whole):   # among equals the relevant one is last
            equal = [(q, d) in relevant for d, x in zip(docs, whole) if x == w]
            assert equal == sorted(equal)
