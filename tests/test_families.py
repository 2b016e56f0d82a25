"Every family that transformers has a sequence classifier for scores as transformers does, alone and in company."
import pytest, torch, transformers
from packaging.version import Version
from transformers import CONFIG_MAPPING, AutoModelForSequenceClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as FAMILIES
from rerank_nb.data import Pair
from rerank_nb.files import UserError
from rerank_nb.model import CrossEncoder, head_modules
from rerank_nb.tiny import tiny_tokenizer

SMALL = dict(
    vocab_size=256, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
    intermediate_size=64, head_dim=16, max_position_embeddings=128,
    embedding_size=32, d_model=32, n_embd=32, n_layer=2, n_head=2, n_layers=2, n_heads=2, d_ff=64, d_kv=16,
    num_layers=2, num_decoder_layers=2, dim=32, hidden_dim=64,
    encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=64,
    decoder_ffn_dim=64, ffn_dim=64, emb_dim=32, dff=64,
    n_positions=128, n_inner=64, d_inner=64, d_head=16, moe_intermediate_size=32, shared_expert_intermediate_size=32,
    num_experts=2, num_local_experts=2, num_experts_per_tok=1,
    n_routed_experts=4, n_group=1, topk_group=1, q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8,
    qk_nope_head_dim=8, v_head_dim=16, first_k_dense_replace=1, rotary_dim=8,
    word_embed_proj_dim=32, pooler_hidden_size=32, d_latents=32, num_latents=8, entity_vocab_size=8, entity_emb_size=16,
    cross_attention_hidden_size=32, pad_token_id=1, bos_token_id=0, eos_token_id=2,
    initializer_range=.1, init_std=.1, embed_init_std=.1)
OWN = {   # what a family needs besides, or instead
    **dict.fromkeys(['axk1', 'axk2', 'deepseek_v2', 'deepseek_v3', 'minicpm3'], dict(head_dim=8)),
    'lilt': dict(hidden_size=48),
    'reformer': dict(axial_pos_embds_dim=(16, 16), axial_pos_shape=(16, 8), attn_layers=['local', 'local']),
    't5': dict(decoder_start_token_id=1),
    'cohere_compass_text': dict(rope_parameters={k: dict(rope_type='default', rope_theta=1e4, mrope_section=[4, 2, 2])
                                                 for k in ('full_attention', 'sliding_attention')}),
    'jamba': dict(attn_layer_offset=1, attn_layer_period=2),
    'layoutlmv3': dict(coordinate_size=4, shape_size=8),
    'zamba': dict(num_hidden_layers=4, layers_block_type=['linear_attention', 'hybrid']*2, attention_hidden_size=64,
                  attention_head_dim=32),
    'zamba2': dict(num_hidden_layers=4, layers_block_type=['linear_attention', 'hybrid']*2, hybrid_layer_ids=[1, 3],
                   mamba_headdim=8, attention_hidden_size=64, attention_head_dim=32),
    'xmod': dict(default_language='en_XX'),
}
NOT_BUILT = {   # the reason
    'layoutlmv2': 'the network needs detectron2',
    'mra': 'attention is a CUDA kernel: on a CPU all texts score alike',
}
OLDER = Version(transformers.__version__) < Version('5.20')
if OLDER:
    NOT_BUILT |= dict.fromkeys(['deepseek_v3', 'mistral4', 'qwen3_5', 'zamba'], 'has other fields in the configuration')
    NOT_BUILT |= dict.fromkeys(['doge', 'umt5'], 'the mask of the padding was not heeded')
PAIRS = [['list the files', 'use the command ls to show what a directory holds'], ['a', 'b'],
         ['the quick fox jumps', 'over'], ['why', 'give the dough more time '*30]]


def shrink(config, own):
    "Set what a configuration has to small values, in its parts as well."
    for k, v in {**SMALL, **own}.items():
        if k in own or k in config.__dict__ or k in config.attribute_map: setattr(config, k, v)
    for part in config.__dict__.values():
        if hasattr(part, 'model_type'): shrink(part, {})
    if isinstance(config.__dict__.get('layer_types'), list): config.layer_types = config.layer_types[-2:]
    return config


def small_model(kind):
    "A random sequence classifier of two layers."
    config = shrink(CONFIG_MAPPING[kind](), OWN.get(kind, {}))
    config.num_labels = 1
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(config).eval()


def one_by_one(model, tokenizer, pairs, max_len):
    "What transformers gives for each pair alone."
    with torch.no_grad():
        rows = [tokenizer(*p, truncation='only_second', max_length=max_len, return_tensors='pt') for p in pairs]
        return torch.cat([model(**r).logits.flatten() for r in rows])


