"Evaluation of a search's lists: several processes equal one, a stopped one goes on, bad input is said, mteb runs ours."
import json, sys
from pathlib import Path
import numpy as np, pytest
from helpers import ACCELERATE, as_flags, env, read_jsonl, run, write_jsonl
from rerank_nb import evaluation, parts
from rerank_nb.evaluation import EvaluationConfig, evaluate, evaluate_scores, load_lists
from rerank_nb.files import UserError

EVALUATION = ['-m', 'rerank_nb.evaluation']


@pytest.fixture
def nano(tmp_path):
    "A folder as BEIR has it with a run: 12 queries, six documents each, of which the search missed one."
    rng, folder = np.random.default_rng(0), tmp_path/'nano'
    (folder/'qrels').mkdir(parents=True)
    words = 'fox dog list files 泰山 索道 bread oven score query'.split()
    docs = [dict(_id=f'd {i}', text=' '.join(rng.choice(words, 6))) for i in range(40)]
    write_jsonl(folder/'corpus.jsonl', docs)
    queries = [dict(_id=f'q{i}', text=' '.join(rng.choice(words, 2)), topic='ab'[i % 2]) for i in range(12)]
    write_jsonl(folder/'queries.jsonl', queries)
    lines = dict(run=[], qrels=['query-id\tcorpus-id\tscore'])
    for q in queries:
        found = rng.choice(40, 7, replace=False)
        lines['run'] += [f"{q['_id']}\tQ0\td {d}\t{r}\t{10 - r + rng.random():.3f}\tx" for r, d in enumerate(found[:6])]
        lines['qrels'] += [f"{q['_id']}\td {d}\t{g}" for d, g in zip(found[[1, 4, 5, 6]], (2, 1, 0, 1))]
    (folder/'run.trec').write_text('\n'.join(lines['run']) + '\n')
    (folder/'qrels/test.tsv').write_text('\n'.join(lines['qrels']) + '\n')
    return folder


def everything(folder):
    "All that an evaluation leaves, but for what the clock says."
    files = (p for p in sorted(folder.rglob('*')) if p.is_file() and p.stem != 'depths')
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def test_two_processes_equal_one_exactly(nano, tiny, tmp_path, monkeypatch):
    one, two = tmp_path/'one', tmp_path/'two'
    flags = as_flags(model=tiny['bert'], dataset=nano, max_len=32, cosine=tiny['bert'], mixed_precision='no')
    more = ['import rerank_nb.evaluation as e, sys', 'e.PAIRS_A_PART = 16', 'e.main(sys.argv[1:])', 'e.leave()']
    script = tmp_path/'small_parts.py'
    script.write_text('\n'.join(more))
    p = run(sys.executable, script, *flags, '--output_dir', one, env=env())
    assert p.returncode == 0, p.stdout + p.stderr
    p = run(*ACCELERATE, '--num_processes', '2', '--cpu', script, *flags, '--output_dir', two, env=env())
    assert p.returncode == 0, p.stdout + p.stderr
    assert everything(one) == everything(two) and len(everything(one)) > 15
    assert p.stdout.count('ceiling') == 2   # one process speaks


def test_a_stopped_evaluation_goes_on(nano, tiny, tmp_path, monkeypatch, capsys):
    "The third part fails; the same command does the rest and has what a whole one has."
    kwargs = dict(model=tiny['bert'], dataset=str(nano), max_len=32)
    monkeypatch.setattr(evaluation, 'PAIRS_A_PART', 20)
    whole = evaluate(output_dir=str(tmp_path/'whole'), **kwargs)
    call, seen = evaluation.Jobs.__call__, []
    def broken(self, items):
        seen.append(items)
        if len(seen) == 3: raise KeyboardInterrupt
        return call(self, items)
    monkeypatch.setattr(evaluation.Jobs, '__call__', broken)
    with pytest.raises(KeyboardInterrupt): evaluate(output_dir=str(tmp_path/'cut'), **kwargs)
    again = evaluate(output_dir=str(tmp_path/'cut'), **kwargs)
    assert 'going on: 2 parts of 4 are there' in capsys.readouterr().out
    assert [s.start for s in seen] == [0, 20, 40, 40, 60]
    assert everything(tmp_path/'cut') == everything(tmp_path/'whole')
    assert again['ndcg@10'] == whole['ndcg@10'] and again['ceiling'] < 1


def test_parts_of_other_files_are_not_taken(nano, tiny, tmp_path, monkeypatch):
    kwargs = dict(model=tiny['bert'], dataset=str(nano), max_len=32, output_dir=str(tmp_path/'out'))
    monkeypatch.setattr(evaluation, 'PAIRS_A_PART', 20)
    call = evaluation.Jobs.__call__
    def first_part(self, items):
        if items.start: raise KeyboardInterrupt
        return call(self, items)
    with monkeypatch.context() as m:
        m.setattr(evaluation.Jobs, '__call__', first_part)
        with pytest.raises(KeyboardInterrupt): evaluate(**kwargs)
    qrels = (nano/'qrels/test.tsv').read_text()
    (nano/'qrels/test.tsv').write_text(qrels + 'q1\td 3\t1\n')
    with pytest.raises(UserError, match='test.tsv has changed'): evaluate(**kwargs)


def test_a_reranker_that_knows_the_answers_is_at_the_ceiling(nano):
    ds = load_lists(str(nano))
    perfect = evaluate_scores(ds.gains(), ds)
    assert perfect['recall@10'] == perfect['ceiling'] == pytest.approx(2/3)
    assert .5 < perfect['ndcg@10'] < 1 and perfect['ndcg@10 judged'] == perfect['ndcg@10']
    assert evaluate_scores(ds.first_stage, ds)['ceiling'] == perfect['ceiling']


@pytest.mark.parametrize('name,line,says', [
    ('qrels/test.tsv', 'q77\td 1\t1', "test.tsv:50: query: found 'q77', expected an id of"),
    ('qrels/test.tsv', 'q1\td 99\t1', "test.tsv:50: document: found 'd 99', expected an id of"),
    ('run.trec', 'q1\tQ0\td 99\t9\t1\tx', "run.trec:73: document: found 'd 99', expected an id of"),
    ('run.trec', 'q1\tQ0\td 39\t9\tinf\tx', "run.trec:73: score: found 'inf', expected a finite number")])
def test_bad_input_is_said_with_file_line_and_field(nano, tmp_path, name, line, says):
    with open(nano/name, 'a') as f: f.write(line + '\n')
    with pytest.raises(SystemExit) as e:
        evaluation.main(as_flags(model='no/model', dataset=nano, output_dir=tmp_path/'out'))
    assert says in e.value.code, e.value.code
