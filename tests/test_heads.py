"A trained head is never lost: what other libraries score with a folder, we score with it."
import json, warnings
from pathlib import Path
import pytest, torch, transformers
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers import AutoTokenizer
from transformers.models.auto import modeling_auto
from rerank_nb import model as module
from rerank_nb.data import Pair
from rerank_nb.files import UserError
from rerank_nb.model import CrossEncoder
from rerank_nb.tiny import tiny_model, tiny_tokenizer
from test_families import NOT_BUILT, OWN, shrink

PAIRS = [['list the files', 'use the command ls to show what a directory holds'], ['a', 'b'],
         ['the quick fox jumps', 'over'], ['why', 'give the dough more time ' * 3]]


def refused(says, folder, **kw):
    with pytest.raises(UserError) as e: CrossEncoder.from_pretrained(folder, **kw)
    assert says in str(e.value), str(e.value)


def edit(folder, file, **kw):
    "Change fields of a JSON file; None removes one."
    path = Path(folder)/file
    fields = json.loads(path.read_text()) | kw
    path.write_text(json.dumps({k: v for k, v in fields.items() if v is not None}))


# ---------- two labels ----------

def two_logits(folder):
    "What transformers gives for each pair alone, a row each."
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tok = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad(): return torch.cat([model(**tok(*p, return_tensors='pt')).logits for p in PAIRS])


@pytest.mark.parametrize('kind', ['bert', 'xlm-roberta', 'electra', 'deberta-v2', 'distilbert', 'modernbert', 'qwen3'])
def test_two_labels_become_their_difference(kind, tmp_path, capsys):
    own = dict(num_key_value_heads=2, head_dim=16) if kind == 'qwen3' else {}
    folder = tiny_model(tmp_path/kind, kind, num_labels=2, **own)
    no, yes = two_logits(folder).unbind(1)
    assert (yes - no).std() > 1e-2, 'these scores say nothing'
    ours = CrossEncoder.from_pretrained(folder)
    assert capsys.readouterr().out.count('the score is the logit of LABEL_1 minus that of LABEL_0') == 1
    assert not ours.new_head and (ours.compute_score(PAIRS, max_len=120) - (yes - no)).abs().max() < 1e-5
    saved = ours.save_pretrained(tmp_path/'saved')
    assert two_logits(saved).shape == (len(PAIRS), 1)
    assert (two_logits(saved)[:, 0] - (yes - no)).abs().max() < 1e-5
    again = CrossEncoder.from_pretrained(saved)
    assert 'minus' not in capsys.readouterr().out
    assert torch.equal(again.compute_score(PAIRS, max_len=120), ours.compute_score(PAIRS, max_len=120))


# ---------- yes and no ----------

def causal_folder(folder, kind='qwen3', **config):
    "A tiny random language model."
    tok = tiny_tokenizer('bert')
    small = shrink(CONFIG_MAPPING[kind](), dict(vocab_size=len(tok), initializer_range=.3) | config)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(small).save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder


def last_logits(folder):
    "The causal model's logits behind each pair alone."
    model, tok = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad(): return torch.cat([model(**inputs(tok, p)).logits[:, -1] for p in PAIRS])


def inputs(tok, p):
    row = tok(*p, return_tensors='pt')
    return {k: row[k] for k in ('input_ids', 'attention_mask')}


