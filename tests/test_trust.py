"""What came from elsewhere (a model, a checkpoint, a folder of results) runs no program, reaches nothing outside its
folder, and sends nothing anywhere."""
import io, json, os, pickle, shutil, sys
from pathlib import Path
import pytest, torch
from helpers import as_flags, binary_file, clean_env, flags, run, write_jsonl
from safetensors.torch import load_file
from rerank_nb import trainer
from rerank_nb.checkpoint import LIST
from rerank_nb.files import UserError
from rerank_nb.model import CrossEncoder
from rerank_nb.tiny import tiny_model
from rerank_nb.train_reranker import parse_args

SECRET = 'hf_ThisIsASecretThatNobodyMayFindAnywhere'


class Poison:
    "A pickle that makes a file when it is read."
    def __init__(self, path): self.path = str(path)
    def __reduce__(self): return os.mkdir, (self.path,)


def test_a_poisoned_bin_is_not_run(tmp_path):
    model = Path(tiny_model(tmp_path/'m', 'bert'))
    weights = load_file(model/'model.safetensors')
    (model/'model.safetensors').unlink()
    torch.save(weights, model/'pytorch_model.bin')
    CrossEncoder.from_pretrained(model)   # an honest one is read
    torch.save(weights | {'classifier.bias': Poison(tmp_path/'was_here')}, model/'pytorch_model.bin')
    with pytest.raises(UserError, match='no model could be loaded'): CrossEncoder.from_pretrained(model)
    assert not (tmp_path/'was_here').exists()
    pickle.loads(pickle.dumps(Poison(tmp_path/'was_here')))   # and it would have
    assert (tmp_path/'was_here').exists()


def layered(folder, path, weights):
    "A folder of sentence-transformers whose last module lies in `path`, with these bytes for its weights."
    model = Path(tiny_model(folder, 'bert', head=False))
    kinds = dict(Pooling='1_Pooling', Dense=path)
    listed = [dict(type='sentence_transformers.models.Transformer', path='')]
    listed += [dict(type=f'sentence_transformers.models.{k}', path=p) for k, p in kinds.items()]
    (model/'modules.json').write_text(json.dumps(listed))
    about = dict(Pooling=dict(word_embedding_dimension=32, pooling_mode_cls_token=True), Dense=dict(
        in_features=32, out_features=1, bias=True, activation_function='torch.nn.modules.linear.Identity',
        module_input_name='sentence_embedding', module_output_name='scores'))
    for kind, p in kinds.items():
        (model/p).mkdir(exist_ok=True, parents=True)
        (model/p/'config.json').write_text(json.dumps(about[kind]))
    (model/path/'pytorch_model.bin').write_bytes(weights)
    return model


def saved(value):
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def test_a_module_of_a_head_is_no_program_and_stays_in_its_folder(tmp_path):
    honest = saved({'linear.weight': torch.ones(1, 32), 'linear.bias': torch.zeros(1)})
    reranker = CrossEncoder.from_pretrained(layered(tmp_path/'honest', '2_Dense', honest))
    assert reranker.compute_score([['a', 'b']]).shape == (1,)
    poison = layered(tmp_path/'poison', '2_Dense', saved({'linear.weight': Poison(tmp_path/'was_here')}))
    with pytest.raises(UserError): CrossEncoder.from_pretrained(poison)
    assert not (tmp_path/'was_here').exists()
    for i, path in enumerate(('../outside', str(tmp_path/'outside'), 'a/../../outside')):
        away = layered(tmp_path/f'away{i}', path, honest)
        with pytest.raises(UserError, match='which lies outside'): CrossEncoder.from_pretrained(away)


def test_code_of_a_checkpoint_runs_only_where_it_was_allowed(tmp_path):
    model = Path(tiny_model(tmp_path/'m', 'bert'))
    (model/'own.py').write_text(f'import os\nos.mkdir({str(tmp_path/"was_here")!r})\n')
    config = json.loads((model/'config.json').read_text())
    del config['model_type']
    (model/'config.json').write_text(json.dumps(config | dict(auto_map={'AutoConfig': 'own.Config'})))
    with pytest.raises(UserError, match='comes with its own code'): CrossEncoder.from_pretrained(model)
    assert not (tmp_path/'was_here').exists()
    with pytest.raises(UserError): CrossEncoder.from_pretrained(model, trust_remote_code=True)   # it has no Config
    assert (tmp_path/'was_here').exists()


@pytest.fixture
def begin(tmp_path):
    "A function that trains for a few steps in a folder of results."
    model, data = tiny_model(tmp_path/'tiny', 'bert'), binary_file(tmp_path/'t.jsonl', 8)
    usual = dict(logging_steps=1, checkpointing_steps=2, save_on_epoch_end=0)
    return lambda out, **kw: trainer.train(parse_args(flags(model, data, tmp_path/out, **usual | kw)))


