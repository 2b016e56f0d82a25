"Text of every kind, in every kind of model, packed and padded: it is scored and trained on, or refused by name."
import pytest, torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast
from helpers import flags, write_jsonl
from rerank_nb import trainer
from rerank_nb.data import Pair, PairDataset, encode_pairs, pair_template
from rerank_nb.files import UserError
from rerank_nb.model import CrossEncoder
from rerank_nb.tiny import tiny_model, tiny_tokenizer
from rerank_nb.train_reranker import parse_args

SMALL = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, initializer_range=.2,
             max_position_embeddings=256, pad_token_id=1, bos_token_id=0, eos_token_id=2, num_labels=1)
OWN = dict(modernbert=dict(cls_token_id=0, sep_token_id=2, layer_types=['full_attention', 'sliding_attention']),
           qwen3=dict(num_key_value_heads=2, head_dim=8))
KINDS = ('bert', 'xlm-roberta', 'modernbert', 'qwen3')
SPECIAL = '[CLS] [SEP] [PAD] [UNK] [MASK] <s> </s> <pad> <mask> <|im_end|> <|endoftext|>'
TEXTS = {
    'plain': 'list the files', 'empty': '', 'spaces': ' \t\n \u3000', 'invisible': '\u200b\u200d\ufeff\u2060',
    'controls': '\x01\x02\x7f\x85\x9f', 'nul': 'a\0b\0', 'emoji': '👩\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈 👍🏽',
    'right to left': 'مرحبا שלום \u202eabc\u202c',
    'mixed': '泰山 is 1,545 m 高 and 中国 list', 'combined': 'e\u0301' + '\u0301'*200, 'far planes': '𠀀𝔘\U0010ffff\ue000',
    'special': SPECIAL, 'unknown': '\u0c85\u1810', 'one word': 'x'*3000, 'lines': 'a\r\nb\u2028c\x0bd'}


def byte_tokenizer():
    "A decoder's kind of tokenizer: bytes, and nothing around a text."
    specials = ['<|im_start|>', '<|endoftext|>', '<|im_end|>']
    vocab = {c: i for i, c in enumerate([*specials, *pre_tokenizers.ByteLevel.alphabet()])}
    tk = Tokenizer(models.BPE(vocab, []))
    tk.pre_tokenizer, tk.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tk.add_special_tokens(specials)
    return PreTrainedTokenizerFast(tokenizer_object=tk, pad_token='<|endoftext|>', eos_token='<|im_end|>')


@pytest.fixture(scope='module')
def reranker(tmp_path_factory):
    "From a kind to its tiny model, without dropout."
    made = {}
    def make(kind):
        if kind in made: return made[kind]
        if kind in ('bert', 'xlm-roberta'):
            none = dict(hidden_dropout_prob=0., attention_probs_dropout_prob=0.)
            made[kind] = CrossEncoder.from_pretrained(tiny_model(tmp_path_factory.mktemp(kind), kind, **none))
        else:
            tokenizer = byte_tokenizer() if kind == 'qwen3' else tiny_tokenizer('xlm-roberta', 256)
            config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), **SMALL | OWN[kind])
            torch.manual_seed(0)
            model = AutoModelForSequenceClassification.from_config(config, attn_implementation='packed')
            made[kind] = CrossEncoder(model, tokenizer).eval()
        return made[kind]
    return make


def pairs_of_all(): return [[q, d] for q in (TEXTS['plain'], '', SPECIAL) for d in TEXTS.values()]


@pytest.mark.parametrize('kind', KINDS)
def test_scores(kind, reranker):
    "Finite, and the same alone as in company; the order of the words still counts where there are words."
    model, pairs = reranker(kind), pairs_of_all()
    scores = model.compute_score(pairs, max_len=64)
    assert scores.isfinite().all() and len(scores) == len(pairs)
    some = range(0, len(pairs), 4)
    alone = torch.cat([model.compute_score([pairs[i]], max_len=64) for i in some])
    assert (alone - scores[list(some)]).abs().max() < 1e-5
    assert len({round(s, 4) for s in scores.tolist()}) > 10


