"What a folder holds is somebody's work: only a run's own files make room, and only for a run that can begin."
import shutil
import pytest
from helpers import binary_file, flags
from rerank_nb import trainer
from rerank_nb.files import UserError, locked
from rerank_nb.tiny import tiny_model
from rerank_nb.train_reranker import parse_args


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    "A function that makes the settings of a run, and the folder of one."
    d = tmp_path_factory.mktemp('own')
    model, data = tiny_model(d/'tiny', 'bert'), binary_file(d/'t.jsonl', 8)
    def config(out, **kw): return parse_args(flags(model, data, out, **dict(logging_steps=1) | kw))
    trainer.train(config(d/'out'))
    return config, d/'out'


@pytest.fixture
def begin(trained, tmp_path):
    "A function that trains in a copy of that folder, and the copy."
    config, done = trained
    out = shutil.copytree(done, tmp_path/'out')
    return (lambda **kw: trainer.train(config(out, **kw))), out


def everything(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


def test_what_can_be_known_is_known_before_a_run_makes_room(begin, monkeypatch):
    begin, out = begin
    before = everything(out)
    with pytest.raises(UserError, match='max_len 4'): begin(overwrite_output_dir=1, max_len=4)
    def fails(*_): raise UserError('the optimizer')
    for name in ('make_optimizer', 'make_schedule', 'constant_of', 'reserve_model'):
        with monkeypatch.context() as m, pytest.raises(UserError, match='the optimizer'):
            m.setattr(trainer, name, fails)
            begin(overwrite_output_dir=1)
        assert everything(out) == before


def test_a_run_removes_what_a_run_wrote(begin):
    begin, out = begin
    for name in ('logs/slurm-7.out', 'epoch_7/weights.pt', 'notes.txt'):
        (out/name).parent.mkdir(exist_ok=True)
        (out/name).write_text(name)
    first = (out/'model/model.safetensors').read_bytes()
    begin(overwrite_output_dir=1, seed=7)
    assert first != (out/'model/model.safetensors').read_bytes()
    assert (out/'logs/slurm-7.out').exists() and (out/'epoch_7/weights.pt').exists() and (out/'notes.txt').exists()
    (out/'epoch_1/results.json').write_text('{}')   # somebody's, beside the run's own files
    before = everything(out)
    with pytest.raises(UserError, match='epoch_1/results.json: no run wrote this'): begin(overwrite_output_dir=1)
    assert everything(out) == before
    begin(overwrite_output_dir=1, save_on_epoch_end=0)   # writes no epoch_1
    assert sorted(p.name for p in (out/'epoch_1').iterdir()) == ['results.json']


def test_a_folder_of_an_earlier_version(begin):
    begin, out = begin
    (out/'.rerank_nb.json').unlink()   # it kept no list
    with pytest.raises(UserError, match='already holds a run'): begin()
    (out/'logs/slurm-7.out').write_text('')
    assert len(begin(overwrite_output_dir=1)) and (out/'logs/slurm-7.out').exists()


def test_one_run_at_a_time(begin):
    begin, out = begin
    with locked(out):
        for how in (dict(overwrite_output_dir=1), dict(resume_from_checkpoint='latest'), dict()):
            with pytest.raises(UserError, match='in use by process'): begin(**how)
    begin(overwrite_output_dir=1)
    assert not (out/'.lock').exists()


def test_a_run_leaves_no_accelerator_to_the_next(begin):
    from rerank_nb.engine import preflight
    begin[0](overwrite_output_dir=1)
    preflight(2)


def test_a_start_that_fails_leaves_nothing(begin, monkeypatch):
    begin, out = begin
    shutil.rmtree(out)
    def fails(*_): raise UserError('no tracker')
    with monkeypatch.context() as m, pytest.raises(UserError, match='no tracker'):
        m.setattr(trainer, '_start_trackers', fails)
        begin()
    assert not out.exists()
    begin()


def test_others_files_that_come_while_a_run_lives_do_not_cost_the_model(begin, monkeypatch):
    begin, out = begin
    evaluate = trainer.Run.evaluate
    def at_the_end(self, epoch):
        (out/'model').mkdir(exist_ok=True)
        (out/'model/mine.txt').write_text('')
        evaluate(self, epoch)
    monkeypatch.setattr(trainer.Run, 'evaluate', at_the_end)
    steps = begin(overwrite_output_dir=1)[-1]['step']
    assert (out/f'model_{steps}/model.safetensors').exists() and (out/'model/mine.txt').exists()