@pytest.mark.parametrize('tied', [True, False])
@pytest.mark.parametrize('kind', ['qwen3', 'qwen2', 'llama', 'gemma3_text'])
def test_yes_minus_no_is_the_causal_models(kind, tied, tmp_path, capsys):
    folder = causal_folder(tmp_path/kind, kind, tie_word_embeddings=tied)
    logits, id_of = last_logits(folder), tiny_tokenizer('bert').convert_tokens_to_ids
    wanted = logits[:, id_of('ls')] - logits[:, id_of('fox')]
    assert wanted.std() > 1e-2, 'these scores say nothing'
    ours = CrossEncoder.from_pretrained(folder, yes_token='ls', no_token='fox')
    assert capsys.readouterr().out.count("the logit of 'ls' minus that of 'fox'") == 1
    assert not ours.new_head and (ours.compute_score(PAIRS, max_len=120) - wanted).abs().max() < 1e-5
    saved = ours.save_pretrained(tmp_path/'saved')
    config = json.loads((Path(saved)/'config.json').read_text())
    assert config['architectures'][0].endswith('ForSequenceClassification') and len(config['id2label']) == 1
    assert torch.equal(CrossEncoder.from_pretrained(saved).compute_score(PAIRS), ours.compute_score(PAIRS))
    assert 'lm_head.weight' not in load_file(Path(saved)/'model.safetensors')
    with torch.no_grad(): ours.model.score.weight += .1   # training goes on from it
    assert (ours.compute_score(PAIRS) - wanted).abs().min() > 1e-4


def test_the_two_tokens_are_named_never_guessed(tmp_path):
    folder, id_of = causal_folder(tmp_path/'lm'), tiny_tokenizer('bert').convert_tokens_to_ids
    logits = last_logits(folder)
    difference = logits[:, id_of('ls')] - logits[:, id_of('fox')]
    for says, kw in {'yes_token=': {}, 'expected both': dict(yes_token='ls'),
                     "no token 'yes'": dict(yes_token='yes', no_token='no')}.items(): refused(says, folder, **kw)
    edit(folder, 'config.json', classifier_from_token=['fox', 'ls'])   # vLLM's way
    ours = CrossEncoder.from_pretrained(folder)
    assert (ours.compute_score(PAIRS) - difference).abs().max() < 1e-5
    saved = Path(ours.save_pretrained(tmp_path/'saved'))
    assert 'classifier_from_token' not in (saved/'config.json').read_text()
    edit(folder, 'config.json', classifier_from_token=['ls'])          # one token alone: bge-reranker-v2-gemma
    assert (CrossEncoder.from_pretrained(folder).compute_score(PAIRS) - logits[:, id_of('ls')]).abs().max() < 1e-5


def test_the_two_tokens_of_a_folder_of_sentence_transformers(tmp_path):
    from sentence_transformers import CrossEncoder as Theirs
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore
    folder, id_of = causal_folder(tmp_path/'lm'), tiny_tokenizer('bert').convert_tokens_to_ids
    scored = LogitScore(true_token_id=id_of('ls'), false_token_id=id_of('fox'))
    theirs = Theirs(modules=[Transformer(str(folder), transformer_task='text-generation'), scored], device='cpu')
    theirs.save_pretrained(str(tmp_path/'st'))
    logits = torch.as_tensor(theirs.predict(PAIRS, activation_fn=torch.nn.Identity()))
    ours = CrossEncoder.from_pretrained(tmp_path/'st')
    assert (ours.compute_score(PAIRS, max_len=120) - logits).abs().max() < 1e-5


def test_a_language_head_that_is_no_product_is_refused(tmp_path):
    folder = causal_folder(tmp_path/'gemma2', 'gemma2', final_logit_softcapping=2.)
    refused('soft cap', folder, yes_token='ls', no_token='fox')


# ---------- heads in folders of their own ----------

def ettin(folder, kind='modernbert', pooling='cls'):
    "What sentence-transformers writes for Transformer, Pooling, Dense, LayerNorm, Dense; its model."
    from sentence_transformers import CrossEncoder as Theirs
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling
    torch.manual_seed(0)
    encoder = Transformer(tiny_model(f'{folder}_encoder', kind, head=False), transformer_task='feature-extraction')
    n = 32 * (1 if isinstance(pooling, str) else len(pooling))
    layers = [Pooling(32, pooling), Dense(n, 32, bias=False, activation_function=torch.nn.GELU()), LayerNorm(32),
              Dense(32, 1, activation_function=torch.nn.Identity(), module_output_name='scores')]
    with torch.no_grad():
        for p in layers[2].parameters(): p += torch.randn_like(p)   # else the norm's weights are ones and zeros
    theirs = Theirs(modules=[encoder, *layers], device='cpu')
    theirs.save_pretrained(str(folder))
    return theirs


