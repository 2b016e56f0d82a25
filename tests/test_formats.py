"""Files of other projects: read as they are, written, and converted there and back; bad lines; what is packed.

The lines look as those projects' own examples do.
"""
import gzip, json, os, sys
from pathlib import Path
import pytest
from helpers import ROOT, read_jsonl, run, write_jsonl
from rerank_nb.convert import TARGETS, ConvertConfig, convert
from rerank_nb.data import DataError, PairDataset, open_pairs
from rerank_nb.files import UserError
from rerank_nb.formats import LAYOUTS, formats_table, layout_of

def ASSISTANT(text): return dict(role='assistant', content=text)
def USER(text): return dict(role='user', content=text)
SYSTEM = dict(role='system', content='Judge whether the document answers the query.')
CHARGE, DUST, SCREEN = '手机充不进电怎么办', '先清理充电口里的灰尘，再换一根线试试。', '充电时屏幕会显示电量。'
LIST, LS, RM = 'how do I list files', 'Use ls; ls -a shows hidden ones.', 'rm removes files: "careful"\n'


def passage(key, text, title=''): return dict(docid=key, title=title, text=text)


THEIRS = dict(   # format -> lines
    flagembedding=[
        dict(query=CHARGE, pos=[DUST], neg=[SCREEN], pos_scores=[96.6875], neg_scores=[90.5625], type='normal',
             prompt="Given a query A and a passage B, determine whether the passage contains an answer to the query."),
        dict(query=LIST, pos=[LS], neg=[RM], pos_scores=[9], neg_scores=[-2.5], prompt='', type='normal')],
    rerank_nb=[dict(query=CHARGE, pos=[DUST], neg=[SCREEN]),
               dict(query=LIST, pos=[LS, 'dir'], neg=[RM], source={'u': 1})],
    rag_retrieval=[
        dict(query=CHARGE, content=DUST, label=1), dict(query=CHARGE, content=SCREEN, label=0),
        dict(query=LIST, content=LS, label=1, id=7), dict(query=LIST, content=RM, label=0, id=8)],
    rag_retrieval_grouped=[
        dict(query=CHARGE, hits=[dict(content=SCREEN, label=0), dict(content=DUST, label=1)]),
        dict(query=LIST, hits=[dict(content=LS, label=1, listwise_score=4.5), dict(content=RM, label=0)])],
    rag_retrieval_scores=[dict(query=CHARGE, pos=[DUST, SCREEN], scores=[1., 0.]),
                          dict(query=LIST, pos=[RM, LS], scores=[0, 1])],
    tevatron=[
        dict(query_id='3', query=CHARGE, positive_passages=[passage('11', DUST, '充电')],
             negative_passages=[passage('12', SCREEN)]),
        dict(query_id='4', query=LIST, answers=['ls'], positive_passages=[passage('13', LS)],
             negative_passages=[passage('14', RM), passage('15', DUST)])],
    swift=[
        dict(messages=[USER(CHARGE)], positive_messages=[[ASSISTANT(DUST)]], negative_messages=[[ASSISTANT(SCREEN)]]),
        dict(messages=[SYSTEM, USER(LIST)], positive_messages=[[ASSISTANT(LS)]],
             negative_messages=[[SYSTEM, ASSISTANT(RM)], [ASSISTANT(DUST)]])],
    swift_responses=[dict(query=CHARGE, response=DUST, rejected_response=[SCREEN]),
                     dict(query=LIST, response=LS, rejected_response=[RM, DUST])],
    st_triplets=[dict(anchor=CHARGE, positive=DUST, negative=SCREEN),
                 dict(anchor=LIST, positive=LS, negative_1=RM, negative_2=DUST)],
    st_lists=[dict(query=CHARGE, docs=[SCREEN, DUST], labels=[0, 1]), dict(query=LIST, docs=[LS, RM], labels=[1, 0])],
    st_labelled=[dict(sentence1=CHARGE, sentence2=DUST, label=1), dict(sentence1=LIST, sentence2=RM, label=0)],
    st_pairs=[dict(question=CHARGE, answer=DUST), dict(question=LIST, answer=LS)])
