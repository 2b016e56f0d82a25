"""What an earlier version left behind is of use to this one: its runs and jobs go on to the end that they had there,
and its saved model loads. tests/older/make.py tells how the files were made, and of which commit."""
import json, zipfile
import pytest, torch
from helpers import ROOT, as_flags, read_jsonl
from rerank_nb import mining, scoring, trainer
from rerank_nb.files import UserError
from rerank_nb.model import CrossEncoder
from rerank_nb.train_reranker import parse_args

OLDER = ROOT/'tests/older'
EXPECTED = json.loads((OLDER/'expected.json').read_text(encoding='utf-8'))
COMMANDS = dict(scoring=scoring.main, mining=mining.main)


@pytest.fixture
def left(tmp_path, monkeypatch):
    "A folder with what was left, as working directory: its files name each other without a path."
    with zipfile.ZipFile(OLDER/'left.zip') as z: z.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('ACCELERATE_USE_CPU', '1')
    return tmp_path


def alike(a, b):
    "The same values; numbers may differ by what another machine's rounding makes of them."
    if isinstance(a, dict): return a.keys() == b.keys() and all(alike(a[k], b[k]) for k in a)
    if isinstance(a, list): return len(a) == len(b) and all(map(alike, a, b))
    # other machines sum in another order: losses move by 1e-6, the spread of scores that are all but equal by 4e-4
    if isinstance(a, float): return a == pytest.approx(b, rel=1e-4, abs=1e-3)
    return a == b


def without_clock(history): return [{k: v for k, v in r.items() if k != 'pairs_per_second'} for r in history]


@pytest.mark.parametrize('name', EXPECTED['runs'])
def test_a_run_goes_on_to_the_same_end(name, left, capsys):
    run = EXPECTED['runs'][name]
    words = [*run['flags'], *as_flags(output_dir=name, resume_from_checkpoint='latest')]
    history = trainer.train(parse_args(words))
    assert 'going on from' in capsys.readouterr().out
    assert without_clock(history[:4]) == without_clock(run['history'][:4])   # those of the checkpoint, to the last bit
    assert alike(without_clock(history), without_clock(run['history'])), history
    scores = CrossEncoder.from_pretrained(left/name/'model').compute_score(EXPECTED['pairs'], max_len=32)
    expected = torch.tensor(run['scores'])
    if name == 'lists':   # a list-wise loss leaves the mean of the scores to rounding
        scores, expected = scores - scores.mean(), expected - expected.mean()
    assert alike(scores.tolist(), expected.tolist())


def test_a_run_with_other_settings_is_refused(left):
    words = [*EXPECTED['runs']['grades']['flags'], *as_flags(output_dir='grades', resume_from_checkpoint='latest')]
    changes = {'lr': dict(lr=1.), 'label2id': dict(label2id='{"3": 1, "2": 0, "1": 0, "0": 0}'),
               'pairs a step': dict(batch_size=8), 'data': dict(dataset='dev.tsv')}
    for name, change in changes.items():
        with pytest.raises(UserError, match=f'{name}.*: found .*the checkpoint was written with'):
            trainer.train(parse_args([*words, *as_flags(**change)]))


def test_an_old_run_makes_room(left):
    words = [*EXPECTED['runs']['pairs']['flags'], *as_flags(output_dir='pairs')]
    with pytest.raises(UserError, match='already holds a run'): trainer.train(parse_args(words))
    (left/'pairs/notes.txt').write_text('mine')
    trainer.train(parse_args([*words, '--overwrite_output_dir', *as_flags(checkpointing_steps=1000, epochs=1)]))
    assert not list((left/'pairs').glob('checkpoint_*')) and (left/'pairs/notes.txt').read_text() == 'mine'


@pytest.mark.parametrize('name', EXPECTED['jobs'])
def test_a_job_goes_on_to_the_same_end(name, left, capsys):
    job = EXPECTED['jobs'][name]
    parts = left/f'{name}.parts'
    before = b''.join((parts/f'0000000{i}.jsonl').read_bytes() for i in (0, 1))
    COMMANDS[job['module']]([*job['words'], '--output', name])
    assert 'going on: 2 parts of' in capsys.readouterr().out
    assert (left/name).read_bytes().startswith(before) and not parts.exists()
    grades = {'pos_labels', 'neg_labels'} if name == 'graded.jsonl' else set()   # 0.1.0 dropped them
    lines = read_jsonl(left/name)
    assert alike([{k: v for k, v in row.items() if k not in grades} for row in lines], job['lines'])
    assert all(grades <= row.keys() for row in lines[before.count(b'\n'):])


def test_a_saved_model_scores_as_it_did(left):
    scores = CrossEncoder.from_pretrained(left/'saved').compute_score(EXPECTED['pairs'], max_len=32)
    assert alike(scores.tolist(), EXPECTED['runs']['pairs']['scores'])
