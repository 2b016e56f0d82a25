"Words around query and document: part of the tokenizer, so of the folder, whoever reads it."
import json
import pytest, torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX
from helpers import binary_file
from rerank_nb import base
from rerank_nb.data import TEMPLATES, encode_pairs, pair_template, read_templates, with_templates
from rerank_nb.files import UserError
from rerank_nb.model import CrossEncoder, apply_templates
from rerank_nb.tiny import TEXT, tiny_model, tiny_tokenizer

PAIRS = [['how do i list the files', 'use the command ls'], ['我喜欢中国', 'lazy dog 7'], ['(bread', '-1 "é']]
WORDS = 'how do i {}', 'the {} 。'


def byte_level(split, post_processor, **names):
    "A tokenizer of bytes, trained on a page."
    tk = Tokenizer(models.BPE())
    tk.pre_tokenizer, tk.decoder, tk.post_processor = split, decoders.ByteLevel(), post_processor
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=['<pad>', '<s>', '</s>', '<|im_start|>'],
                                  initial_alphabet=letters, show_progress=False)
    tk.train_from_iterator([TEXT]*3, trainer)
    names |= dict(pad_token='<pad>', eos_token='</s>', model_max_length=128)
    return PreTrainedTokenizerFast(tokenizer_object=tk, **names)


def qwen_tokenizer():
    words = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), 'isolated', False)
    split = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return byte_level(split, processors.ByteLevel(trim_offsets=False))


def roberta_tokenizer(space=False):
    return byte_level(pre_tokenizers.ByteLevel(add_prefix_space=space),
                      processors.RobertaProcessing(('</s>', 2), ('<s>', 1), add_prefix_space=space),
                      bos_token='<s>', cls_token='<s>', sep_token='</s>')


TOKENIZERS = dict(bert=tiny_tokenizer('bert'), xlmr=tiny_tokenizer('xlm-roberta'), qwen=qwen_tokenizer(),
                  roberta=roberta_tokenizer(), spaced=roberta_tokenizer(True))


@pytest.mark.parametrize('kind', TOKENIZERS)
@pytest.mark.parametrize('words', [WORDS, ('{}', 'use the {}'), ('ls {} ?', None)])
def test_the_words_are_read_as_if_they_stood_in_the_text(kind, words):
    tok, frame = TOKENIZERS[kind], pair_template(TOKENIZERS[kind])
    texts = [(w or '{}') for w in words]
    if kind in ('qwen', 'roberta') and words != WORDS:     # the space must begin both texts
        with pytest.raises(UserError, match='changes how this tokenizer'): with_templates(tok, *words)
        texts = words = [w.replace(' {}', '\n{}') for w in texts]
    worded = with_templates(tok, *words)
    for pair in PAIRS:
        q, d = (tok(t.format(x), add_special_tokens=False)['input_ids'] for t, x in zip(texts, pair))
        ids = frame.prefix + q + frame.middle + d + frame.suffix
        assert worded(*pair)['input_ids'] == ids == encode_pairs(worded, [pair])[0][0]
        types = worded(*pair, return_token_type_ids=True)['token_type_ids']
        of_doc = types[len(frame.prefix + q + frame.middle):][:len(d)]
        assert types[0] == 0 and set(of_doc) == {types[-1]}
    assert read_templates(worded) == dict(query_template=texts[0], doc_template=texts[1])
    back = with_templates(worded, '{}', '{}')
    assert [back(*p) for p in PAIRS] == [tok(*p) for p in PAIRS]


def test_a_special_token_in_a_template_is_one():
    tok = TOKENIZERS['qwen']
    worded = with_templates(tok, '<|im_start|>Query: {}\n', 'Doc: {}')
    ids = worded('list', 'dog')['input_ids']
    assert ids == tok('<|im_start|>Query: list\n')['input_ids'] + tok('Doc: dog')['input_ids'] and ids[0] == 3
    other = with_templates(worded, doc_template='The doc: {}')
    assert read_templates(other)['query_template'].startswith('<|im_start|>')


def test_cutting_leaves_the_words():
    for tok in TOKENIZERS.values():
        worded = with_templates(tok, *WORDS)
        frame = pair_template(worded)
        fixed = frame.prefix + frame.middle + frame.suffix
        for how in (True, 'only_second'):
            ids = worded('list', 'ls '*90, truncation=how, max_length=40)['input_ids']
            assert len(ids) == 40 and ids[:len(frame.prefix)] == frame.prefix
            assert ids[-len(frame.suffix):] == frame.suffix
        assert len(encode_pairs(worded, [('list '*90, 'ls '*90)], len(fixed) + 9)[0][0]) == len(fixed) + 9


def folder_of(path, model_type, tokenizer, cls):
    "A tiny model whose tokenizer says that it is of its family's own class."
    if model_type.startswith('qwen'):
        config = dict(num_key_value_heads=2, head_dim=16, num_attention_heads=2, vocab_size=len(tokenizer))
        tiny_model(path, model_type, **config)
    else: tiny_model(path, model_type)
    tokenizer.save_pretrained(path)
    about = path/'tokenizer_config.json'
    about.write_text(json.dumps(json.loads(about.read_text()) | dict(tokenizer_class=cls)))
    return path


@pytest.mark.parametrize('model_type, kind, cls', [
    ('bert', 'bert', 'BertTokenizer'), ('xlm-roberta', 'xlmr', 'XLMRobertaTokenizer'),
    ('qwen3', 'qwen', 'Qwen2Tokenizer')])