NUMBERS = [name for name, layout in LAYOUTS.items() if layout.numbers]


def pairs(path, **kw): return sorted(p[:3] for p in PairDataset(path, **kw))
def to(name, dataset, out, **kw): return convert(ConvertConfig(str(dataset), name, str(out), **kw))


@pytest.fixture
def theirs(tmp_path):
    return {name: write_jsonl(tmp_path/f'{name}.jsonl', rows) for name, rows in THEIRS.items()}


# ---------- reading ----------

def test_each_format_is_known_by_its_first_line():
    assert set(THEIRS) == set(LAYOUTS)
    for name, rows in THEIRS.items(): assert [layout_of(r) for r in rows] == [name]*len(rows)


@pytest.mark.parametrize('name', LAYOUTS)
def test_their_lines_are_read_as_pairs(name, theirs):
    found = pairs(theirs[name])
    dust = '充电\n' + DUST if name == 'tevatron' else DUST   # a title stands in front
    assert (CHARGE, dust, 1.) in found
    if name not in ('st_pairs', 'st_labelled'): assert {(CHARGE, SCREEN, 0.), (LIST, RM, 0.)} <= {*found}
    ds = open_pairs(theirs[name])   # as scoring, mining and evaluation do
    assert sorted(p[:3] for p in ds) == found
    assert ds.gains().tolist() == [int(p.label) for p in ds]
    whose = dict(ds.index.stats['layouts'])
    assert whose == {'' if name == 'rerank_nb' else name: len(THEIRS[name])}


@pytest.mark.parametrize('name', NUMBERS)
def test_labels_have_a_range(name, theirs, tmp_path):
    text = Path(theirs[name]).read_text(encoding='utf-8')
    graded = tmp_path/'graded.jsonl'
    graded.write_text(text.replace('"label": 1', '"label": 3').replace('[1, 0]', '[3, 0]').replace('[0, 1]', '[0, 3]')
                      .replace('[1.0, 0.0]', '[3.0, 0.0]'), encoding='utf-8')
    with pytest.raises(DataError, match='label: found a number 3, expected a number from 0 to 1, which min_label and'):
        PairDataset(graded)
    ds = PairDataset(graded, max_label=3)
    assert sorted(p[:3] for p in ds) == pairs(theirs[name])
    assert {*ds.gains().tolist()} == {0, 3}   # what a file for other tools says
    half = PairDataset(graded, max_label=6)
    assert {p.label for p in half} == {0., .5}
    with pytest.raises(DataError, match='label: found a number 3, expected 0 or 6: relevant or not'):
        PairDataset(graded, 'binary', max_label=6)
    assert {p.label for p in PairDataset(graded, 'scored')} == {0., 3.}   # as they are, for margin_mse


def test_the_report_names_format_and_keys(theirs):
    from rerank_nb.data import describe
    from rerank_nb.tiny import tiny_tokenizer
    report = str(describe(PairDataset(theirs['flagembedding']), tiny_tokenizer('bert')))
    assert 'FlagEmbedding (2 lines)' in report and 'type (2 lines), prompt (2 lines)' in report
    plain = str(describe(PairDataset(theirs['rag_retrieval_grouped']), tiny_tokenizer('bert')))
    assert 'RAG-Retrieval, a query a line (2 lines)' in plain


