"""Whatever a file or a flag holds: a reader reads it, or says in its own words what is wrong. `FUZZ=n` tries n inputs
of each kind; the default set tries a few."""
import json, os, pickle, string
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from rerank_nb import checkpoint, data, evaluation, mining, parts, trainer
from rerank_nb.data import LineError, PairDataset
from rerank_nb.engine import launch_environment
from rerank_nb.files import UserError, parse_flags, settings_parser
from rerank_nb.scoring import ScoringConfig
from rerank_nb.train_reranker import parse_args

MANY = int(os.environ.get('FUZZ', 0))


def fuzz(few=30):
    "Settings of a fuzz test."
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.large_base_example]
    return settings(max_examples=MANY or few, deadline=None, database=None, suppress_health_check=quiet)


# what comes near to data, and what does not
CHARS = st.characters(codec=None) | st.sampled_from('\t\n\r\0"\\{}[],:\ufeff\u2028\x85\x1c\u200d😀\ud800é中')
TEXT = st.text(CHARS, max_size=12)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6)
KEYS = ('query', 'pos', 'neg', 'pos_scores', 'neg_scores', 'text', 'title')
ROW = st.dictionaries(st.sampled_from(KEYS), JSON | TEXT | st.lists(TEXT | JSON, max_size=3), max_size=5)
TEXTS = st.lists(TEXT, max_size=3)
SOUND = st.fixed_dictionaries(dict(query=TEXT, pos=TEXTS, neg=TEXTS))
COLUMNS = st.lists(TEXT, min_size=2, max_size=4).map('\t'.join)
LINE = st.one_of(ROW.map(json.dumps), SOUND.map(json.dumps), TEXT, COLUMNS,
                 st.tuples(TEXT, TEXT, st.sampled_from('0123')).map('\t'.join))


def as_bytes(lines): return '\n'.join(lines).encode('utf-8', 'surrogatepass')


FILE = st.one_of(st.lists(LINE, max_size=4).map(as_bytes), st.binary(max_size=60),
                 st.lists(SOUND, max_size=3).map(lambda rows: json.dumps(rows, indent=1).encode()),
                 st.lists(SOUND, max_size=2).map(lambda rows: json.dumps(rows).encode('utf-16')),
                 st.binary(max_size=40).map(lambda b: b'\x1f\x8b\x08\x00' + b),
                 st.sampled_from([b'PK\x03\x04', b'[' * 3000]))

KIND = st.sampled_from([None, *data.FORMATS])


@given(content=FILE, kind=KIND, skip=st.booleans(), drawn=st.sampled_from([None, 1, 2]))
@fuzz(60)
def test_a_data_file(content, kind, skip, drawn, tmp_path):
    "What is read can be read again, pair by pair, and has a label each."
    (tmp_path/'d').write_bytes(content)
    try:
        ds = PairDataset(tmp_path/'d', kind, on_bad_line='skip' if skip else 'error', negatives_per_query=drawn)
    except UserError as e:
        assert str(tmp_path/'d') in str(e) or 'negatives_per_query' in str(e)
        return
    pairs = list(ds)
    assert len(pairs) == len(ds) == len(ds.labels()) and [p.label for p in pairs] == pytest.approx(ds.labels().tolist())
    assert all(p.query.strip() and p.doc.strip() for p in pairs)
    assert [ds[i] for i in range(len(ds))] == pairs


@given(line=LINE, quotes=st.booleans())
@fuzz(100)
def test_a_line(line, quotes):
    for read in (data.parse_binary, data.parse_scored, lambda t: data.parse_graded(t, unquote=quotes)):
        try: ex = read(line)
        except LineError as e: assert 'expected' in str(e)
        else: assert len(ex.docs) == len(ex.targets) >= 1


@given(text=st.one_of(JSON.map(json.dumps), TEXT, st.just('[' * 10_000), st.just('{"a":' * 10_000), ROW))
@fuzz(60)
def test_a_label_map(text):
    try: found = data.read_label2id(text)
    except UserError as e: assert 'label2id' in str(e)
    else: assert found and all(isinstance(k, str) and 0 <= v <= 1 for k, v in found.items())


FLAGS = [f'--{name}' for name in trainer.TrainConfig.__dataclass_fields__]
ODD = ['1', '0', '-1', 'nan', 'inf', '1e400', '9'*400, 'x', '--', '-', '']
WORD = st.sampled_from(FLAGS) | st.sampled_from(ODD) | TEXT


@given(given=st.lists(WORD, max_size=6))
@fuzz(60)
def test_flags(given):
    "argparse's own end is one line as well."
    words = ['--model_name_or_path', 'm', '--dataset', 'd', '--output_dir', 'o', *given]
    try: trainer.check_config(parse_args(words))
    except UserError: pass
    except SystemExit as e: assert e.code in (0, 2)
    try: parse_flags(settings_parser(ScoringConfig), words)
    except UserError: pass
    except SystemExit as e: assert e.code in (0, 2)


VALUE = JSON | st.lists(st.floats() | st.integers(), max_size=6)
FIELDS = trainer.TrainState.__dataclass_fields__


