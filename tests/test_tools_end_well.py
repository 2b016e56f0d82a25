"""Scoring, mining and evaluation: what cannot be used ends them in one line before the work, and leaves nothing in the
way of the next call."""
import gzip, json, shutil, subprocess, sys
from pathlib import Path
import pytest, torch
from helpers import ROOT, as_flags, binary_file, clean_env, read_jsonl, until, write_jsonl
from safetensors.torch import load_file, save_file
from rerank_nb import evaluation, mining, scoring
from rerank_nb.model import CrossEncoder

COMMANDS = dict(scoring=scoring.main, mining=mining.main, evaluation=evaluation.main)


@pytest.fixture
def place(tmp_path, monkeypatch):
    "A folder with queries and a corpus, as working directory."
    monkeypatch.chdir(tmp_path)
    binary_file('data.jsonl', 12)
    texts = {d for r in read_jsonl('data.jsonl') for d in r['pos'] + r['neg']}
    write_jsonl('corpus.jsonl', [dict(text=t) for t in sorted(texts)])
    return tmp_path


def words(name, model, output='out', **flags):
    "A command line of a command that loads this model; a flag that is True has no value."
    own = dict(
        mining=dict(corpus='corpus.jsonl', reranker=model, output=output),
        scoring=dict(model=model, output=output),
        evaluation=dict(model=model, output_dir=output))
    every = dict(dataset='data.jsonl', max_len=32) | own[name] | flags
    bare = [f'--{k}' for k, v in every.items() if v is True]
    return bare + as_flags(**{k: v for k, v in every.items() if v is not True})


def message(name, *args, **kw):
    "What the command says at its end; None when all went well."
    try: COMMANDS[name](words(name, *args, **kw))
    except SystemExit as e: return e.code


@pytest.mark.parametrize('name', COMMANDS)
def test_a_score_that_is_no_number(name, place, tiny):
    shutil.copytree(tiny['bert'], 'nan')
    weights = load_file('nan/model.safetensors')
    weights['classifier.weight'][:] = float('nan')
    save_file(weights, 'nan/model.safetensors', metadata=dict(format='pt'))
    said = message(name, 'nan')
    assert said.startswith('error: ') and 'no finite number' in said and '\n' not in said
    left = {p.name.split('-')[0] for p in place.glob('out*/*')}
    kept = {'bm25', 'settings.json'} if name == 'mining' else set()   # the index serves the next call
    assert left == kept, left
    assert message(name, tiny['bert'], max_len=16) is None   # other settings, same name
    for p in [place/'out', *place.rglob('out/*.json*')]:
        if p.is_file(): assert 'NaN' not in p.read_text()


@pytest.mark.parametrize('name', COMMANDS)
def test_an_output_that_cannot_be_is_refused_before_a_model_is_looked_for(name, place, monkeypatch):
    Path('file').touch()
    Path('folder/out').mkdir(parents=True)
    said = message(name, 'no/such/model', 'file/out')
    assert 'file is no folder' in said, said
    if name == 'evaluation': Path('folder/out/per_query.jsonl').mkdir()
    said = message(name, 'no/such/model', 'folder/out')
    assert 'is a folder' in said or 'exists already' in said, said


@pytest.mark.parametrize('name', COMMANDS)
def test_precision_and_foreign_code_reach_the_model(name, place, tiny, monkeypatch):
    seen = []
    def listen(method, flag):
        f = getattr(CrossEncoder, method)
        def call(*args, **kw):
            seen.append(kw[flag])
            return f(*args, **kw)
        monkeypatch.setattr(CrossEncoder, method, call)
    listen('from_pretrained', 'trust_remote_code')
    listen('compute_score', 'mixed_precision')
    assert message(name, tiny['bert'], 'plain') is None
    assert set(seen) == {False, 'no'}
    seen.clear()
    assert message(name, tiny['bert'], 'narrow', mixed_precision='bf16', trust_remote_code=True) is None
    assert set(seen) == {True, 'bf16'}
    assert 'there is no GPU' in message(name, tiny['bert'], 'fp16', mixed_precision='fp16')
    if name == 'scoring':
        plain, narrow = ([r['pos_scores'][0] for r in read_jsonl(f)] for f in ('plain', 'narrow'))
        gap = (torch.tensor(plain) - torch.tensor(narrow)).abs().max()
        assert 0 < gap < .1 and len(set(narrow)) > 6, (plain, narrow)


def test_what_is_wrong_with_a_corpus_is_said_before_an_index_is_made(place, tiny):
    lines = Path('corpus.jsonl').read_text(encoding='utf-8').splitlines()
    wrong = {'{"text": "half \\udc00"}': 'half of a surrogate pair', '"a bare text"': 'no such key',
             '{"text": NaN}': 'text: found'}
    for bad, says in wrong.items():
        Path('bad.jsonl').write_text('\n'.join([*lines[:2], bad, *lines[2:]]), encoding='utf-8')
        said = message('mining', tiny['bert'], corpus='bad.jsonl')
        assert 'bad.jsonl:3: ' in said and says in said and not list(place.glob('out*')), said


def test_packed_files_are_mined_as_their_contents(place, tiny):
    for f in ('data.jsonl', 'corpus.jsonl'):
        with gzip.open(f + '.gz', 'wb') as z: z.write(Path(f).read_bytes())
    Path('array.json').write_text(json.dumps(read_jsonl('corpus.jsonl'), indent=1), encoding='utf-16')
    assert message('mining', tiny['bert'], 'plain') is None
    assert message('mining', tiny['bert'], 'packed', dataset='data.jsonl.gz', corpus='corpus.jsonl.gz') is None
    assert message('mining', tiny['bert'], 'array', corpus='array.json') is None
    assert Path('plain').read_text() == Path('packed').read_text() == Path('array').read_text()


def test_a_second_call_with_the_same_output_waits_its_turn(place, tiny):
    binary_file('long.jsonl', 3000)
    long = dict(dataset='long.jsonl', lines_a_part=1)
    command = [sys.executable, '-m', 'rerank_nb.scoring', *words('scoring', tiny['bert'], **long)]
    env = clean_env(OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT), ACCELERATE_USE_CPU='1')
    first = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    until(lambda: list(place.glob('out.parts/0*.jsonl')), first, seconds=120)
    said = message('scoring', tiny['bert'], **long)
    assert f'in use by process {first.pid}' in said, said
    first.kill()
    first.wait(60)
    shutil.copytree(tiny['bert'], 'copy')   # the same model elsewhere goes on where the dead one stopped
    assert message('scoring', 'copy', **long) is None
    assert len(Path('out').read_text().splitlines()) == 3000 and not Path('out.parts').exists()