@pytest.mark.parametrize('name,bad,says', [
    ('rag_retrieval', dict(content=' '), 'content: found an empty text, expected some text'),
    ('rag_retrieval', dict(label='1'), 'label: found a text "1", expected a finite number'),
    ('rag_retrieval_grouped', dict(hits='abc'), 'hits: found a text "abc", expected a list'),
    ('rag_retrieval_grouped', dict(hits=[dict(content='a')]), 'hits[0].label: found no such key'),
    ('rag_retrieval_grouped', dict(pos_labels=[3]), 'pos_labels: found a list [3], expected no such key: labels of'),
    ('rag_retrieval_grouped', dict(hits=[dict(label=1)]), 'hits[0].content: found no such key, expected a text'),
    ('rag_retrieval_scores', dict(scores=[1]), 'scores: found a list [1], expected a list of 2 values'),
    ('tevatron', dict(positive_passages=[dict(docid='1')]), 'positive_passages[0].text: found no such key'),
    ('swift', dict(messages=[]), 'messages: found a list [], expected a message with the role user'),
    ('swift', dict(positive_messages=[USER('a')]), 'positive_messages[0]: found an object'),
    ('st_triplets', dict(positive=None), 'positive: found null, expected a text'),
    ('st_lists', dict(labels=[1, None]), 'labels[1]: found null, expected a finite number'),
    ('st_pairs', dict(question=3), 'question: found a number 3, expected a text'),
    ('flagembedding', dict(pos='abc'), 'pos: found a text "abc", expected a list of texts')])
def test_bad_lines_are_named_all_at_once(name, bad, says, tmp_path):
    good = THEIRS[name][0]
    path = write_jsonl(tmp_path/'bad.jsonl', [good, good | bad, good, good | bad])
    for call in (lambda: PairDataset(path), lambda: to('rerank_nb', path, tmp_path/'out.jsonl')):
        with pytest.raises(DataError) as e: call()
        lines = str(e.value).splitlines()
        assert [l.startswith(f'{path}:{n}: {says}') for n, l in zip((2, 4), lines)] == [True, True], lines
        assert lines[2].startswith('bad lines: 2')
    assert not (tmp_path/'out.jsonl').exists()


@pytest.mark.parametrize('text,says', [
    ('{"_id": "d1", "title": "", "text": "a"}', 'texts with ids, as in a BEIR folder: python -m rerank_nb.convert'),
    ('q1 0 d1 1', 'TREC qrels: python -m rerank_nb.convert with --queries and --corpus'),
    ('1185869\t1185868\t597651', "triples by id, as MS MARCO's"),
    ('query-id\tcorpus-id\tscore', 'judgements of a BEIR folder'),
    ('{"frage": "q", "antwort": "a"}', 'JSON lines with the keys frage, antwort, expected query, pos and neg, or'),
    ('{"messages": []}', 'JSON lines with the keys messages, expected query, pos and neg, or'),
    ('q1 Q0 d1 1 14.9 bm25', 'a TREC run, which has ranks and no texts'),
    ('text_a,text_b,y', 'text without a tab ("text_a,text_b,y"), expected JSON lines, query<TAB>doc<TAB>label, or')])
def test_one_sentence_about_a_file_that_is_no_list_of_pairs(text, says, tmp_path):
    from rerank_nb.trainer import TrainConfig, open_data
    path = tmp_path/'other'
    path.write_text(f'{text}\n'*500, encoding='utf-8')
    for loss in ('classfication', 'regression'):
        config = TrainConfig('m', [str(path)], str(tmp_path/'o'), loss_type=loss)
        with pytest.raises(DataError) as e: open_data(config)
        assert str(e.value).startswith(f'{path}: format: found {says}') and '\n' not in str(e.value)
        assert '--loss_type' not in str(e.value)


# ---------- there and back ----------

def can_hold(name, rows):
    "What a format can hold of pairs: some need both kinds of documents, one has no place for irrelevant ones."
    return [p for p in rows if p[2] or not TARGETS[name].drops]


