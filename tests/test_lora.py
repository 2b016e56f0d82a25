"Two small matrices beside each layer: the same scores at first, whole folders, a run that goes on exactly."
import shutil
from unittest.mock import patch
import pytest, torch
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification
from helpers import binary_file, command, env, finished, flags, quiet, run
from test_fit_device import TORCHRUN, cut_off, mean_of, off, settings, weights   # noqa: F401 (a fixture)
from test_packed_families import alone, make, random_batch
from rerank_nb import engine, trainer
from rerank_nb.checkpoint import adapted, save_model
from rerank_nb.data import PairBatches, PairDataset
from rerank_nb.files import UserError
from rerank_nb.model import CrossEncoder, head_modules
from rerank_nb.tiny import tiny_model
from rerank_nb.trainer import TrainConfig, add_lora, load_model

pytestmark = pytest.mark.usefixtures('alone')


@pytest.fixture
def small(settings, tmp_path):   # noqa: F811
    "The settings of a small run with matrices beside its layers."
    dev = binary_file(tmp_path/'d.jsonl', 6, seed=1)
    return lambda out='out', **kw: settings(out, **dict(lora_r=4, lr=1e-2, eval_dataset=dev) | kw)


def shaken(model):
    "A model whose matrices have products: about what a long training leaves."
    torch.manual_seed(0)
    with torch.no_grad():
        for layer in adapted(model).values(): layer.lora_B.default.weight.normal_(std=.1)
    return model


# ---------- families ----------

@pytest.mark.parametrize('kind', ['bert', 'xlm-roberta', 'modernbert', 'qwen3'])
def test_scores_are_the_same_at_first_and_in_the_saved_folder(kind, tmp_path):
    model, acc = make(kind), engine.make_accelerator()
    batch = random_batch(model)
    ways = (False, True)   # packed, padded
    start = [model(batch, padded=p).detach() for p in ways]
    add_lora(TrainConfig('m', 'd', 'o', lora_r=4), model)
    assert all(torch.equal(x, model(batch, padded=p)) for x, p in zip(start, ways))
    trained = [model(batch, padded=p) for model in [shaken(model)] for p in ways]
    assert (trained[0] - start[0]).abs().min() > 1e-3, 'these matrices change nothing'
    assert torch.allclose(*trained, atol=1e-5)
    trained[0].sum().backward()
    assert all(layer.lora_A.default.weight.grad.abs().max() > 0 for layer in adapted(model).values())
    save_model(acc, model, tmp_path/'saved')
    plain = CrossEncoder.from_pretrained(tmp_path/'saved')
    assert not plain.new_head and plain.state_dict().keys() == make(kind).state_dict().keys()
    assert torch.allclose(plain(batch), trained[0], atol=1e-5)
    plain.model = AutoModelForSequenceClassification.from_pretrained(tmp_path/'saved')
    assert torch.allclose(alone(plain, batch), trained[0], atol=1e-5)


@pytest.mark.parametrize('kind', ['bert', 'xlm-roberta', 'modernbert', 'qwen3'])
def test_every_linear_layer_of_the_encoder_and_the_whole_head(kind):
    model = make(kind)
    head = {p for m in head_modules(model.model) for p in m.parameters()}
    linear = {n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m.weight not in head}
    add_lora(TrainConfig('m', 'd', 'o', lora_r=2), model)
    assert {*adapted(model)} == linear and len(linear) >= 8
    trained = {p for p in model.parameters() if p.requires_grad}
    beside = {p for n, p in model.named_parameters() if '.lora_' in n}
    assert trained == head | beside and head and len(beside) == 2 * len(linear)


def test_a_network_without_a_head_apart_is_named(small):
    with patch.object(trainer, 'head_modules', lambda model: []), pytest.raises(UserError, match='bert has no head'):
        quiet(small())


# ---------- a run ----------

def textbook(c):
    "The run of `c` with torch's plain AdamW and peft's own merge."
    torch.manual_seed(c.seed)
    m, ds = load_model(c), PairDataset(c.dataset)
    add_lora(c, m)
    groups = [dict(params=[p], weight_decay=c.weight_decay * (p.ndim > 1)) for p in m.parameters() if p.requires_grad]
    opt, batches = torch.optim.AdamW(groups, lr=c.lr, foreach=False), PairBatches(len(ds), c.batch_size, seed=c.seed)
    schedule = trainer.make_schedule(opt, len(batches), 0.)
    batches.set_epoch(1)
    for places in batches:
        batch = m.collator(c.max_len)(ds.__getitems__(places))
        F.binary_cross_entropy_with_logits(m(batch), batch.labels).backward()
        torch.nn.utils.clip_grad_norm_(m.parameters(), c.max_grad_norm)
        opt.step()
        schedule.step()
        opt.zero_grad()
    for layer in adapted(m).values(): layer.merge()
    return {k.replace('.base_layer', ''): w for k, w in m.model.state_dict().items() if '.lora_' not in k}