def test_a_list_of_results_removes_nothing_outside(begin, tmp_path):
    begin('out')
    out, victim = tmp_path/'out', tmp_path/'victim'
    victim.mkdir()
    for place in (victim/'work.txt', tmp_path/'work.txt'): place.write_text('a year of work')
    names = json.loads((out/LIST).read_text())
    elsewhere = dict.fromkeys(['../victim', '../work.txt', str(victim), 'logs/../../victim'])
    (out/LIST).write_text(json.dumps(elsewhere | names))
    begin('out', overwrite_output_dir=1)
    assert (victim/'work.txt').read_text() == (tmp_path/'work.txt').read_text() == 'a year of work'


def change(folder, **kw):
    "Other values in a checkpoint's state.json, without its checksum, as an earlier version wrote it."
    state = json.loads((folder/'state.json').read_text())
    state.pop('crc')
    (folder/'state.json').write_text(json.dumps(state | kw))


def test_a_state_that_no_run_wrote_is_refused(begin, tmp_path):
    begin('whole')
    name = max(p.name for p in (tmp_path/'whole').glob('checkpoint_*'))
    wrong = dict(step='x', epoch=-1, done=None, since=[['a']*5], history=[3], schedule=[], settings=None, more=1)
    for key, value in wrong.items():
        out = shutil.copytree(tmp_path/'whole', tmp_path/key)
        shutil.rmtree(out/'model')
        change(out/name, **{key: value})
        with pytest.raises(UserError, match='state.json is none that a run wrote'):
            begin(key, resume_from_checkpoint='latest')


GUARD = """
import runpy, socket, sys
asked = []
def refuse(what):
    def call(*args, **kw):
        asked.append((what, str(args[:2])))
        raise OSError(101, 'the network is forbidden here')
    return call
connect = socket.socket.connect
def only_here(self, address):
    return connect(self, address) if self.family == socket.AF_UNIX else refuse('connect')(address)
socket.socket.connect = only_here
socket.socket.connect_ex = only_here
socket.socket.sendto = refuse('sendto')
socket.getaddrinfo = refuse('getaddrinfo')
name, *sys.argv[1:] = sys.argv[1:]
try: runpy.run_module(f'rerank_nb.{name}', run_name='__main__', alter_sys=True)
finally:
    if asked: print('ASKED', asked, flush=True)
"""


def words(name, place):
    "A small call of a command, in a folder that has all it needs."
    model, data = place/'tiny', place/'t.jsonl'
    own = dict(
        train_reranker=flags(model, data, place/'run', logging_steps=1, log_with='tensorboard'),
        scoring=as_flags(model=model, dataset=data, output=place/'scored.jsonl'),
        mining=as_flags(dataset=data, corpus=place/'corpus.jsonl', embedding_model=model, reranker=model,
                        output=place/'mined.jsonl', max_len=32),
        evaluation=as_flags(model=model, dataset=data, output_dir=place/'values'))
    return own[name]


def everything(folder):
    "All that was written, names and contents."
    return b'\0'.join(part for p in sorted(folder.rglob('*')) if p.is_file() for part in (bytes(p), p.read_bytes()))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['train_reranker', 'scoring', 'mining', 'evaluation'])
def test_nothing_is_sent_and_no_secret_is_kept(name, tmp_path):
    "One process a command; its environment holds tokens, and nothing forbids the hub but the guard."
    tiny_model(tmp_path/'tiny', 'bert')
    binary_file(tmp_path/'t.jsonl', 8)
    write_jsonl(tmp_path/'corpus.jsonl', [dict(text=f'passage {i}') for i in range(8)])
    tokens = dict.fromkeys(['HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN', 'WANDB_API_KEY', 'AWS_SECRET_ACCESS_KEY'], SECRET)
    env = clean_env(PYTHONPATH=os.pathsep.join(sys.path), ACCELERATE_USE_CPU='1', OMP_NUM_THREADS='1', **tokens)
    env |= dict(HF_HUB_OFFLINE='', HOME=str(tmp_path))
    p = run(sys.executable, '-c', GUARD, name, *words(name, tmp_path), cwd=tmp_path, env=env)
    assert p.returncode == 0, p.stdout + p.stderr
    assert 'ASKED' not in p.stdout, p.stdout
    assert len(list(tmp_path.iterdir())) > 3
    assert SECRET.encode() not in everything(tmp_path) and SECRET not in p.stdout + p.stderr


def test_a_guard_hears_who_asks():
    asks = GUARD.replace("runpy.run_module(f'rerank_nb.{name}', run_name='__main__', alter_sys=True)",
                         "socket.create_connection(('192.0.2.1', 80), 1)")
    p = run(sys.executable, '-c', asks, 'x')
    assert p.returncode == 1 and "ASKED [('getaddrinfo'" in p.stdout, p.stdout + p.stderr