@pytest.mark.parametrize('name', TARGETS)
@pytest.mark.parametrize('start', ['rerank_nb', 'tevatron', 'rag_retrieval_grouped'])
def test_there_and_back_the_pairs_and_labels_are_the_same(start, name, theirs, tmp_path):
    there, back = tmp_path/f'there_{name}', tmp_path/'back.jsonl'
    to(name, theirs[start], there)
    extra = {}
    if name == 'trec': extra = dict(queries=str(there/'queries.jsonl'), corpus=str(there/'corpus.jsonl'))
    if name == 'msmarco': extra = dict(queries=str(there/'queries.tsv'), corpus=str(there/'collection.tsv'))
    read = there/dict(trec='qrels.txt', msmarco='triples.tsv').get(name, '')
    to('rerank_nb', read, back, **extra)
    expected = can_hold(name, pairs(theirs[start]))
    one_line = lambda rows: sorted((q, ' '.join(d.split()), y) for q, d, y in rows)
    same = one_line if TARGETS[name].flat else sorted
    assert same({*pairs(back)}) == same({*expected})
    if not there.is_dir() and name != 'graded': assert {*pairs(there)} == {*expected}   # and read as it is


GRADES = ['rerank_nb', 'rag_retrieval', 'rag_retrieval_grouped', 'st_lists', 'st_labelled', 'beir', 'trec']


@pytest.mark.parametrize('name', GRADES)
def test_grades_go_there_and_back(name, tmp_path):
    rows = [dict(query=CHARGE, hits=[dict(content=DUST, label=3), dict(content=SCREEN, label=0)]),
            dict(query=LIST, hits=[dict(content=LS, label=2), dict(content='dir', label=1)])]
    path, there, back = write_jsonl(tmp_path/'graded.jsonl', rows), tmp_path/'there', tmp_path/'back.jsonl'
    assert 'not kept' not in to(name, path, there, max_label=3)
    extra = dict(queries=str(there/'queries.jsonl'), corpus=str(there/'corpus.jsonl')) if name == 'trec' else {}
    to('rag_retrieval_grouped', there/'qrels.txt' if name == 'trec' else there, back, max_label=3, **extra)
    assert pairs(back, max_label=3) == pairs(path, max_label=3)
    assert {y for *_, y in pairs(back, max_label=3)} == {1., 2/3, 1/3, 0.}


def test_a_document_without_a_label_never_becomes_a_relevant_one(tmp_path):
    from rerank_nb.mining import with_negatives
    hits = [dict(content=DUST, label=2), dict(content='线', label=1), dict(content=SCREEN, label=0)]
    path = write_jsonl(tmp_path/'hits.jsonl', [dict(query=CHARGE, hits=hits)])
    to('rerank_nb', path, tmp_path/'ours.jsonl', max_label=2)
    ds = open_pairs(tmp_path/'ours.jsonl')
    mined = write_jsonl(tmp_path/'mined.jsonl', [json.loads(with_negatives(ds.example(0), [LS]))])
    for name in ('rag_retrieval', 'rag_retrieval_grouped', 'st_lists', 'st_labelled', 'graded', 'beir', 'trec'):
        with pytest.raises(DataError, match=rf'mined.jsonl:1: labels: found null beside the document .{LS[:9]}'):
            to(name, mined, tmp_path/'out', max_label=2)
        assert not (tmp_path/'out').exists()
    lost = write_jsonl(tmp_path/'lost.jsonl', [dict(query='q', content='a', label=0), dict(query='q', content='b')])
    for call in (lambda: PairDataset(lost), lambda: to('rerank_nb', lost, tmp_path/'out')):
        with pytest.raises(DataError, match='lost.jsonl:2: label: found no number, expected label'): call()


