"Every family with a head in FAMILIES: packed is padded is transformers alone, in logits, gradients and dropout."
import copy, warnings
import pytest, torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification
from helpers import binary_file, command, env, finished, flags, run
from test_fsdp import same_folder, same_records
from rerank_nb.data import pack
from rerank_nb.engine import CONFIG_FILES, check_layers, layer_class
from rerank_nb.files import UserError
from rerank_nb.model import FAMILIES, CrossEncoder, position_start
from rerank_nb.tiny import tiny_model, tiny_tokenizer

SMALL = dict(vocab_size=200, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
             max_position_embeddings=256, initializer_range=.2, pad_token_id=1, bos_token_id=0, eos_token_id=2,
             num_labels=1)
SHARED = dict(num_key_value_heads=2, head_dim=8)   # two queries read one key
LOCAL = dict(layer_types=['full_attention', 'sliding_attention'])
QWEN = dict(SHARED, use_sliding_window=True, sliding_window=8, max_window_layers=1, **LOCAL)
OWN = {   # what a family needs besides
    'distilbert': dict(dim=32, hidden_dim=48, n_layers=2, n_heads=4),
    'modernbert': dict(local_attention=16, cls_token_id=0, sep_token_id=2, **LOCAL),
    'eurobert': SHARED, 'llama': SHARED, 'qwen2': QWEN, 'qwen3': QWEN,
    'gemma3_text': dict(SHARED, sliding_window=8, query_pre_attn_scalar=8, **LOCAL)}
VARIANTS = [
    *((kind, {}) for kind in FAMILIES if FAMILIES[kind].head),
    ('modernbert', dict(classifier_pooling='mean')), ('eurobert', dict(classifier_pooling='bos')),
    ('eurobert', dict(classifier_pooling='mean')), ('gemma3_text', dict(use_bidirectional_attention=True)),
    ('qwen3', dict(sliding_window=None, use_sliding_window=False, layer_types=['full_attention']*2))]
LENS = (3, 120, 8, 9, 9, 10, 57, 3)   # from below a window of 8 to far beyond it
LAYERS = {
    'bert': 'BertLayer', 'electra': 'ElectraLayer', 'roberta': 'RobertaLayer', 'xlm-roberta': 'XLMRobertaLayer',
    'camembert': 'CamembertLayer', 'distilbert': 'TransformerBlock', 'nomic_bert': 'NomicBertLayer',
    'modernbert': 'ModernBertEncoderLayer', 'eurobert': 'EuroBertDecoderLayer', 'llama': 'LlamaDecoderLayer',
    'qwen2': 'Qwen2DecoderLayer', 'qwen3': 'Qwen3DecoderLayer', 'gemma3_text': 'Gemma3DecoderLayer'}


def name(v): return ' '.join([v[0], *map(str, v[1].values())])


def make(kind, **own):
    "A tiny random model of a family, without dropout."
    config = AutoConfig.for_model(kind, **SMALL | OWN.get(kind, {}) | own)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation='packed')
    for m in model.modules():
        if isinstance(m, nn.Dropout): m.p = 0.
    return CrossEncoder(model, tiny_tokenizer('xlm-roberta', 256)).eval()


def random_batch(model, lens=LENS):
    g = torch.Generator().manual_seed(1)
    pairs = [(torch.randint(3, 200, (n,), generator=g).tolist(), [0]*n) for n in lens]
    return pack(pairs, position_start=position_start(model.model.config))


def gradients(model, logits):
    model.zero_grad()
    (logits * torch.linspace(-1, 2, len(logits)).to(logits)).mean().backward()
    return {k: torch.zeros_like(p) if p.grad is None else p.grad.clone() for k, p in model.named_parameters()}


def largest(a, b): return max((a[k] - b[k]).abs().max().item() for k in a)


def alone(model, batch):
    "Logits by transformers' own eager attention, pair by pair."
    other = copy.deepcopy(model.model)
    other.set_attn_implementation('eager')
    return torch.cat([other(input_ids=ids[None], attention_mask=torch.ones_like(ids)[None]).logits[0]
                      for ids in batch.input_ids.split(batch.lens)])


@pytest.mark.parametrize('kind,own', VARIANTS, ids=map(name, VARIANTS))
def test_packed_is_padded_and_what_transformers_gives(kind, own):
    model = make(kind, **own)
    batch = random_batch(model)
    assert model.packed
    packed, padded, theirs = model(batch), model(batch, padded=True), alone(model, batch)
    assert packed.std() > 1e-2, 'these logits say nothing'
    for other in (padded, theirs): assert (packed - other).abs().max() < 1e-5
    ours = gradients(model, packed)
    assert max(g.abs().max() for g in ours.values()) > .1
    assert largest(ours, gradients(model, padded)) < 1e-5


