"A saved folder in other hands: who may read its files, and what other versions of transformers read in them."
import json, os, subprocess, sys, tempfile
from pathlib import Path
import pytest, torch
from helpers import ROOT, binary_file, flags, quiet, run
from tokenizers import normalizers
from transformers import AutoTokenizer, BertTokenizer
from rerank_nb.base import write_patch
from rerank_nb.evaluation import load_lists, evaluate_scores, write_files
from rerank_nb.model import CrossEncoder, HARD_TEXTS, encodings
from rerank_nb.scoring import score_dataset
from rerank_nb.tiny import tiny_tokenizer
from rerank_nb.train_reranker import parse_args

PAIRS = [['我喜欢中国', '我喜欢美国'], ['how do i list files', 'Use the command LS, café 😀'], ['', 'a [SEP] b'],
         ['fox', 'the quick brown fox ' * 60]]
OLDER = ('transformers==4.57.6', 'huggingface_hub<1', 'tokenizers<0.23')   # the last transformers 4
BY_OLDER = """
import json, sys, torch, transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer
assert transformers.__version__.startswith('4.'), transformers.__version__
out = []
for folder, texts, pairs in json.load(open(sys.argv[1])):
    tok = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    found = [tok(*given, return_token_type_ids=True) for given in ([texts], [texts, texts[::-1]])]
    rows = [x[key] for x in found for key in ('input_ids', 'token_type_ids')]
    rectangle = tok(pairs, padding=True, truncation=True, return_tensors='pt')
    with torch.no_grad(): out.append([[tok.model_input_names, *rows], model(**rectangle).logits[:, 0].tolist()])
json.dump(out, open(sys.argv[2], 'w'))
"""


# ---------- who may read it ----------

@pytest.fixture
def umask():
    "Set it for one test."
    was = os.umask(0o022)
    yield os.umask
    os.umask(was)


def files_below(folder): return [p for p in Path(folder).rglob('*') if p.is_file()]


@pytest.mark.parametrize('mask', [0o002, 0o027])
def test_every_file_that_a_run_writes_follows_the_umask(mask, umask, still, tmp_path, alone):
    umask(mask)
    data, out = binary_file(tmp_path/'d.jsonl', 12), tmp_path/f'out{mask:o}'
    kw = dict(eval_dataset=data, metric_for_best_model='ndcg@10', checkpointing_steps=2, max_len=32)
    quiet(parse_args(flags(still, data, out, **kw)))
    scored = Path(score_dataset(still, data, out/'scored.jsonl', batch_size=16, max_len=32))
    ds = load_lists(data)
    scores = [0.]*len(ds)
    write_files(out/'measured', ds, scores, evaluate_scores(scores, ds))
    write_patch(out/'patch.safetensors', {'a': torch.zeros(2)}, 'x')
    written = files_below(out)
    names = {p.name for p in written}
    assert {'model.safetensors', 'metrics.jsonl', 'state.json', 'patch.safetensors', 'run.trec', scored.name} <= names
    assert {'model', 'best', 'epoch_1', 'checkpoint_2'} <= {p.parent.name for p in written}
    wrong = {str(p.relative_to(out)): f'{p.stat().st_mode & 0o777:o}' for p in written
             if p.stat().st_mode & 0o777 != 0o666 & ~mask}
    assert not wrong


@pytest.mark.skipif(os.getuid() != 0, reason='only root can become another user')
def test_another_user_reads_a_saved_folder(tiny):
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        folder = CrossEncoder.from_pretrained(tiny['bert']).save_pretrained(Path(place)/'m')
        paths = list(map(str, files_below(folder)))
        nobody = dict(user=65534, group=65534, cwd='/', capture_output=True)
        def reads(): return subprocess.run(['cat', *paths], timeout=60, **nobody)
        p = reads()
        assert p.returncode == 0 and len(p.stdout) == sum(os.path.getsize(q) for q in paths), p.stderr
        os.chmod(Path(folder)/'model.safetensors', 0o600)     # as safetensors left it
        assert b'Permission denied' in reads().stderr


# ---------- whose tokenizer it is ----------

def told_of(folder, file='tokenizer_config.json'): return json.loads((Path(folder)/file).read_text(encoding='utf-8'))