def test_what_a_number_puts_on_another_side_is_said(tmp_path):
    rows = [dict(query='q', pos=['a'], neg=['b', 'c'], pos_scores=[.1], neg_scores=[.9, -1])]
    said = to('st_lists', write_jsonl(tmp_path/'a.jsonl', rows), tmp_path/'lists.jsonl')
    for k in ('relevant', 'irrelevant'): assert f'changes side: 1 documents are read as {k}, for' in said
    assert 'changes side' not in to('tevatron', tmp_path/'a.jsonl', tmp_path/'t.jsonl')
    mixed = write_jsonl(tmp_path/'m.jsonl', [dict(query='q', pos=['a'], neg=['b'], pos_labels=[2], neg_labels=[0]),
                                             dict(query='r', pos=['c'], neg=[])])
    with pytest.raises(DataError, match='only pos and neg beside labels up to 2, expected --max_label'):
        to('rag_retrieval', mixed, tmp_path/'out')
    to('rag_retrieval', mixed, tmp_path/'out', max_label=2)
    assert pairs(tmp_path/'out', max_label=2) == [('q', 'a', 1.), ('q', 'b', 0.), ('r', 'c', 1.)]


def test_relevant_or_not_becomes_the_highest_grade_or_the_lowest(theirs, tmp_path):
    said = to('graded', theirs['rerank_nb'], tmp_path/'g.tsv')
    assert 'grade 3 is relevant, grade 0 is not (2 lines)' in said
    assert {p.label for p in PairDataset(tmp_path/'g.tsv')} == {1., .25}
    rows = [dict(query='q', pos=['a'], neg=['b'], pos_labels=[2], neg_labels=[0]),
            dict(query='r', pos=['a'], neg=['b'], pos_labels=[1], neg_labels=[0])]
    grades = write_jsonl(tmp_path/'two.jsonl', rows)
    with pytest.raises(DataError, match='two.jsonl:1: label: found a number 2, expected a grade: a whole number'):
        to('graded', grades, tmp_path/'two.tsv')
    said = to('graded', grades, tmp_path/'two.tsv', max_label=2)
    label2id = json.loads(said.split("--label2id '")[1].split("'")[0])
    assert [y for *_, y in pairs(tmp_path/'two.tsv', label2id=label2id)] == [1., 0., .5, 0.]
    to('rerank_nb', tmp_path/'g.tsv', tmp_path/'back.jsonl')
    assert read_jsonl(tmp_path/'back.jsonl')[0]['pos_labels'] == [3]


def test_other_keys_take_no_documents_place(tmp_path):
    row = dict(query='q1', pos=['a'], neg=['b', 'c'], content='zz', label=5, hits=['x'], scores=[1], response='y',
               messages=[], positive='p', documents=['d'], positive_passages=[])
    path = write_jsonl(tmp_path/'keys.jsonl', [row])
    for name, layout in LAYOUTS.items():
        said = to(name, path, tmp_path/'out')
        assert {d for _, d, _ in pairs(tmp_path/'out')} == ({'a'} if layout.drops else {'a', 'b', 'c'}), name
    assert 'not kept: content (1 lines)' in to('rag_retrieval', path, tmp_path/'out')


def test_what_has_no_place_is_named_with_its_lines(theirs, tmp_path):
    said = to('st_pairs', theirs['flagembedding'], tmp_path/'pairs.jsonl')
    for k in ('prompt', 'type', 'scores', 'irrelevant documents'): assert f'not kept: {k} (2 lines)' in said
    assert 'not kept' not in to('rag_retrieval_grouped', theirs['flagembedding'], tmp_path/'hits.jsonl')
    hit = read_jsonl(tmp_path/'hits.jsonl')[0]['hits'][0]
    assert hit == dict(content=DUST, label=1, score=96.6875)
    said = to('swift', theirs['tevatron'], tmp_path/'swift.jsonl')
    assert 'not kept: ids (2 lines)' in said and 'titles' not in said
    only = write_jsonl(tmp_path/'only.jsonl', [dict(query='q', pos=['a'], neg=[]), *THEIRS['rerank_nb']])
    assert 'left out: 1 lines without irrelevant documents' in to('st_triplets', only, tmp_path/'t.jsonl')
    assert 'not kept: tabs and line ends of texts (1 lines)' in to('graded', theirs['rerank_nb'], tmp_path/'g.tsv')