def compare(kind, tokenizer):
    "Largest difference between our scores of pairs together and transformers' of each alone, relative to their size."
    model = small_model(kind)
    ours = CrossEncoder(model, tokenizer)
    max_len = min(ours.max_len, 120)
    theirs = one_by_one(model, tokenizer, PAIRS, max_len)
    assert theirs.std() > 1e-4, f'{kind}: these scores say nothing'
    return ((ours.compute_score(PAIRS, max_len=max_len) - theirs).abs().max() / theirs.abs().max().clamp(min=1)).item()


def test_every_family_scores_as_transformers_does():
    tokenizer = tiny_tokenizer('xlm-roberta')
    found = {k: compare(k, tokenizer) for k in FAMILIES if k not in NOT_BUILT}
    assert {k: d for k, d in found.items() if not d < 5e-6} == {}   # sums of other threads differ by 2e-6
    assert len(found) == len(FAMILIES.keys() - NOT_BUILT.keys()) >= (110 if OLDER else 120)


@pytest.mark.parametrize('kind', ['bert', 'gpt2', 'xlnet', 'funnel', 'fnet', 'deberta-v2', 'convbert', 'squeezebert'])
def test_token_types_of_the_tokenizer_reach_the_network(kind):
    tokenizer = tiny_tokenizer('bert')
    assert 'token_type_ids' in tokenizer('a', 'b')
    assert compare(kind, tokenizer) < 1e-6


@pytest.mark.parametrize('kind', ['gpt2', 'qwen3', 'bert'])
def test_a_tokenizer_that_pads_on_the_left_changes_no_score(kind):
    tokenizer = tiny_tokenizer('xlm-roberta')
    tokenizer.padding_side = 'left'
    assert compare(kind, tokenizer) < 1e-6


def test_a_family_of_its_own_code_is_padded_as_its_tokenizer_says(monkeypatch):
    model, tokenizer = small_model('xlnet'), tiny_tokenizer('xlm-roberta')
    monkeypatch.setattr(type(model.config), 'model_type', 'new')
    tokenizer.padding_side = 'left'
    ours = CrossEncoder(model, tokenizer)
    assert (ours.compute_score(PAIRS, max_len=120) - one_by_one(model, tokenizer, PAIRS, 120)).abs().max() < 1e-6


@pytest.mark.parametrize('kind', ['fnet', 'yoso'])
def test_no_padding_where_padding_changes_scores_under_several_processes(kind, monkeypatch):
    ours = CrossEncoder(small_model(kind), tiny_tokenizer('xlm-roberta'))
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch.distributed, 'get_world_size', lambda: 2)
    with pytest.raises(UserError, match='start one process'): ours.compute_score(PAIRS[1:3])


@pytest.mark.parametrize('kind', ['bert', 'xlm-roberta', 'deberta-v2', 'gpt2', 'qwen3', 'xlnet', 't5', 'bart',
                                  'modernbert', 'funnel'])
def test_head_in_float32_whatever_the_layers_use(kind):
    model = small_model(kind)
    ours, seen = CrossEncoder(model, tiny_tokenizer('xlm-roberta')), []
    last = [m for head in head_modules(model) for m in head.modules() if isinstance(m, torch.nn.Linear)]
    assert last, 'a head without a linear layer'
    for m in last: m.register_forward_hook(lambda m, args, out: seen.append(out.dtype))
    full = ours.compute_score(PAIRS, max_len=120)
    for how in (dict(mixed_precision='bf16'), dict()):
        if not how: ours.model.bfloat16()
        seen.clear()
        half = ours.compute_score(PAIRS, max_len=120, **how)
        assert len(seen) >= len(last) and set(seen) == {torch.float32}
        assert 0 < (half - full).abs().max() < .2 * full.abs().max()
    loss = ours(ours.collator(32)([Pair(*p) for p in PAIRS])).square().sum()
    loss.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.bfloat16 for m in last for p in m.parameters())


@pytest.mark.parametrize('kind', ['big_bird', 'bigbird_pegasus'])
def test_a_long_text_scores_alike_before_and_after_a_short_one(kind, monkeypatch):
    for k in ('max_position_embeddings', 'n_positions'): monkeypatch.setitem(SMALL, k, 1024)
    ours = CrossEncoder(small_model(kind), tiny_tokenizer('xlm-roberta', 1024))
    long = ['why', 'give the dough more time '*230]
    before = ours.compute_score([long], max_len=1000)
    ours.compute_score(['a', 'b'])
    assert (ours.compute_score([long], max_len=1000) - before).abs() < 1e-6