def predict(theirs, pairs=PAIRS): return torch.as_tensor(theirs.predict(pairs, activation_fn=torch.nn.Identity()))


@pytest.mark.parametrize('kind,pooling', [('modernbert', 'cls'), ('modernbert', 'mean'), ('bert', 'cls'),
                                          ('xlm-roberta', 'mean'), ('bert', 'lasttoken'), ('bert', ('max', 'mean'))])
def test_a_head_in_folders_scores_as_sentence_transformers(kind, pooling, tmp_path, capsys):
    from sentence_transformers import CrossEncoder as Theirs
    theirs = predict(ettin(tmp_path/'st', kind, pooling))
    assert theirs.std() > 1e-2, 'these scores say nothing'
    ours = CrossEncoder.from_pretrained(tmp_path/'st')
    assert 'its head is Pooling, Dense, LayerNorm, Dense' in capsys.readouterr().out
    assert not ours.new_head and (ours.compute_score(PAIRS, max_len=120) - theirs).abs().max() < 1e-5
    batch = ours.collator(120)([Pair(*p) for p in PAIRS])
    with torch.no_grad(): assert (ours(batch, padded=True) - theirs).abs().max() < 1e-5
    if kind != 'modernbert': assert ours.packed
    ours(batch).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in ours.model.head.parameters())
    assert all(p.grad is not None for p in ours.parameters() if p.requires_grad)   # else DDP waits for it
    with torch.no_grad():
        for p in ours.model.parameters():
            if p.grad is not None: p -= .01 * p.grad
    trained = ours.compute_score(PAIRS, max_len=120)
    assert (trained - theirs).abs().max() > 1e-3
    saved = ours.save_pretrained(tmp_path/'saved')
    assert {k: v.shape for k, v in load_file(tmp_path/'saved/model.safetensors').items()} == \
        {k: v.shape for k, v in load_file(tmp_path/'st/model.safetensors').items()}
    assert (predict(Theirs(saved, device='cpu')) - trained).abs().max() < 1e-5
    again = CrossEncoder.from_pretrained(ours.save_pretrained(tmp_path/'gathered', ours.state_dict()))
    assert torch.equal(again.compute_score(PAIRS, max_len=120), trained)


def test_a_module_that_is_not_known_is_refused_by_name(tmp_path):
    ettin(tmp_path/'st', 'bert')
    listed = json.loads((tmp_path/'st/modules.json').read_text())
    def listing(*entries): (tmp_path/'st/modules.json').write_text(json.dumps(listed[:2] + [*entries]))
    listing(dict(idx=2, name='2', path='2_MyHead', type='modeling.MyHead'))
    refused('MyHead (2_MyHead)', tmp_path/'st')
    listing(dict(idx=2, name='2', path='2_Own', type='modeling.Dense'))
    refused('Dense (2_Own)', tmp_path/'st')
    listing(dict(idx=2, name='2', path='2_X', type='sentence_transformers.models.WordWeights'))
    refused('WordWeights (2_X)', tmp_path/'st')
    listing(listed[2])
    refused('Pooling, Dense, whose weights would be lost', tmp_path/'st')
    listing(*listed[2:])
    assert not CrossEncoder.from_pretrained(tmp_path/'st').new_head
    listing()   # an embedding model: an encoder that has no head
    assert CrossEncoder.from_pretrained(tmp_path/'st').new_head


