"Training that fits the device: a rate of its own for the head, and the runs that go on with it."
import json, math
from unittest.mock import patch
import pytest, torch
import torch.nn.functional as F
from safetensors.torch import load_file
from helpers import binary_file, command, env, finished, flags, run, still_model
from rerank_nb import engine, trainer
from rerank_nb.data import PairBatches, PairDataset
from rerank_nb.files import UserError
from rerank_nb.model import CrossEncoder
from rerank_nb.trainer import TrainConfig, train


@pytest.fixture(autouse=True)
def alone():
    "Each test starts without an accelerator, and leaves none."
    engine.forget_accelerator()
    yield
    engine.forget_accelerator()


@pytest.fixture
def still(tmp_path): return still_model(tmp_path/'still')


@pytest.fixture
def settings(still, tmp_path):
    "The settings of a small run, and what is other about it."
    def make(out='out', **kw):
        usual = dict(batch_size=8, lr=1e-3, epochs=1, warmup_proportion=0., max_len=64, mixed_precision='no',
                     save_on_epoch_end=False, logging_steps=1)
        return TrainConfig(still, binary_file(tmp_path/'t.jsonl', 8), tmp_path/out, **usual | kw)
    return make


def quiet(c):
    with patch('rerank_nb.records.in_notebook', lambda: False): return train(c)


def weights(c, name='model'): return load_file(f'{c.output_dir}/{name}/model.safetensors')


def off(a, b): return max((a[k] - b[k]).abs().max().item() for k in a if not k.endswith('key.bias'))


class PowerCut(Exception): pass


def cut_off(c, step):
    "A run that ends as by a power cut, when this step is logged."
    log = trainer.Run.log
    def cut(self, *args):
        if self.at.step >= step: raise PowerCut
        log(self, *args)
    with patch.object(trainer.Run, 'log', cut), pytest.raises(PowerCut): quiet(c)


# ---------- a rate of its own for the head ----------

def textbook(c):
    "The run of `c` with torch's plain AdamW, in which pooler and classifier have a rate of their own."
    torch.manual_seed(c.seed)
    m, ds = CrossEncoder.from_pretrained(c.model_name_or_path), PairDataset(c.dataset)
    rates = [c.lr_head if 'pooler' in k or 'classifier' in k else c.lr for k, _ in m.named_parameters()]
    groups = [dict(params=[p], lr=lr, weight_decay=c.weight_decay * (p.ndim > 1))
              for p, lr in zip(m.parameters(), rates)]
    opt, batches = torch.optim.AdamW(groups, foreach=False), PairBatches(len(ds), c.batch_size, seed=c.seed)
    batches.set_epoch(1)
    collate = m.collator(c.max_len)
    for step, places in enumerate(batches):
        batch = collate(ds.__getitems__(places))
        F.binary_cross_entropy_with_logits(m(batch), batch.labels).backward()
        torch.nn.utils.clip_grad_norm_(m.parameters(), c.max_grad_norm)
        for g, lr in zip(opt.param_groups, rates): g['lr'] = lr * (1 + math.cos(math.pi * step / len(batches))) / 2
        opt.step()
        opt.zero_grad()
    return m.model.state_dict()


def test_the_head_has_a_rate_of_its_own(settings):
    c = settings(lr_head=1e-2)
    assert quiet(c)[0]['lr'] == c.lr   # what is recorded is the encoder's
    assert off(weights(c), textbook(c)) < 2e-5
    assert off(weights(c), textbook(settings(lr_head=1e-3))) > 1e-3   # and the comparison would see it


def test_the_same_rate_for_both_is_one_rate(settings):
    one, both = settings('one'), settings('both', lr_head=1e-3)
    for c in (one, both): quiet(c)
    assert off(weights(one), weights(both)) == 0


def test_a_run_with_two_rates_goes_on(settings):
    usual = dict(lr_head=1e-2, checkpointing_steps=2, resume_from_checkpoint='latest')
    whole, part = settings('whole', **usual), settings('part', **usual)
    quiet(whole)
    cut_off(part, 4)
    for other in (None, 2e-2):
        changed = settings('part', **usual | dict(lr_head=other))
        with pytest.raises(UserError, match='lr_head: found .*written with 0.01'): quiet(changed)
    quiet(part)
    assert off(weights(whole), weights(part)) == 0


def test_a_checkpoint_from_before_the_setting_goes_on(settings, tmp_path):
    usual = dict(checkpointing_steps=2, resume_from_checkpoint='latest')
    whole, part = settings('whole', **usual), settings('part', **usual)
    quiet(whole)
    cut_off(part, 4)
    path = sorted((tmp_path/'part').glob('checkpoint_*'))[-1]/'state.json'
    state = json.loads(path.read_text())
    del state['settings']['lr_head']
    path.write_text(json.dumps(state))
    with pytest.raises(UserError, match='lr_head: found 0.01'): quiet(settings('part', **usual | dict(lr_head=1e-2)))
    quiet(part)
    assert off(weights(whole), weights(part)) == 0


def test_a_rate_for_a_head_is_a_number_above_0(settings):
    with pytest.raises(UserError, match='--lr_head: found 0, expected a number above 0'): quiet(settings(lr_head=0))


@pytest.mark.slow
def test_two_rates_in_two_processes(still, tmp_path):
    data, one, two = binary_file(tmp_path/'t.jsonl', 12), tmp_path/'one', tmp_path/'two'
    kw = dict(lr=2e-5, lr_head=1e-3, mixed_precision='no', save_on_epoch_end=0, checkpointing_steps=3)
    a = finished(run(*command(1), *flags(still, data, one, batch_size=16, **kw), env=env()), one)
    words = flags(still, data, two, batch_size=8, resume_from_checkpoint='latest', **kw)
    assert run(*command(2), *words, env=env('kill:3:1')).returncode != 0
    p = run(*command(2), *words, env=env())
    b = finished(p, two)
    assert 'step 3, epoch 1' in p.stdout and len(a) == len(b)
    x, y = (load_file(out/'model/model.safetensors') for out in (one, two))
    assert off(x, y) < 1e-6