def test_ms_swift_keeps_its_instructions(theirs, tmp_path):
    to('rerank_nb', theirs['swift'], tmp_path/'ours.jsonl')
    to('swift', tmp_path/'ours.jsonl', tmp_path/'back.jsonl')
    assert read_jsonl(tmp_path/'back.jsonl') == THEIRS['swift']


def test_titles_and_ids_of_tevatron_stand_where_they_stood(theirs, tmp_path):
    to('rerank_nb', theirs['tevatron'], tmp_path/'ours.jsonl')
    to('tevatron', tmp_path/'ours.jsonl', tmp_path/'back.jsonl')
    assert read_jsonl(tmp_path/'back.jsonl') == THEIRS['tevatron']


# ---------- packed, tables, hub ----------

def test_csv_is_read_by_its_header(tmp_path):
    sheet = tmp_path/'sheet.csv'
    rows = ['\ufeffanchor,positive,negative', '"how, to","two ""big""\ndogs",fox', '怎么办,清理,电量', '']
    sheet.write_text('\r\n'.join(rows), encoding='utf-8', newline='')
    assert pairs(sheet) == sorted([('how, to', 'two "big"\ndogs', 1.), ('how, to', 'fox', 0.), ('怎么办', '清理', 1.),
                                   ('怎么办', '电量', 0.)])
    graded = tmp_path/'graded.csv'
    graded.write_text('query;doc;label\nq;"a;b";3\nq;c;0\n', encoding='utf-8')
    assert pairs(graded) == [('q', 'a;b', 1.), ('q', 'c', .25)] and PairDataset(graded).data_format == 'graded'
    labelled = tmp_path/'labelled.tsv'
    labelled.write_text('sentence1\tsentence2\tscore\nq\t"a ""b"""\t0.25\n', encoding='utf-8')
    assert pairs(labelled) == [('q', 'a "b"', .25)]
    sheet.write_text('anchor,positive\nq,a\nq,\n', encoding='utf-8')
    with pytest.raises(DataError, match=r'sheet.csv: row 2: positive: found an empty text'): PairDataset(sheet)


def test_other_columns_of_graded_tables_are_kept_and_named(tmp_path):
    from rerank_nb.data import describe
    from rerank_nb.tiny import tiny_tokenizer
    sheet = tmp_path/'ids.csv'
    sheet.write_text('qid,doc_id,query,doc,label,source\n7,D1,q,a,3,web\n7,D2,q,b,0,web\n', encoding='utf-8')
    ds = PairDataset(sheet)
    assert [ds.example(i).extra['query_id'] for i in (0, 1)] == ['7', '7']
    assert ds.own_ids() == (['7'], ['D1', 'D2'])   # as evaluation writes them
    assert 'source (2 lines)' in str(describe(ds, tiny_tokenizer('bert')))
    assert 'not kept: source (1 lines)' in to('trec', sheet, tmp_path/'trec')
    assert (tmp_path/'trec/qrels.txt').read_text() == '7 0 D1 3\n7 0 D2 0\n'


def test_scored_lines_of_graded_data_keep_their_grade(tmp_path):
    from rerank_nb.scoring import score_dataset
    from rerank_nb.tiny import tiny_model
    (tmp_path/'t.tsv').write_text('q\ta\t3\nq\tb\t1\nq\tc\t0\n', encoding='utf-8')
    scored = read_jsonl(score_dataset(tiny_model(tmp_path/'tiny', 'bert'), tmp_path/'t.tsv', tmp_path/'out.jsonl'))
    assert [(r['pos_labels'], r['neg_labels']) for r in scored] == [([3], []), ([1], []), ([], [0])]
    (tmp_path/'w.tsv').write_text('q\ta\tgood\nq\tb\tbad\n', encoding='utf-8')
    words = PairDataset(tmp_path/'w.tsv', label2id=dict(good=1., bad=0.))
    assert 'pos_labels' not in words.example(0).extra and words.labels().tolist() == [1., 0.]