def change_rules(tok, **rules):
    "A BERT tokenizer with other rules for case, accents and Chinese."
    tok.backend_tokenizer.normalizer = normalizers.BertNormalizer(**rules)
    return tok


def other_model(tok):
    "WordPiece that knows shorter words only: no class of transformers writes that down."
    tok.backend_tokenizer.model.max_input_chars_per_word = 5
    return tok


def with_more(tok):
    tok.add_special_tokens(dict(extra_special_tokens=['<|q|>']))
    return tok


def without_types(tok):
    tok.model_input_names = ['input_ids', 'attention_mask']
    return tok


TOKENIZERS = {   # what is saved -> (tokenizer, the class that is written)
    'bert': (lambda: tiny_tokenizer('bert'), 'BertTokenizer'),
    'cased': (lambda: change_rules(tiny_tokenizer('bert'), lowercase=False, strip_accents=True), 'BertTokenizer'),
    'whole chinese': (lambda: change_rules(tiny_tokenizer('bert'), handle_chinese_chars=False), 'BertTokenizer'),
    'dirty': (lambda: change_rules(tiny_tokenizer('bert'), clean_text=False), 'PreTrainedTokenizerFast'),
    'short words': (lambda: other_model(tiny_tokenizer('bert')), 'PreTrainedTokenizerFast'),
    'no types': (lambda: without_types(tiny_tokenizer('bert')), 'BertTokenizer'),
    'more': (lambda: with_more(tiny_tokenizer('bert')), 'BertTokenizer'),
    'xlm-roberta': (lambda: tiny_tokenizer('xlm-roberta'), 'PreTrainedTokenizerFast')}


def save_with(name, tiny, folder):
    "A saved folder with one of these tokenizers; its model has rows enough."
    kind = 'xlm-roberta' if name == 'xlm-roberta' else 'bert'
    ours = CrossEncoder.from_pretrained(tiny[kind])
    tok = TOKENIZERS[name][0]()
    ours.model.resize_token_embeddings(len(tok))
    return CrossEncoder(ours.model, tok).save_pretrained(folder), tok


@pytest.mark.parametrize('name', TOKENIZERS)
def test_the_class_that_is_written_reads_the_same(name, tiny, tmp_path):
    folder, tok = save_with(name, tiny, tmp_path/'saved')
    again, told = AutoTokenizer.from_pretrained(folder), told_of(folder)
    assert told['tokenizer_class'] == TOKENIZERS[name][1]
    assert encodings(again) == encodings(tok) and again.extra_special_tokens == tok.extra_special_tokens
    assert 'extra_special_tokens' not in told     # transformers 4 expects something else under this name
    if told['tokenizer_class'] == 'BertTokenizer': assert isinstance(again, BertTokenizer)


@pytest.mark.parametrize('kind', ['bert', 'xlm-roberta'])
def test_a_tokenizer_with_words_around_its_texts_is_read_the_same(kind, tiny, tmp_path):
    words = dict(query_template='list {}', doc_template='files {}')
    ours = CrossEncoder.from_pretrained(tiny[kind], **words)
    folder = ours.save_pretrained(tmp_path/'saved')
    told = told_of(folder)
    assert told | words == told and told['tokenizer_class'] == 'PreTrainedTokenizerFast'
    again = CrossEncoder.from_pretrained(folder)
    assert encodings(again.tokenizer) == encodings(ours.tokenizer)
    assert torch.equal(again.compute_score(PAIRS), ours.compute_score(PAIRS))


def test_the_vocabulary_of_the_start_is_in_every_saved_folder(tiny, tmp_path):
    "Also where words are put around the texts; nothing reads it in the place of tokenizer.json."
    start = Path(CrossEncoder.from_pretrained(tiny['xlm-roberta']).save_pretrained(tmp_path/'start'))
    (start/'sentencepiece.bpe.model').write_bytes(b'\x0a\x0e not a vocabulary')
    ours = CrossEncoder.from_pretrained(start, query_template='list {}')
    (start/'sentencepiece.bpe.model').unlink()     # the start may be gone by then
    for _ in range(2): folder = Path(ours.save_pretrained(tmp_path/'saved'))
    assert (folder/'sentencepiece.bpe.model').read_bytes() == b'\x0a\x0e not a vocabulary'
    again = CrossEncoder.from_pretrained(folder)
    assert encodings(again.tokenizer) == encodings(ours.tokenizer) and [*again.carried] == ['sentencepiece.bpe.model']