def test_the_saved_folder_scores_the_same_everywhere(model_type, kind, cls, tmp_path):
    from sentence_transformers import CrossEncoder as Theirs
    start = folder_of(tmp_path/'m', model_type, TOKENIZERS[kind], cls)
    ours = CrossEncoder.from_pretrained(start, query_template=WORDS[0], doc_template=WORDS[1])
    scores = ours.compute_score(PAIRS)
    bare = CrossEncoder.from_pretrained(start)
    by_hand = bare.compute_score([[t.format(x) for t, x in zip(WORDS, p)] for p in PAIRS])
    assert (scores - by_hand).abs().max() < 1e-5 and (scores - bare.compute_score(PAIRS)).abs().max() > 1e-3
    folder = ours.save_pretrained(tmp_path/'saved')
    model, tok = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad(): auto = model(**tok(*map(list, zip(*PAIRS)), padding=True, return_tensors='pt')).logits[:, 0]
    st = torch.from_numpy(Theirs(folder, device='cpu').predict(PAIRS, activation_fn=torch.nn.Identity()))
    raw = Tokenizer.from_file(f'{folder}/tokenizer.json')     # what text-embeddings-inference and ONNX pipelines read
    assert [raw.encode(*p).ids for p in PAIRS] == [tok(*p)['input_ids'] for p in PAIRS]
    assert (auto - scores).abs().max() < 1e-5 and (st - scores).abs().max() < 1e-5
    assert torch.equal(CrossEncoder.from_pretrained(folder).compute_score(PAIRS), scores)


@pytest.mark.parametrize('model_type, kind', [
    ('electra', 'bert'), ('mpnet', 'bert'), ('camembert', 'xlmr'), ('deberta-v2', 'xlmr'), ('gemma3_text', 'xlmr'),
    ('modernbert', 'roberta'), ('eurobert', 'qwen'), ('llama', 'qwen')])
def test_the_files_keep_them_whatever_class_transformers_has_for_the_family(model_type, kind):
    config = AutoConfig.for_model(model_type)
    kept = apply_templates(model_type, config, TOKENIZERS[kind], *WORDS)
    assert read_templates(kept) == dict(zip(TEMPLATES, WORDS)) and kept('a', 'b') != TOKENIZERS[kind]('a', 'b')


def test_a_class_that_would_lose_them_is_refused(tmp_path):
    start = folder_of(tmp_path/'m', 'qwen2', TOKENIZERS['qwen'], 'Qwen2Tokenizer')     # makes its own normaliser
    def same(gap):
        "Are the ids those of the texts with the words put before them by hand?"
        words = {k: f'{w}{gap}{{}}' for k, w in dict(query_template='how', doc_template='the').items()}
        by_hand = [TOKENIZERS['qwen'](t)['input_ids'] for t in (f'how{gap}list', f'the{gap}ls')]
        return CrossEncoder.from_pretrained(start, **words).tokenizer('list', 'ls')['input_ids'] == sum(by_hand, [])
    try: assert same(' ')   # up to transformers 5.6 at least this class keeps them
    except UserError as e: assert 'Qwen2Tokenizer of transformers does not keep' in str(e)
    assert same('\n')


def test_the_start_has_its_words_and_an_older_one_too(tmp_path):
    f = base.BaseFile(base.toy_base(tmp_path/'toy.bin'))
    tok = base.make_tokenizer(f.pieces, f.scores, 40, base.E5_WORDS)
    assert read_templates(tok) == dict(query_template='query: {}', doc_template='passage: {}')
    assert with_templates(tok, *base.E5_WORDS) is tok
    backend = Tokenizer.from_str(tok.backend_tokenizer.to_str())
    words = [(n, tok(f'{n}:', add_special_tokens=False)['input_ids']) for n in ('query', 'passage')]
    named = [dict(id=n, ids=ids, tokens=tok.convert_ids_to_tokens(ids)) for n, ids in words]
    backend.post_processor = processors.TemplateProcessing(     # as it was written before
        single='<s> $A </s>', pair='<s> query $A </s> <s>:1 passage:1 $B:1 </s>:1',
        special_tokens=[('<s>', 0), ('</s>', 2), *named])
    old = PreTrainedTokenizerFast(tokenizer_object=backend, **tok.special_tokens_map,
                                  model_input_names=tok.model_input_names)
    assert old('list', 'files') == tok('list', 'files') and read_templates(old) == read_templates(tok)
    assert with_templates(old, *base.E5_WORDS) is old
    other = with_templates(old, 'passage: {}')
    assert other.decode(other('list', 'files')['input_ids']) == '<s> passage: list</s><s> passage: files</s>'
    assert pair_template(other).types == ([0]*3, 0, [0, 1, 1, 1], 1, [1])


def test_a_run_trains_behind_its_words_and_goes_on_with_no_others(tmp_path):
    from rerank_nb.checkpoint import check_same
    from rerank_nb.trainer import TrainConfig, check_config, train
    config = TrainConfig(tiny_model(tmp_path/'m'), binary_file(tmp_path/'d.jsonl', 4), str(tmp_path/'out'), epochs=1,
                         max_len=32, query_template='how {}', doc_template='the {}', checkpointing_steps=1)
    train(config)
    saved = AutoTokenizer.from_pretrained(tmp_path/'out/model')
    assert read_templates(saved) == dict(query_template='how {}', doc_template='the {}')
    was = json.loads((tmp_path/'out/checkpoint_1/state.json').read_text())['settings']
    with pytest.raises(UserError, match='query_template: found None'): check_same(was, was | dict(query_template=None))
    config.query_template = 'how'
    with pytest.raises(UserError, match='--query_template: found'): check_config(config)