@pytest.mark.parametrize('kind', KINDS)
def test_packed_is_padded_in_gradients(kind, reranker):
    model = reranker(kind)
    batch = model.collator(64)([Pair(q, d, i % 2) for i, (q, d) in enumerate(pairs_of_all())])
    assert model.packed
    found = []
    for padded in (False, True):
        model.zero_grad()
        logits = model(batch, padded=padded)
        torch.nn.functional.binary_cross_entropy_with_logits(logits, batch.labels).backward()
        found.append((logits.detach(), {k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}))
    (a, of_a), (b, of_b) = found
    assert a.isfinite().all() and (a - b).abs().max() < 1e-4 and {*of_a} == {*of_b} and len(of_a) > 10
    for k, g in of_a.items(): assert g.isfinite().all() and (g - of_b[k]).abs().max() < 1e-4, k


@pytest.mark.parametrize('kind', KINDS)
def test_special_tokens_stay_text(kind, reranker):
    "A pair holds those of its frame, whatever its texts hold."
    tokenizer = reranker(kind).tokenizer
    template, specials = pair_template(tokenizer), {*tokenizer.all_special_ids} - {tokenizer.unk_token_id}
    frame = sorted(i for part in (template.prefix, template.middle, template.suffix) for i in part)
    for q, d in ((SPECIAL, SPECIAL), ('a', SPECIAL), (SPECIAL, 'b'), ('[SEP]</s>', '<|im_end|>')):
        (ids, _), = encode_pairs(tokenizer, [Pair(q, d)], 200, template)
        assert sorted(i for i in ids if i in specials) == [i for i in frame if i in specials], (q, d)
        assert len(ids) > len(frame) + 2


@pytest.mark.parametrize('kind', KINDS)
def test_half_of_a_surrogate_pair_is_refused(kind, reranker):
    with pytest.raises(UserError, match='pair 1: found half of a surrogate pair'):
        reranker(kind).compute_score([['a', 'b'], ['a', 'b\ud83d']])


def test_a_run_on_all_of_them(tmp_path):
    "Texts that are no text for a reader are refused by name; the others are learned from."
    from rerank_nb.data import DataError
    lines = [dict(query=t, pos=[t], neg=['the dog']) for t in TEXTS.values()]
    data = write_jsonl(tmp_path/'t.jsonl', lines)
    with pytest.raises(DataError) as e: PairDataset(data)
    refused = [i for i, name in enumerate(TEXTS, 1) if f't.jsonl:{i}: ' in str(e.value)]
    assert [name for i, name in enumerate(TEXTS, 1) if i in refused] == ['empty', 'spaces']
    model = tiny_model(tmp_path/'tiny', 'bert')
    words = flags(model, data, tmp_path/'out', on_bad_line='skip', max_len=32, eval_dataset=data, logging_steps=1)
    history = trainer.train(parse_args(words))
    assert history[-1]['eval_loss'] > 0
    assert CrossEncoder.from_pretrained(tmp_path/'out/model').compute_score([['', '']]).isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_a_document_of_10_megabytes(kind, reranker):
    long = 'list the files 泰山 ' * 500_000
    assert len(long.encode()) > 10**7
    a, b = reranker(kind).compute_score([['files', long], ['files', long[:2000]]], max_len=64).tolist()
    assert a == pytest.approx(b, abs=1e-5)


@pytest.mark.slow
def test_100_000_documents_for_one_query(reranker, tmp_path):
    docs = [f'{i} list the files' for i in range(100_000)]
    data = write_jsonl(tmp_path/'t.jsonl', [dict(query='files', pos=docs[:1], neg=docs[1:])])
    assert len(PairDataset(data)) == 100_000
    ranked = reranker('bert').rank('files', docs, max_len=16)
    assert len(ranked) == 100_000 and {r['corpus_id'] for r in ranked} == {*range(100_000)}
    words = flags(tiny_model(tmp_path/'tiny', 'bert'), data, tmp_path/'out', loss_type='ce', group_size=8, max_len=16)
    assert trainer.train(parse_args(words))[-1]['step'] == 1