@pytest.mark.parametrize('kind', ['distilbert', 'modernbert', 'qwen3'])
def test_dropped_attention_is_that_of_the_padded_way(kind):
    "Over many draws the logits of both ways have one mean and spread alike; the whole is not what is without."
    dropped = {k: .3 for k in ('attention_dropout', 'attention_probs_dropout_prob')}
    model = make(kind, **dropped)
    batch = random_batch(model, (3, 20, 20, 11))
    still = model(batch)
    if kind == 'distilbert':   # its attention keeps the probability in a module
        for layer in model.model.distilbert.transformer.layer: layer.attention.dropout.p = .3
    model.train()
    torch.manual_seed(2)
    with torch.no_grad():
        packed, padded = (torch.stack([model(batch, way) for _ in range(200)]) for way in (False, True))
    error = ((packed.var(0) + padded.var(0)) / 200).sqrt()
    assert ((packed.mean(0) - padded.mean(0)) / error).abs().max() < 4
    ratio = packed.std(0) / padded.std(0)
    assert ((ratio > .8) & (ratio < 1.25)).all(), ratio
    assert packed.std(0).min() > 1e-3 and torch.equal(model.eval()(batch), still)


def without_pad(end_is_pad=False):
    "A decoder, and a tokenizer that ends pairs with its end token; no padding token is known, or the end token is it."
    model, tokenizer = make('qwen3').model, tiny_tokenizer('xlm-roberta', 256)
    model.config.pad_token_id = tokenizer.eos_token_id if end_is_pad else None
    tokenizer.pad_token = tokenizer.eos_token if end_is_pad else None
    return model, tokenizer


PAIRS = [['list the files', 'use the command ls'], ['a', 'b'], ['why', 'give the dough more time']]


@pytest.mark.parametrize('end_is_pad', [False, True])
def test_a_decoder_scores_as_it_does_alone_whatever_pads(end_is_pad):
    model, tokenizer = without_pad(end_is_pad)
    with torch.no_grad():   # one by one nothing is padded
        theirs = torch.cat([model(**tokenizer(*p, return_tensors='pt')).logits[0] for p in PAIRS])
    ours = CrossEncoder(model, tokenizer).eval()
    batch = pack([(tokenizer(*p)['input_ids'], tokenizer(*p)['attention_mask']) for p in PAIRS])
    assert batch.input_ids[-1] == tokenizer.eos_token_id
    assert (ours.compute_score(PAIRS, max_len=64) - theirs).abs().max() < 1e-5
    ours._tell = lambda *said: None   # see the next test
    for padded in (False, True): assert (ours(batch, padded=padded) - theirs).abs().max() < 1e-5


def test_a_borrowed_padding_token_is_named_once_and_only_where_it_pads():
    model, tokenizer = without_pad()
    ours = CrossEncoder(model, tokenizer).eval()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        ours.compute_score(PAIRS, max_len=64)
        assert not told
        for _ in range(2): ours(random_batch(ours), padded=True)
    assert [str(w.message) for w in told] == ['the model has no padding token: <s> stands in for it']


@pytest.mark.parametrize('kind', LAYERS)
def test_the_layers_to_shard_are_found(kind, monkeypatch):
    model = make(kind).model
    assert layer_class(model) == LAYERS[kind]
    wrong = 'BertLayer' if kind != 'bert' else 'RobertaLayer'
    for k, v in dict(ACCELERATE_USE_FSDP='true', FSDP_AUTO_WRAP_POLICY='TRANSFORMER_BASED_WRAP').items():
        monkeypatch.setenv(k, v)
    monkeypatch.setenv('FSDP_TRANSFORMER_CLS_TO_WRAP', LAYERS[kind])
    check_layers(model)
    monkeypatch.setenv('FSDP_TRANSFORMER_CLS_TO_WRAP', wrong)
    remedy = CONFIG_FILES.get(LAYERS[kind], f'--fsdp_transformer_layer_cls_to_wrap {LAYERS[kind]}')
    with pytest.raises(UserError, match=remedy): check_layers(model)


def test_every_family_that_runs_packed_is_tried():
    assert set(LAYERS) == {k for k, record in FAMILIES.items() if record.head}


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['modernbert', 'qwen3'])
def test_two_processes_equal_one(kind, tmp_path):
    tiny = {k: v for k, v in OWN[kind].items() if not k.endswith('_id')}
    model = tiny_model(tmp_path/'tiny', kind, num_attention_heads=4, **tiny)
    data, dev = binary_file(tmp_path/'t.jsonl', 43), binary_file(tmp_path/'d.jsonl', 11, seed=1)
    kw = dict(eval_dataset=dev, logging_steps=1, lr=2e-5, mixed_precision='no')
    one, two, script = tmp_path/'one', tmp_path/'two', 'rerank_nb/train_reranker.py'
    a = finished(run(*command(1, script=script), *flags(model, data, one, batch_size=20, **kw), env=env()), one)
    words = flags(model, data, two, batch_size=10, **kw)
    b = finished(run(*command(2, kind, script), *words, env=env()), two)
    assert [r['step'] for r in a] == [r['step'] for r in b] and len(a) > 5
    same_records(a, b, ('loss', 'grad_norm', 'eval_loss', 'lr'), abs=1e-6, rel=1e-6)
    same_folder(one/'model', two/'model')