def test_a_run_is_the_textbook_and_every_folder_whole(small, still):
    c = small(save_on_epoch_end=True, metric_for_best_model='loss', lora_alpha=6, lr=1e-3)
    quiet(c)
    start, wanted = load_file(f'{still}/model.safetensors'), textbook(c)
    for name in ('model', 'epoch_1', 'best'):
        got = weights(c, name)
        assert got.keys() == start.keys() and off(got, wanted) < 2e-5, name
    stay = [k for k in start if 'embeddings' in k or 'LayerNorm' in k or k.endswith('bias') and 'encoder' in k]
    assert all(torch.equal(got[k], start[k]) for k in stay) and len(stay) > 20
    assert all((got[k] - start[k]).abs().max() > 1e-4 for k in start if k not in stay)


def test_a_run_goes_on_from_what_it_trains(small, tmp_path):
    usual = dict(lora_dropout=.2, checkpointing_steps=2, resume_from_checkpoint='latest', epochs=2)
    model = tiny_model(tmp_path/'dropping')
    whole, part = (small(out, model_name_or_path=model, **usual) for out in ('whole', 'part'))
    quiet(whole)
    cut_off(part, 4)
    for other in (dict(lora_alpha=1.), dict(lora_r=2), dict(lora_targets=['query']), dict(lora_r=0, lora_dropout=0.)):
        changed = small('part', model_name_or_path=model, **usual | other)
        with pytest.raises(UserError, match=f'{[*other][0]}: found .*the checkpoint was written'): quiet(changed)
    quiet(part)
    assert off(weights(whole), weights(part)) == 0
    shutil.copytree(tmp_path/'part/model', tmp_path/'kept')
    tiny_model(model, seed=1)
    with pytest.raises(UserError, match='--lora_r: .*its weights have changed'): quiet(part)
    assert off(weights(part), load_file(tmp_path/'kept/model.safetensors')) == 0


def test_a_checkpoint_holds_what_is_trained(small):
    c = small(checkpointing_steps=4, eval_dataset=[])
    quiet(c)
    model = load_model(c)
    add_lora(c, model)
    folder, = trainer.series(c.output_dir, 'checkpoint')
    held = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
    assert {k.removeprefix('model.') for k in held if k.startswith('model.')} == \
        {n for n, p in model.named_parameters() if p.requires_grad}


def test_a_run_from_before_the_settings_had_no_matrices():
    assert trainer.LORA.items() <= trainer.ABSENT.items()
    assert trainer.LORA == {k: getattr(TrainConfig('m', 'd', 'o'), k) for k in trainer.LORA}


def test_without_peft_nothing_is_written(small, tmp_path):
    with patch.dict('sys.modules', peft=None), pytest.raises(UserError) as e: quiet(small())
    assert 'pip install "rerank_nb[lora]"' in str(e.value) and not (tmp_path/'out').exists()


# ---------- beside other settings ----------

def test_what_changes_nothing(small, tmp_path):
    usual = dict(model_name_or_path=tiny_model(tmp_path/'dropping'), lora_dropout=.2)
    one, other = small('one', **usual), small('other', gradient_checkpointing=True, freeze_embeddings=True, **usual)
    for c in (one, other): quiet(c)
    assert off(weights(one), weights(other)) == 0


def test_the_head_has_its_own_rate(small, still):
    start, slow = load_file(f'{still}/model.safetensors'), small(lr_head=1e-7)
    quiet(slow)
    moved = {k: (w - start[k]).abs().max() for k, w in weights(slow).items()}
    head = [k for k in moved if 'pooler' in k or 'classifier' in k]
    assert len(head) == 4 and max(moved[k] for k in head) < 1e-5
    assert moved['bert.encoder.layer.0.output.dense.weight'] > 1e-3