def test_a_pair_may_have_an_id_and_a_text_besides(tmp_path):
    row = dict(query='q', content='a', label=1, _id='7', text='x')   # and is no text of a BEIR folder
    assert pairs(write_jsonl(tmp_path/'a.jsonl', [row])) == [('q', 'a', 1.)]


def test_rows_with_other_columns_are_no_json_lines(tmp_path):
    import pyarrow as pa, pyarrow.parquet as pq
    pq.write_table(pa.table(dict(a=['q'], b=['d'])), tmp_path/'other.parquet')
    with pytest.raises(DataError, match='format: found rows with the columns a, b, expected'):
        PairDataset(tmp_path/'other.parquet')


def test_what_is_packed_is_read_by_its_first_bytes(theirs, tmp_path):
    import pyarrow as pa, pyarrow.parquet as pq, zstandard
    plain = Path(theirs['tevatron']).read_bytes()
    (tmp_path/'a').write_bytes(zstandard.compress(plain))
    (tmp_path/'b').write_bytes(gzip.compress(plain))
    pq.write_table(pa.Table.from_pylist(THEIRS['st_lists']), tmp_path/'c')
    expected = pairs(theirs['tevatron'])
    assert pairs(tmp_path/'a') == pairs(tmp_path/'b') == expected
    assert pairs(tmp_path/'c') == pairs(theirs['st_lists'])
    torn = tmp_path/'torn'
    torn.write_bytes(zstandard.compress(plain)[:-9])
    with pytest.raises(DataError, match='found a damaged zstd file: it ends in the middle'): PairDataset(torn)


def test_a_data_set_of_the_hub_trains_and_converts(tmp_path, monkeypatch):
    import pyarrow as pa, pyarrow.parquet as pq
    from rerank_nb.trainer import TrainConfig, open_data
    monkeypatch.chdir(tmp_path)
    Path('org').mkdir()
    rows = [dict(frage=f'{CHARGE} {i}', answer=DUST, negative=SCREEN) for i in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), 'org/train.parquet')
    spec = 'hub:org?split=train&query=frage'   # a folder stands for a name
    ds = open_data(TrainConfig('m', [spec], 'out'))[0]
    assert len(ds) == 6 and ds.place(1) == f'{spec}: row 2'
    to('rerank_nb', spec, 'ours.jsonl')
    assert pairs('ours.jsonl') == sorted(p[:3] for p in ds)
    with pytest.raises(UserError, match='no column fragen: its columns are frage, answer, negative'):
        PairDataset('hub:org?query=fragen')


