"The card of a real run: what it says, its code in the libraries that are here, and its way to the hub."
import base64, json, re, threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
import pytest, torch, yaml
from helpers import binary_file, clean_env, flags, own_environment, quiet, run, still_model
from rerank_nb.card import CONSUMERS
from rerank_nb.model import CrossEncoder, read_own_card
from rerank_nb.train_reranker import parse_args

SECRET = 'hf_' + 'AbCdEfGh' * 4


@pytest.fixture(scope='module')
def ran(tmp_path_factory):
    "Folder of a run with all kinds of saved models, and its settings."
    from rerank_nb.engine import forget_accelerator
    forget_accelerator()
    place = tmp_path_factory.mktemp('card')
    start = Path(still_model(place/'start'))
    (start/'README.md').write_text('---\nlicense: mit\nbase_model: someone/encoder\n---\n# Start\n')
    (start/'vocab.txt').write_text('[PAD]\n')
    data, dev = binary_file(place/'train.jsonl', 24), binary_file(place/'dev.jsonl', 10, seed=1)
    kw = dict(eval_dataset=dev, metric_for_best_model='ndcg@10', seed=7, max_len=64, epochs=2)
    quiet(parse_args(flags(start, data, place/'out', **kw)))
    forget_accelerator()
    return place/'out', place


def card_of(folder): return (folder/'README.md').read_text(encoding='utf-8')


def test_every_saved_folder_of_a_run_has_its_card(ran):
    out, place = ran
    folders = [out/n for n in ('model', 'best', 'epoch_1', 'epoch_2')]
    for f in folders:
        card = card_of(f)
        assert read_own_card(f) is None and f'\n# {f.name}\n' in card and (f/'vocab.txt').read_text() == '[PAD]\n'
        assert yaml.safe_load(card.split('---')[1])['license'] == 'mit' and 'Licence: mit' in card
        assert str(place) not in card and str(Path.home()) not in card
        assert json.loads((f/'config.json').read_text())['rerank_nb'] == CrossEncoder.from_pretrained(f).contract
    card = card_of(out/'model')
    assert '| training | train.jsonl | 24 | 13 | 120 |' in card
    assert re.search(r'^\| evaluation \| dev.jsonl \| 10 \| \d+ \| 50 \|$', card, re.M)
    assert '--dataset train.jsonl' in card and '--seed 7' in card and 'Seed 7.' in card and '--lr 0.001' in card
    assert 'transformers 5' in card and 'in epoch 2 of 2' in card and 'in epoch 1 of 2' in card_of(out/'epoch_1')


def test_a_card_says_what_was_measured_before_and_after(ran):
    out, _ = ran
    records = [json.loads(l) for l in (out/'metrics.jsonl').read_text().splitlines()]
    evals = [r for r in records if 'eval_map' in r]
    for folder, last in (('epoch_1', evals[1]), ('model', evals[2])):
        for k in ('ndcg@10', 'mrr@10', 'map'):
            a, b = evals[0][f'eval_{k}'], last[f'eval_{k}']
            line = re.search(rf'^\| {k} \|.*', card_of(out/folder), re.M)[0]
            assert line.startswith(f'| {k} | {a:.4f} | {b:.4f} | {b - a:+.4f} | ')
            lo, hi = map(float, re.search(r'([+-][\d.]+) to ([+-][\d.]+) \|$', line).groups())
            assert lo <= b - a + 1e-4 and b - a <= hi + 1e-4 and lo < hi
    assert re.search(r'^Over \d+ queries', card_of(out/'model'), re.M)


def code_of(folder, library):
    "The card's code of a library."
    return re.search(rf'^{re.escape(library)} \(\S+\):\n\n```python\n(.*?)```', card_of(folder), re.S | re.M)[1]


def as_logits(scores, library):
    scores = torch.as_tensor([float(s) for s in scores])
    return scores if CONSUMERS[library].gives == 'logit' else torch.logit(scores.double()).float()


def scores_of(folder, library, monkeypatch):
    "Run the card's code of a library as it stands, beside the folder."
    monkeypatch.chdir(folder.parent)
    space = {}
    exec(compile(code_of(folder, library), library, 'exec'), space)
    return as_logits(space['scores'], library)


@pytest.mark.parametrize('library', ['transformers', 'sentence-transformers'])
def test_the_code_on_the_card_gives_the_same(ran, library, monkeypatch):
    ours, theirs = (scores_of(ran[0]/'model', name, monkeypatch) for name in ('rerank_nb', library))
    assert ours.std() > 1e-3, 'these scores say nothing'
    assert (ours - theirs).abs().max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize('library,package', [
    ('rerankers', 'rerankers==0.10.0'), ('LangChain community', 'langchain-community<0.5')])
def test_the_code_of_other_libraries_gives_the_same(ran, library, package, monkeypatch):
    "In an environment of its own, with the torch and transformers that are here."
    folder = ran[0]/'model'
    python = own_environment(library.split()[0], package, beside_ours=True)
    code = f"{code_of(folder, library)}\nimport json; print(json.dumps([float(s) for s in scores]))"
    p = run(python, '-c', code, cwd=folder.parent, env=clean_env())
    assert p.returncode == 0, p.stderr
    theirs = as_logits(json.loads(p.stdout.splitlines()[-1]), library)
    assert (scores_of(folder, 'rerank_nb', monkeypatch) - theirs).abs().max() < 1e-4


# ---------- a stand-in of the hub ----------

