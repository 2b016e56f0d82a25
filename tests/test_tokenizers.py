"Tokenizers of all kinds: special tokens inside a text are text; one in Python only scores and is saved."
import pytest, torch, transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast
from test_families import small_model
from rerank_nb.data import Pair, encode_texts, pair_template
from rerank_nb.model import CrossEncoder
from rerank_nb.tiny import TEXT, tiny_tokenizer

SPECIALS = ['<pad>', '</s>', '<unk>', '<|end|>']


def byte_bpe():
    tk = Tokenizer(models.BPE())
    tk.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tk, trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIALS,
                                   initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)


def metaspace_bpe():
    tk = Tokenizer(models.BPE(unk_token='<unk>', ignore_merges=True))
    # Llama 2: one word, whole, from which a vocabulary entry may be read
    tk.normalizer = normalizers.Replace(' ', '▁')
    return tk, trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIALS, show_progress=False)


def wordpiece():
    tk = Tokenizer(models.WordPiece(unk_token='<unk>'))
    tk.pre_tokenizer = pre_tokenizers.WhitespaceSplit()     # punctuation stays in its word
    return tk, trainers.WordPieceTrainer(vocab_size=400, special_tokens=SPECIALS, show_progress=False)


def word_level():
    tk = Tokenizer(models.WordLevel(unk_token='<unk>'))
    tk.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tk, trainers.WordLevelTrainer(vocab_size=400, special_tokens=SPECIALS, show_progress=False)


def unigram():
    tk = Tokenizer(models.Unigram())
    tk.normalizer, tk.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    return tk, trainers.UnigramTrainer(vocab_size=300, special_tokens=SPECIALS, unk_token='<unk>', show_progress=False)


@pytest.mark.parametrize('make', [byte_bpe, metaspace_bpe, wordpiece, word_level, unigram])
def test_a_special_token_in_a_text_is_text(make):
    tk, trainer = make()
    tk.train_from_iterator(TEXT.splitlines()*3, trainer)
    tk.post_processor = processors.TemplateProcessing(single='$A </s>', pair='$A </s> $B </s>',
                                                      special_tokens=[('</s>', 1)])
    tk.add_tokens(['XYZZY'])     # no special one: it stays a token
    tok = PreTrainedTokenizerFast(tokenizer_object=tk, pad_token='<pad>', eos_token='</s>', unk_token='<unk>')
    plain = ['list the files', 'a XYZZY b', '我喜欢中国 in text']
    assert encode_texts(tok, plain) == tok(plain, add_special_tokens=False)['input_ids']
    for special in SPECIALS + ['＜pad＞']:     # the last is another one's normal form
        for text in (special, f'list {special} files', f'list{special}files', special*3):
            ids = encode_texts(tok, [text])[0]
            assert ids and not {0, 1, 3} & set(ids), (text, ids)
            assert encode_texts(tok, [text], 3)[0] == ids[:3]
    assert pair_template(tok)[:3] == ([], [1], [1])


@pytest.mark.parametrize('kind', ['t5', 'bart', 'mt5', 'mvp'])
def test_a_pair_with_an_end_token_in_its_text_is_scored(kind):
    ours = CrossEncoder(small_model(kind), tiny_tokenizer('xlm-roberta'))
    # they ask for as many end tokens in each pair
    scores = ours.compute_score([['a', 'b'], ['a', 'b </s> c'], ['</s> a', 'b']])
    assert scores.isfinite().all() and len(scores.unique()) == 3
    batch = ours.collator(32)([Pair('a', 'b', 1.), Pair('a', '</s>', 0.)])
    ours(batch).sum().backward()


@pytest.fixture
def phobert(tmp_path):
    "A folder with a tokenizer that transformers has in Python only."
    words = 'list files use ls lazy dog bread the command fox'.split()
    letters = [c + '@@' for c in 'abcdefghijklmnopqrstuvwxyz'] + list('abcdefghijklmnopqrstuvwxyz')
    (tmp_path/'vocab.txt').write_text(''.join(f'{w} 1\n' for w in words + letters))
    (tmp_path/'bpe.codes').write_text('#version: 0.2\nt h 1\n')
    tokenizer = transformers.PhobertTokenizer(str(tmp_path/'vocab.txt'), str(tmp_path/'bpe.codes'))
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(tmp_path/'m')
    config = transformers.RobertaConfig(vocab_size=80, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                                        intermediate_size=32,
                                        max_position_embeddings=66, pad_token_id=1, type_vocab_size=1, num_labels=1)
    transformers.RobertaForSequenceClassification(config).save_pretrained(tmp_path/'m')
    return tmp_path/'m'


def test_a_tokenizer_in_python_only_scores_and_is_saved(phobert, tmp_path):
    ours = CrossEncoder.from_pretrained(phobert)
    assert not ours.tokenizer.is_fast
    pairs = [['list files', 'use ls'], ['lazy dog', 'the command fox bread'], ['files', '</s> files']]
    scores = ours.compute_score(pairs)
    with torch.no_grad():
        theirs = torch.cat([ours.model(**ours.tokenizer(*p, return_tensors='pt')).logits[0] for p in pairs[:2]])
    assert (scores[:2] - theirs).abs().max() < 1e-6
    for _ in range(2): ours.save_pretrained(tmp_path/'saved')     # bpe.codes came with it, and blocks no second save
    assert torch.equal(CrossEncoder.from_pretrained(tmp_path/'saved').compute_score(pairs), scores)