MEMORY = """
import resource, sys
import numpy, pyarrow, pyarrow.parquet, torch
from rerank_nb.data import plain_file
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
plain_file(sys.argv[1])
before = peak()
plain_file(sys.argv[2])
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize('rows_a_group', [1000, 10**6])   # a megabyte, or all of them
def test_a_parquet_file_ten_times_as_large_takes_no_more_memory(rows_a_group, tmp_path):
    import pyarrow as pa, pyarrow.parquet as pq
    for name, n in (('small', 20_000), ('large', 200_000)):
        table = pa.table(dict(query=['q']*n, positive=[os.urandom(500).hex() for _ in range(n)]))
        pq.write_table(table, tmp_path/name, rows_a_group, compression='none', use_dictionary=False)
    p = run(sys.executable, '-c', MEMORY, tmp_path/'small', tmp_path/'large')
    assert p.returncode == 0, p.stderr
    assert (tmp_path/'large').stat().st_size > 2e8 and int(p.stdout) < 40_000, p.stdout   # kB


# ---------- ids, scoring ----------

def test_own_ids_reach_the_trec_files(theirs, tmp_path):
    from rerank_nb.evaluation import evaluate_scores, load_lists, write_files
    ds = load_lists(theirs['tevatron'])
    scores = [float(i) for i in range(len(ds))]
    write_files(tmp_path/'out', ds, scores, evaluate_scores(scores, ds))
    qrels = (tmp_path/'out/qrels.trec').read_text(encoding='utf-8').splitlines()
    assert sorted(qrels) == ['3 0 11 1', '3 0 12 0', '4 0 13 1', '4 0 14 0', '4 0 15 0']
    best = (tmp_path/'out/run.trec').read_text(encoding='utf-8').split()
    assert best[:3] == ['3', 'Q0', '12'] and read_jsonl(tmp_path/'out/per_query.jsonl')[0]['query_id'] == '3'


@pytest.mark.parametrize('name', ['tevatron', 'swift', 'rag_retrieval_grouped', 'st_triplets', 'flagembedding'])
def test_scoring_and_mining_keep_every_key(name, theirs):
    from rerank_nb.mining import with_negatives
    from rerank_nb.scoring import with_scores

    class Teacher:
        def compute_score(self, pairs, **kw):
            import torch
            return torch.arange(len(pairs)).float()

    ds = open_pairs(theirs[name])
    examples = [ds.example(i) for i in range(len(THEIRS[name]))]
    scored = [json.loads(l) for l in with_scores(Teacher(), examples)]
    mined = [json.loads(with_negatives(ex, ['new'])) for ex in examples]
    for ex, s, m in zip(examples, scored, mined):
        assert set(ex.extra) <= set(s) and {'pos_scores', 'neg_scores'} <= set(s)
        assert set(ex.extra) <= set(m) and m['neg'][-1] == 'new'
        for k in ex.extra:
            if k.startswith('neg_'): assert m[k] == ex.extra[k] + [None]
            elif not k.endswith('_scores'): assert s[k] == m[k] == ex.extra[k]


# ---------- the command ----------

def test_the_command_ends_in_one_line(theirs, tmp_path):
    command = [sys.executable, '-m', 'rerank_nb.convert']
    out = tmp_path/'out.jsonl'
    p = run(*command, '--dataset', theirs['swift'], '--to', 'st_triplets', '--output_path', out, cwd=ROOT)
    assert p.returncode == 0, p.stderr
    assert 'sentence-transformers, triplets: 2 lists, 5 documents' in p.stdout
    p = run(*command, '--dataset', 'nowhere', '--to', 'rerank_nb', '--output_path', tmp_path/'no', cwd=tmp_path)
    assert p.returncode == 1
    assert p.stderr.strip() == 'error: nowhere: no such file or directory: give the path of a data file'
    p = run(*command, '--formats', cwd=ROOT)
    assert p.stdout.strip() == formats_table(TARGETS)


@pytest.mark.parametrize('loss,name', [('regression', 'rag_retrieval'), ('listnet', 'rag_retrieval_grouped'),
                                       ('kl', 'rag_retrieval_scores'), ('classfication', 'st_triplets')])
def test_their_lines_train_score_and_are_measured(loss, name, theirs, tmp_path):
    from rerank_nb.evaluation import evaluate
    from rerank_nb.scoring import score_dataset
    from rerank_nb.tiny import tiny_model
    from rerank_nb.trainer import TrainConfig, train
    kw = dict(epochs=1, max_len=64, batch_size=4, save_on_epoch_end=False)
    if name != 'st_triplets': kw['max_label'] = 1.5
    kw['eval_dataset'] = [theirs[name]]
    train(TrainConfig(tiny_model(tmp_path/'m'), theirs[name], str(tmp_path/'run'), loss, **kw))
    report = (tmp_path/'run/data_report.txt').read_text(encoding='utf-8')
    assert f'{LAYOUTS[name].whose} ({len(THEIRS[name])} lines)' in report
    scored = score_dataset(str(tmp_path/'run/model'), theirs[name], tmp_path/'scored.jsonl', max_len=64)
    assert all({'pos_scores', 'neg_scores'} <= r.keys() for r in read_jsonl(scored))
    assert evaluate(str(tmp_path/'run/model'), theirs[name], tmp_path/'e', max_len=64)['queries'] == 2