@pytest.mark.slow
def test_transformers_4_reads_the_same(tiny, tmp_path):
    "In an environment of its own: texts and pairs become the same tokens, and pairs get the same logits."
    older = tmp_path/'older'
    p = run(sys.executable, '-m', 'pip', 'install', '-q', '--target', older, '--no-deps', *OLDER, timeout=1500)
    assert p.returncode == 0, p.stderr
    saved = [save_with(name, tiny, tmp_path/name)[0] for name in TOKENIZERS]
    for kind in tiny:
        words = CrossEncoder.from_pretrained(tiny[kind], query_template='list {}', doc_template='files {}')
        saved.append(words.save_pretrained(tmp_path/f'words {kind}'))
    if (base := ROOT/'models/reranker-zh-en').is_dir():
        saved.append(CrossEncoder.from_pretrained(base).save_pretrained(tmp_path/'zh-en'))
    ours = [CrossEncoder.from_pretrained(f) for f in saved]
    asked = [[f, [*HARD_TEXTS, *(f'a {t}b' for t in m.tokenizer.all_special_tokens)], PAIRS[:2]]
             for f, m in zip(saved, ours)]
    (tmp_path/'asked.json').write_text(json.dumps(asked))
    cmd = [sys.executable, '-c', BY_OLDER, tmp_path/'asked.json', tmp_path/'found.json']
    p = run(*cmd, cwd=tmp_path, env=dict(PYTHONPATH=str(older)), timeout=900)
    assert p.returncode == 0, p.stderr
    for folder, m, (rows, logits) in zip(saved, ours, json.loads((tmp_path/'found.json').read_text())):
        assert rows == encodings(m.tokenizer), folder
        assert (torch.tensor(logits) - m.compute_score(PAIRS[:2])).abs().max() < 1e-5, folder


# ---------- what a score is ----------

IDENTITY = 'torch.nn.modules.linear.Identity'


@pytest.mark.parametrize('start_said', [dict(sentence_transformers=dict(activation_fn=IDENTITY, version='5.0.0')),
                                        dict(sbert_ce_default_activation_function=IDENTITY)])
def test_sentence_transformers_gives_0_to_1_whatever_the_start_said(start_said, tiny, tmp_path):
    from sentence_transformers import CrossEncoder as Theirs
    start = Path(CrossEncoder.from_pretrained(tiny['bert']).save_pretrained(tmp_path/'start'))
    config = told_of(start, 'config.json')
    del config['sentence_transformers']
    (start/'config.json').write_text(json.dumps(config | start_said))
    ours = CrossEncoder.from_pretrained(start)
    logits = ours.compute_score(PAIRS[:2])
    def theirs(folder): return torch.as_tensor(Theirs(str(folder), device='cpu').predict(PAIRS[:2]))
    assert (theirs(start) - logits).abs().max() < 1e-5     # what the start said
    assert (theirs(ours.save_pretrained(tmp_path/'saved')) - logits.sigmoid()).abs().max() < 1e-5
    assert not (tmp_path/'saved/sentence_bert_config.json').exists()
    assert told_of(tmp_path/'saved', 'config.json')['rerank_nb'] == ours.contract


def test_the_layout_of_sentence_transformers_is_saved_whole(tiny, tmp_path):
    from sentence_transformers import CrossEncoder as Theirs
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    last = Dense(32, 1, activation_function=torch.nn.Identity(), module_output_name='scores')
    theirs = Theirs(modules=[Transformer(tiny['bert']), Pooling(32, 'cls'), last], device='cpu',
                    activation_fn=torch.nn.Identity())
    theirs.save_pretrained(str(tmp_path/'st'))
    assert not told_of(tmp_path/'st', 'sentence_bert_config.json').get('max_seq_length')
    ours = CrossEncoder.from_pretrained(tmp_path/'st')
    saved = ours.save_pretrained(tmp_path/'saved')
    assert told_of(saved, 'sentence_bert_config.json')['max_seq_length'] == 128 == ours.contract['max_len']
    assert told_of(saved, 'config.json')['rerank_nb'] == ours.contract
    found = torch.as_tensor(Theirs(saved, device='cpu').predict(PAIRS[:2]))
    assert (found - ours.compute_score(PAIRS[:2]).sigmoid()).abs().max() < 1e-5