STATE = st.dictionaries(st.sampled_from([*FIELDS, 'files', 'crc', 'more']), VALUE, max_size=9)


@given(state=STATE, raw=st.binary(max_size=30))
@fuzz(60)
def test_the_state_of_a_checkpoint(state, raw, tmp_path):
    folder = tmp_path/'checkpoint_1'
    folder.mkdir(exist_ok=True)
    for content in (json.dumps(state).encode(), json.dumps(state | dict(files={})).encode(), raw):
        (folder/'state.json').write_bytes(content)
        try: found = checkpoint.read_checkpoint(folder)
        except UserError as e: assert 'damaged' in str(e)
        else:
            try: trainer.check_state(folder, found)
            except UserError as e: assert 'none that a run wrote' in str(e)
            else: trainer.TrainState(**found)


PICKLED = JSON.map(pickle.dumps) | st.binary(max_size=40) | st.sampled_from(
    [b'cos\nsystem\n(S"true"\ntR.', b'cbuiltins\neval\n(S"1"\ntR.', b'cbuiltins\ngetattr\n(cos\nsystem\nS"x"\ntR.'])


@given(content=PICKLED)
@fuzz(60)
def test_the_metadata_of_a_checkpoint(content, tmp_path):
    (tmp_path/'.metadata').write_bytes(content)
    with pytest.raises(UserError, match='is not what a checkpoint holds'): checkpoint._read_metadata(tmp_path)


@given(names=JSON | st.dictionaries(st.sampled_from(['model', 'logs', '../x', '/etc', 'epoch_1', 'logs/wandb']), JSON))
@fuzz(60)
def test_the_list_of_a_run(names, tmp_path):
    out = tmp_path/'out'
    out.mkdir(exist_ok=True)
    (tmp_path/'x').write_text('mine')
    (out/checkpoint.LIST).write_text(json.dumps(names))
    checkpoint.own_files(out)
    checkpoint.remove_own(out)
    assert (tmp_path/'x').read_text() == 'mine'


MADE_FROM = JSON | st.dictionaries(st.sampled_from(['a', 'format']), JSON | st.just(parts.FORMAT))


@given(made_from=MADE_FROM, part=st.binary(max_size=20))
@fuzz(60)
def test_parts(made_from, part, tmp_path):
    p = parts.Parts(tmp_path/'out', 1, 1)
    p.folder.mkdir(exist_ok=True)
    p.made_from.write_text(json.dumps(made_from))
    p.path(0).write_bytes(part)
    try: p.check(dict(a=1))
    except UserError as e: assert 'out.parts: holds parts' in str(e)
    try: p.join()
    except UserError as e: assert 'remove this part' in str(e)
    else: assert part.count(b'\n') == 1 and (tmp_path/'out').read_bytes() == part


NAME = st.text(string.printable + 'é中\u2028\0', max_size=8)


@given(rows=st.lists(st.tuples(NAME, NAME), min_size=1, max_size=4))
@fuzz(20)
def test_what_is_written_for_trec_tools(rows, tmp_path):
    "Whatever query and document hold, a line of TREC has its six columns and one of judgments its four."
    import numpy as np
    good = [(q, d) for q, d in rows if q.strip() and d.strip()]
    if not good: return
    lines = [json.dumps(dict(query=q, pos=[d], neg=[d + ' other'])) + '\n' for q, d in good]
    (tmp_path/'t.jsonl').write_text(''.join(lines))
    ds = evaluation.load_lists(tmp_path/'t.jsonl')
    scores = np.linspace(0, 1, len(ds))
    evaluation.write_files(tmp_path/'o', ds, scores, evaluation.evaluate_scores(scores, ds))
    for name, columns in (('run.trec', 6), ('qrels.trec', 4)):
        text = (tmp_path/'o'/name).read_text(encoding='utf-8')
        assert text and all(len(l.split()) == columns for l in text.splitlines())


YAML_KEYS = ('compute_environment', 'distributed_type', 'num_processes', 'fsdp_config', 'mixed_precision', 'gpu_ids')
YAML_VALUES = JSON | st.sampled_from(['FSDP', 'LOCAL_MACHINE', 'no', 2])
KNOWN = st.dictionaries(st.sampled_from(YAML_KEYS), YAML_VALUES, max_size=4)
NO_YAML = ['', '[1]', 'a: [', '!!python/object/apply:os.system ["x"]']


@given(content=KNOWN.map(json.dumps) | TEXT | st.sampled_from(NO_YAML))
@fuzz(40)
def test_a_configuration_of_accelerate(content, tmp_path):
    (tmp_path/'c.yaml').write_bytes(content.encode('utf-8', 'surrogatepass'))
    try: env = launch_environment(tmp_path/'c.yaml')
    except UserError as e: assert 'c.yaml: ' in str(e)
    else: assert all(isinstance(v, str) for v in env.values())


@given(content=FILE)
@fuzz(40)
def test_a_corpus(content, tmp_path):
    (tmp_path/'c').write_bytes(content)
    try: texts = mining.Corpus(tmp_path/'c')
    except UserError as e: assert str(tmp_path/'c') in str(e)
    else: assert len(texts) and all(texts[i].strip() for i in range(len(texts)))