def test_training_goes_on_from_a_head_in_folders(tmp_path, binary):
    from rerank_nb.trainer import TrainConfig, train
    from sentence_transformers import CrossEncoder as Theirs
    ettin(tmp_path/'st', 'bert', 'mean')
    before = CrossEncoder.from_pretrained(tmp_path/'st').compute_score(PAIRS, max_len=64)
    train(TrainConfig(str(tmp_path/'st'), binary[0], str(tmp_path/'out'), epochs=1, max_len=64, lr=1e-6))
    folder = str(tmp_path/'out/model')
    after = CrossEncoder.from_pretrained(folder).compute_score(PAIRS, max_len=64)
    assert 0 < (after - before).abs().max() < .1   # a fresh head would be elsewhere
    ours = CrossEncoder.from_pretrained(folder).compute_score(PAIRS)
    assert (predict(Theirs(folder, device='cpu')) - ours).abs().max() < 1e-5


def test_training_goes_on_from_two_tokens(tmp_path, binary):
    from rerank_nb.trainer import TrainConfig, train
    named = dict(yes_token='ls', no_token='fox')
    before = CrossEncoder.from_pretrained(causal_folder(tmp_path/'lm'), **named).compute_score(PAIRS, max_len=64)
    train(TrainConfig(str(tmp_path/'lm'), binary[0], str(tmp_path/'out'),
                      epochs=1, max_len=64, lr=1e-6, init_average=.5, **named))
    after = CrossEncoder.from_pretrained(tmp_path/'out/model').compute_score(PAIRS, max_len=64)
    assert 0 < (after - before).abs().max() < .1


# ---------- nothing else is lost ----------

def with_weights(folder, **more):
    "Put weights into a checkpoint that its model has no place for."
    path = Path(folder)/'model.safetensors'
    save_file(load_file(path) | more, path, {'format': 'pt'})
    return folder


def test_other_weights_are_refused_by_name(tmp_path):
    x, y = torch.ones(2), torch.ones(2)
    says = 'no place for 2 weights of the checkpoint (qa_outputs), which would be lost'
    qa = with_weights(tiny_model(tmp_path/'qa', head=False), **{'qa_outputs.weight': x, 'qa_outputs.bias': y})
    refused(says, qa)
    deep = tiny_model(tmp_path/'deep')
    edit(deep, 'config.json', num_hidden_layers=1)
    refused('bert.encoder.layer.1.attention', deep)
    colbert = with_weights(tiny_model(tmp_path/'colbert', head=False), **{'linear.weight': x})
    refused('(linear)', colbert)


def own_names(kind, config):
    "Weights of the family's own language models that its classifier has no place for."
    mappings = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES, modeling_auto.MODEL_FOR_PRETRAINING_MAPPING_NAMES
    found = [m[kind] for m in mappings if kind in m]
    with torch.device('meta'), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        place = {*AutoModelForSequenceClassification.from_config(config).state_dict()}
        heads = [getattr(transformers, n) for f in found for n in ([f] if isinstance(f, str) else f)]
        return {k for head in heads for k in head(config).state_dict()} - place


def test_a_language_models_head_is_not_missed_in_any_family():
    lost = {}
    for kind in modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        if kind in NOT_BUILT or kind.endswith(('vbert', 't5')): continue   # t5: the names are those of the base
        config = shrink(CONFIG_MAPPING[kind](), OWN.get(kind, {}))
        lost[kind] = [k for k in own_names(kind, config) if not module.NOT_MISSED.fullmatch(k)]
    assert {k: v for k, v in lost.items() if v} == {} and len(lost) > 100


def test_a_masked_language_model_is_a_bare_encoder(tmp_path):
    kept = transformers.BertForPreTraining(AutoModel.from_pretrained(tiny_model(tmp_path/'m', head=False)).config)
    kept.save_pretrained(tmp_path/'m')
    assert 'cls.predictions.bias' in load_file(tmp_path/'m/model.safetensors')
    ours = CrossEncoder.from_pretrained(tmp_path/'m')
    assert ours.new_head and torch.equal(ours.model.bert.pooler.dense.weight, kept.bert.pooler.dense.weight)
