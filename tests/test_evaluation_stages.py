"Evaluation of a search's lists: several processes equal one, a stopped one goes on, bad input is said, mteb runs ours."
import sys
import numpy as np, pytest
from helpers import ACCELERATE, as_flags, env, quiet, run, write_jsonl
from rerank_nb import evaluation
from rerank_nb.evaluation import evaluate, evaluate_scores, load_lists
from rerank_nb.files import UserError


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
    more = ['import os, rerank_nb.evaluation as e, sys', 'e.PAIRS_A_PART = 16', 'e.main(sys.argv[1:])',
            'ranks = [os.environ.get(k) for k in ("RANK", "WORLD_SIZE")]',
            'if ranks[0]: open(f"{sys.argv[-1]}/ran_{ranks[0]}", "w").write(ranks[1])', 'e.leave()']
    script = tmp_path/'small_parts.py'
    script.write_text('\n'.join(more))
    p = run(sys.executable, script, *flags, '--output_dir', one, env=env())
    assert p.returncode == 0, p.stdout + p.stderr
    p = run(*ACCELERATE, '--config_file', 'config/cpu_fsdp.yaml', script, *flags, '--output_dir', two, env=env())
    assert p.returncode == 0, p.stdout + p.stderr
    assert {(two/f'ran_{rank}').read_text() for rank in (0, 1)} == {'2'}
    for rank in (0, 1): (two/f'ran_{rank}').unlink()
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


def test_a_run_watches_the_search_and_says_whether_it_beats_it(nano, tiny, tmp_path, capsys):
    "Trained on nothing but noise, the model stays under a search that is made to be perfect."
    from rerank_nb.trainer import TrainConfig
    lines = [l.split('\t') for l in (nano/'run.trec').read_text().splitlines()]
    labels = [l.split('\t') for l in (nano/'qrels/test.tsv').read_text().splitlines()[1:]]
    good = {(q, d): int(gain) for q, d, gain in labels}
    run_of = [f'{q}\tQ0\t{d}\t1\t{good.get((q, d), -1)}.{r}\tx' for q, _, d, r, *_ in lines]
    (nano/'run.trec').write_text('\n'.join(run_of) + '\n')
    data = write_jsonl(tmp_path/'t.jsonl', [dict(query='fox', pos=['dog'], neg=['list', 'files'])] * 4)
    c = TrainConfig(tiny['bert'], data, tmp_path/'run', eval_dataset=str(nano), batch_size=8, epochs=6, max_len=32,
                    lr=1e-9, metric_for_best_model='ndcg@10', early_stopping_patience=1, save_on_epoch_end=False)
    history = quiet(c)
    said = capsys.readouterr().out
    evals = [r for r in history if 'eval_ndcg@10' in r]
    assert 'stopped early' in said and len(evals) < 6
    first = evaluate_scores(load_lists(str(nano)).first_stage, load_lists(str(nano)))['ndcg@10']
    assert f'first stage: NDCG@10 {first:.4f}' in said and 'the model stays under the first stage' in said
    ours = evaluate(str(tmp_path/'run/best'), str(nano), str(tmp_path/'out'), max_len=32)
    assert ours['ndcg@10'] == pytest.approx(evals[1]['eval_ndcg@10'], abs=1e-6)


def mteb_task(ds):
    "Our lists as a reranking task of mteb, which asks no hub."
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata
    lists, good, docs = {}, {}, {}
    for p, doc, gain in zip(ds, ds.trec_ids(), ds.gains()):
        query = ds.query_ids[p.group]
        lists.setdefault(query, []).append(doc)
        good.setdefault(query, {})[doc] = int(gain)
        docs[doc] = p.doc
    about = dict(name='OurLists', description='Lists of a test.', type='Reranking', main_score='ndcg_at_10')
    about |= dict(category='t2t', eval_langs=['eng-Latn'], eval_splits=['test'])
    about |= dict(dataset=dict(path='none', revision='1'))
    queries = [dict(id=q, text=ds.query_text(ds.query_ids.index(q))) for q in lists]
    split = dict(queries=Dataset.from_list(queries), relevant_docs=good, top_ranked=lists,
                 corpus=Dataset.from_list([dict(id=d, text=t, title='') for d, t in docs.items()]))

    class OurLists(AbsTaskRetrieval):
        metadata = TaskMetadata(**about)
        def load_data(self, *args, **kwargs): self.dataset, self.data_loaded = {'default': {'test': split}}, True
    return OurLists()


@pytest.mark.slow
def test_a_saved_folder_runs_in_mteb(nano, tiny):
    "A reranking task of ours, run by mteb with sentence-transformers, has the figures that we have."
    import mteb
    from sentence_transformers import CrossEncoder
    ds = load_lists(str(nano))
    result = mteb.evaluate(CrossEncoder(tiny['bert'], device='cpu', max_length=32), mteb_task(ds), cache=None)
    theirs = result.task_results[0].scores['test'][0]
    ds.missed = None   # mteb knows of no document that is not in the list
    ours = evaluate_scores(evaluation.score_file(tiny['bert'], ds, max_len=32, device='cpu'), ds)
    for name, value in (('ndcg@10', 'ndcg_at_10'), ('map', 'map_at_1000'), ('recall@10', 'recall_at_10')):
        assert ours[name] == pytest.approx(theirs[value], abs=2e-5), name   # which mteb rounds