class Hub(BaseHTTPRequestHandler):
    "What huggingface_hub asks for when it sends a folder; what it got is in `got`, which paths in `asked`."
    def log_message(self, *_): pass

    def answer(self, status=200, **body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def body(self): return self.rfile.read(int(self.headers.get('Content-Length') or 0))

    def known(self):
        self.server.asked.append(self.path)
        if self.headers.get('Authorization') == f'Bearer {SECRET}': return True
        self.answer(401, error='Invalid user token.')

    def do_GET(self):
        if not self.known(): return
        if self.path == '/api/whoami-v2':
            return self.answer(name='ann', orgs=[], auth=dict(accessToken=dict(role='write')))
        self.answer(404, error='not here')

    do_HEAD = do_GET

    def do_PUT(self):
        self.server.got[self.path.removeprefix('/stored/')] = self.body()
        self.answer()

    def do_POST(self):
        if not self.known(): return
        body, at = self.body(), f'http://{self.headers["Host"]}'
        if self.path in self.server.broken: return self.answer(503, error='out of order')
        if self.path == '/api/repos/create':
            self.server.created = json.loads(body)
            self.answer(url=f'{at}/ann/m')
        elif '/preupload/' in self.path:
            modes = {True: 'lfs', False: 'regular'}
            self.answer(files=[dict(path=f['path'], uploadMode=modes[f['path'].endswith('.safetensors')],
                                    shouldIgnore=False) for f in json.loads(body)['files']])
        elif self.path.endswith('/info/lfs/objects/batch'):
            objects = json.loads(body)['objects']
            for o in objects: o['actions'] = dict(upload=dict(href=f"{at}/stored/{o['oid']}"))
            self.answer(transfer='basic', objects=objects)
        elif '/commit/' in self.path:
            for line in map(json.loads, body.splitlines()):
                value = line['value']
                if line['key'] == 'file': self.server.got[value['path']] = base64.b64decode(value['content'])
                if line['key'] == 'lfsFile': self.server.got[value['path']] = self.server.got.pop(value['oid'])
            self.answer(commitUrl=f'{at}/ann/m/commit/1', commitOid='1', hookOutput='')
        else: self.answer(errors=[], warnings=[])     # /api/validate-yaml


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(('127.0.0.1', 0), Hub)
    server.got, server.asked, server.broken, server.created = {}, [], [], None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def to_hub(hub, monkeypatch, tmp_path):
    "This process's huggingface_hub talks to the stand-in."
    from huggingface_hub import constants
    monkeypatch.setattr(constants, 'ENDPOINT', f'http://127.0.0.1:{hub.server_port}')
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    monkeypatch.setattr(constants, 'HF_HUB_DISABLE_XET', True)
    monkeypatch.setattr(constants, 'HF_TOKEN_PATH', str(tmp_path/'no_token'))
    monkeypatch.setenv('HF_TOKEN', SECRET)
    return hub


def pushed(still, tmp_path, **kw):
    data = binary_file(tmp_path/'d.jsonl', 8)
    return partial(quiet, parse_args(flags(still, data, tmp_path/'out', push_to_hub='ann/m', max_len=32, **kw)))


def test_a_run_sends_its_model_to_the_hub(still, tmp_path, to_hub, alone, capsys):
    pushed(still, tmp_path)()
    out = tmp_path/'out'
    sent = {p.name: p.read_bytes() for p in (out/'model').iterdir() if p.name != '.rerank_nb.json'}
    assert to_hub.got == sent and to_hub.created['visibility'] == 'private'
    assert 'from_pretrained(\'ann/m\')' in sent['README.md'].decode() and '/ann/m' in capsys.readouterr().out
    for p in out.rglob('*'): assert p.is_dir() or SECRET.encode() not in p.read_bytes(), p


@pytest.mark.parametrize('what', ['token', 'owner'])
def test_what_the_hub_would_refuse_is_said_before_training(what, still, tmp_path, to_hub, alone, monkeypatch):
    from rerank_nb.files import UserError
    if what == 'token': monkeypatch.setenv('HF_TOKEN', 'hf_wrong')
    kw = dict(token={}, owner=dict(push_to_hub='bob/m'))[what]
    says = dict(token='the hub does not take the token', owner="found the owner 'bob'")[what]
    data = binary_file(tmp_path/'d.jsonl', 8)
    config = parse_args(flags(still, data, tmp_path/'out', **dict(push_to_hub='ann/m') | kw))
    with pytest.raises(UserError, match=says): quiet(config)
    assert not (tmp_path/'out').exists()
    assert '/api/whoami-v2' in to_hub.asked and not [p for p in to_hub.asked if 'repos' in p or 'models' in p]


def test_a_hub_that_is_not_reached_is_not_a_token_that_is_refused(to_hub, monkeypatch):
    from huggingface_hub import constants
    from rerank_nb.card import check_push
    from rerank_nb.files import UserError
    monkeypatch.setattr(constants, 'ENDPOINT', 'http://127.0.0.1:9')
    with pytest.raises(UserError, match='the hub is not reached: .*refused'): check_push('ann/m')


def test_a_model_that_cannot_be_sent_is_kept_with_the_command_that_sends_it(still, tmp_path, to_hub, alone):
    from rerank_nb.files import UserError
    to_hub.broken.append('/api/repos/create')
    out = tmp_path/'out'
    with pytest.raises(UserError, match=re.escape(f'hf upload ann/m {out}/model')) as e: pushed(still, tmp_path)()
    assert SECRET not in str(e.value)
    assert CrossEncoder.from_pretrained(out/'model').compute_score([['a', 'b']]).isfinite()