def test_a_head_is_fitted_first(small, still, capsys):
    c = small(fit_head=16, lr=1e-9)
    quiet(c)
    scale = float(capsys.readouterr().out.split('scale ')[1].split(',')[0])
    start, got = load_file(f'{still}/model.safetensors'), weights(c)
    assert off(got, start | {'classifier.weight': start['classifier.weight'] * scale,
                             'classifier.bias': got['classifier.bias']}) < 1e-2 * abs(scale)
    assert abs(scale - 1) > .01


@pytest.mark.parametrize('best', [None, 'loss'])
def test_the_mean_of_start_and_end(best, small, tmp_path):
    c = small(init_average=.25, save_on_epoch_end=True, metric_for_best_model=best)
    assert quiet(c)[-1]['init_average'] == .25
    trained = tmp_path/'out'/('best' if best else 'epoch_1')
    assert off(weights(c), mean_of(trained, .25, c)) < 1e-6
    assert off(weights(c), load_file(trained/'model.safetensors')) > 1e-3


def test_a_run_that_is_stopped_while_it_looks_for_a_share_goes_on(small):
    kw = dict(init_average='auto', save_on_epoch_end=True, resume_from_checkpoint='latest')
    whole, part = small('whole', **kw), small('part', **kw)
    quiet(whole)
    choose = trainer.Run.choose_share
    def told(self, *ends):
        self.stop.signal = 15
        return choose(self, *ends)
    with patch.object(trainer.Run, 'choose_share', told), pytest.raises(SystemExit): quiet(part)
    engine.forget_accelerator()
    quiet(part)
    assert off(weights(part), weights(whole)) == 0 and off(weights(part, 'epoch_1'), weights(whole, 'epoch_1')) == 0


def test_a_dry_run_counts_what_is_trained(small, tmp_path):
    all_weights, few = (trainer.dry_run(small(lora_r=r)) for r in (0, 4))
    assert few['optimizer'] == 2 * few['gradients'] < all_weights['optimizer'] / 5
    assert few['parameters'] > all_weights['parameters'] == all_weights['gradients']
    assert not (tmp_path/'out').exists()


# ---------- in two processes ----------

@pytest.mark.slow
@pytest.mark.parametrize('kind', ['modernbert', 'qwen3'])
def test_two_processes_equal_one(kind, tmp_path):
    from test_fsdp import same_folder, same_records
    model, data = make(kind), binary_file(tmp_path/'t.jsonl', 12)
    start, one, two = model.save_pretrained(tmp_path/'start'), tmp_path/'one', tmp_path/'two'
    kw = dict(lora_r=4, lr=1e-3, fit_head=16, mixed_precision='no', logging_steps=1,
              eval_dataset=binary_file(tmp_path/'d.jsonl', 6, seed=1))
    a = finished(run(*command(1), *flags(start, data, one, batch_size=16, **kw), env=env()), one)
    p = run(*command(2, kind), *flags(start, data, two, batch_size=8, **kw), env=env())
    b = finished(p, two)
    assert 'parameters are sharded over 2 processes' in p.stdout and len(a) == len(b)
    same_records(a, b, ('loss', 'grad_norm', 'eval_loss', 'lr'), abs=2e-6)
    for name in ('model', 'epoch_1'): same_folder(one/name, two/name)
    assert off(weights(TrainConfig('m', 'd', one)), load_file(f'{start}/model.safetensors')) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize('start', [command(2), [*TORCHRUN, 'tests/cut.py']], ids=['sharded', 'whole'])
def test_two_processes_go_on_and_save_a_mean(start, still, tmp_path):
    data, dev = binary_file(tmp_path/'t.jsonl', 12), binary_file(tmp_path/'d.jsonl', 6, seed=1)
    one, two = tmp_path/'one', tmp_path/'two'
    kw = dict(lora_r=4, lr=1e-3, init_average='auto', mixed_precision='no', eval_dataset=dev, checkpointing_steps=3,
              resume_from_checkpoint='latest')
    a = finished(run(*command(1), *flags(still, data, one, batch_size=16, **kw), env=env()), one)
    words = flags(still, data, two, batch_size=8, **kw)
    assert run(*start, *words, env=env('kill:3:1')).returncode != 0
    p = run(*start, *words, env=env())
    b = finished(p, two)
    assert 'step 3, epoch 1' in p.stdout and len(a) == len(b)
    assert a[-1]['init_average'] == b[-1]['init_average']
    x, y = (load_file(out/'model/model.safetensors') for out in (one, two))
    assert off(x, y) < 1e-6
