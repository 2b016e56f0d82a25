"""Training that fits the device: a rate of its own for the head; the mean of start and trained model; layers that are
computed twice; what memory a run needs."""
import json, math, re, shutil, sys
from unittest.mock import patch
import pytest, torch
import torch.nn.functional as F
from safetensors.torch import load_file
from helpers import binary_file, command, env, finished, flags, quiet, run
from rerank_nb import engine, trainer
from rerank_nb.data import Pair, PairBatches, PairDataset
from rerank_nb.files import UserError, in_units
from rerank_nb.model import CrossEncoder, average_models
from rerank_nb.tiny import tiny_model
from rerank_nb.trainer import TrainConfig

pytestmark = pytest.mark.usefixtures('alone')
TORCHRUN = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2']


@pytest.fixture
def settings(still, tmp_path):
    "The settings of a small run, and what is other about it."
    def make(out='out', **kw):
        usual = dict(batch_size=8, lr=1e-3, epochs=1, warmup_proportion=0., max_len=64, mixed_precision='no',
                     save_on_epoch_end=False, logging_steps=1)
        given = dict(model_name_or_path=still, dataset=binary_file(tmp_path/'t.jsonl', 8), output_dir=tmp_path/out)
        return TrainConfig(**given | usual | kw)
    return make


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
    del state['settings']['lr_head'], state['crc']
    path.write_text(json.dumps(state))
    with pytest.raises(UserError, match='lr_head: found 0.01'): quiet(settings('part', **usual | dict(lr_head=1e-2)))
    quiet(part)
    assert off(weights(whole), weights(part)) == 0


def test_a_rate_for_a_head_is_a_number_above_0(settings):
    with pytest.raises(UserError, match='--lr_head: found 0, expected a number above 0'): quiet(settings(lr_head=0))


# ---------- the mean of start and trained model ----------

@pytest.fixture
def averaging(settings, tmp_path):
    "The settings of a run with an evaluation that keeps what it trained."
    usual = dict(init_average=.25, save_on_epoch_end=True, eval_dataset=binary_file(tmp_path/'d.jsonl', 6, seed=1))
    return lambda out='out', **kw: settings(out, **usual | kw)


def mean_of(folder, share, c):
    "The weights that `average_models` makes of a folder and the start of a run."
    made = average_models([folder, c.model_name_or_path], f'{c.output_dir}.mean', [share, 1 - share])
    return load_file(f'{made}/model.safetensors')


def test_the_saved_model_is_the_mean(averaging, tmp_path):
    c = averaging()
    assert quiet(c)[-1]['init_average'] == .25
    got, epoch = weights(c), weights(c, 'epoch_1')
    assert off(got, mean_of(tmp_path/'out/epoch_1', .25, c)) < 1e-7
    assert off(got, epoch) > 1e-4 and off(got, load_file(f'{c.model_name_or_path}/model.safetensors')) > 1e-4


def test_the_trained_end_is_the_best_model_where_one_is_kept(averaging, tmp_path):
    def since_first(evals, metric): return len([r for r in evals if r['step']]) - 1
    c = averaging(metric_for_best_model='loss', eval_steps=2)
    with patch.object(trainer, 'since_best', since_first): quiet(c)
    assert off(weights(c, 'best'), weights(c, 'epoch_1')) > 1e-4
    assert off(weights(c), mean_of(tmp_path/'out/best', .25, c)) < 1e-7


def test_auto_takes_the_best_on_the_evaluation_data(averaging, capsys):
    c = averaging(init_average='auto', metric_for_best_model='loss', lr=2e-2)
    chosen = quiet(c)[-1]['init_average']
    rows = [l.split() for l in capsys.readouterr().out.split('auto, by loss\n')[1].splitlines()[1:6]]
    said = {float(w): float(loss) for w, loss, *_ in rows}
    assert list(said) == [0, .25, .5, .75, 1] and chosen == min(said, key=said.get)
    assert [row[-1] for row in rows if float(row[0]) == chosen] == ['<-']
    dev = PairDataset(c.eval_dataset)
    labels = torch.from_numpy(dev.labels())
    for share in said:
        mean_of(f'{c.output_dir}/best', share, c)
        scores = CrossEncoder.from_pretrained(f'{c.output_dir}.mean').compute_score([[p.query, p.doc] for p in dev])
        assert said[share] == pytest.approx(F.binary_cross_entropy_with_logits(scores, labels).item(), abs=2e-4)
    assert off(weights(c), mean_of(f'{c.output_dir}/best', chosen, c)) < 1e-7


@pytest.mark.parametrize('accident,said', [
    (lambda start: shutil.rmtree(start), 'no such folder'),
    (lambda start: tiny_model(start, seed=1), 'its weights have changed')])
def test_a_start_that_is_gone_leaves_the_trained_model(accident, said, averaging):
    c, save = averaging(), trainer.Run.save_last
    def happens(self):
        save(self)
        accident(c.model_name_or_path)
    with patch.object(trainer.Run, 'save_last', happens), pytest.raises(UserError) as e: quiet(c)
    assert said in str(e.value) and f'{c.output_dir}/model is the model as trained' in str(e.value)
    assert off(weights(c), weights(c, 'epoch_1')) == 0


def test_a_new_head_has_no_mean(averaging, tmp_path):
    bare = tiny_model(tmp_path/'bare', head=False)
    c = averaging(model_name_or_path=bare)
    with pytest.raises(UserError, match='bare has no trained head'): quiet(c)
    assert not (tmp_path/'out').exists()


def test_a_run_that_is_stopped_while_it_looks_for_a_share_goes_on(averaging, tmp_path, monkeypatch):
    monkeypatch.setitem(trainer.BETTER, 'ndcg@10', 0)   # all are alike, so that the trained end is taken
    kw = dict(init_average='auto', resume_from_checkpoint='latest')
    whole, part = averaging('whole', **kw), averaging('part', **kw)
    assert quiet(whole)[-1]['init_average'] == 1
    choose = trainer.Run.choose_share
    def told(self, *ends):
        self.stop.signal = 15
        return choose(self, *ends)
    with patch.object(trainer.Run, 'choose_share', told), pytest.raises(SystemExit): quiet(part)
    assert off(weights(part), weights(part, 'epoch_1')) == 0
    engine.forget_accelerator()
    for _ in range(2):   # and once more after its end
        quiet(part)
        assert off(weights(part), weights(whole)) == 0
    path = tmp_path/'part/checkpoint_5/state.json'
    state = json.loads(path.read_text())
    del state['crc']   # as an earlier version wrote it
    for mark, said in ((None, 'was written without it'), (state['start'] + 1, 'its weights have changed')):
        path.write_text(json.dumps(state | dict(start=mark)))
        with pytest.raises(UserError, match=said): quiet(part)
    assert off(weights(part), weights(whole)) == 0


# ---------- layers that are computed twice ----------

def gradients(model, padded, prepare):
    "(gradients of a step with dropout, how often its first layer was computed) of a model that was prepared."
    m, calls = CrossEncoder.from_pretrained(model).train(), []
    prepare(m)
    layers = next(x for x in m.model.base_model.modules() if isinstance(x, torch.nn.ModuleList))
    norm = next(x for x in layers[0].modules() if isinstance(x, torch.nn.LayerNorm))
    norm.register_forward_hook(lambda *_: calls.append(1))
    batch = m.collator(64)([Pair('fox', 'the dog jumps', 1.), Pair('dog', 'lazy fox'), Pair('lazy dog', 'dog ' * 9)])
    torch.manual_seed(0)
    F.binary_cross_entropy_with_logits(m(batch, padded=padded), batch.labels).backward()
    return [p.grad for p in m.parameters() if p.grad is not None], len(calls)


def other_dropout(m):
    "Recompute with other draws, as accelerate's switch does."
    net = m.model   # the second is its older name
    enable = getattr(net, 'activation_checkpointing_enable', None) or net.gradient_checkpointing_enable
    enable(dict(use_reentrant=False, preserve_rng_state=False))


@pytest.mark.parametrize('kind,padded', [('bert', False), ('bert', True), ('xlm-roberta', False), ('electra', False)])
def test_layers_computed_twice_drop_the_same(kind, padded, tmp_path):
    model = tiny_model(tmp_path/'m', kind, hidden_dropout_prob=.3, attention_probs_dropout_prob=.3)
    plain, once = gradients(model, padded, lambda m: None)
    again, twice = gradients(model, padded, trainer.keep_inputs_only)
    assert (once, twice) == (1, 2)
    assert all(torch.equal(x, y) for x, y in zip(plain, again))
    wrong, _ = gradients(model, padded, other_dropout)
    assert max((x - y).abs().max() for x, y in zip(plain, wrong)) > 1e-3   # and the comparison would see it


def test_a_run_whose_layers_are_computed_twice_is_the_same_run(settings, tmp_path):
    usual = dict(model_name_or_path=tiny_model(tmp_path/'dropping'))
    plain, twice = settings('plain', **usual), settings('twice', gradient_checkpointing=True, **usual)
    for c in (plain, twice): quiet(c)
    assert off(weights(plain), weights(twice)) == 0


def test_a_network_that_cannot_compute_its_layers_twice_is_named(still, settings):
    with patch('transformers.BertForSequenceClassification.supports_gradient_checkpointing', False):
        with pytest.raises(UserError, match='--gradient_checkpointing: bert has none in transformers'):
            quiet(settings(gradient_checkpointing=True))


# ---------- what a run needs ----------

def dry(c, capsys):
    "What a dry run says, by line."
    assert quiet(c) == []
    said = capsys.readouterr().out
    return {line[:12].strip(): line[12:].strip() for line in said.splitlines()}


def test_a_dry_run_says_what_a_process_needs_and_writes_nothing(settings, still, tmp_path, capsys):
    said = dry(settings(dry_run=True), capsys)
    size = in_units(sum(4 * w.numel() for w in load_file(f'{still}/model.safetensors').values()))
    assert (said['parameters'], said['gradients']) == (size, size) and 'It fits.' in said, said
    assert not (tmp_path/'out').exists()


def test_a_dry_run_on_a_small_machine(settings, capsys):
    for there, row in ((3 * 10**5, 'activations'), (10**5, 'activations')):   # not for them, not even for the weights
        with patch.object(trainer, 'free_memory', lambda device: there): said = dry(settings(dry_run=True), capsys)
        assert said[row] == said['together'] == 'too much' and 'It does not' in said, said


def test_activations_grow_with_the_batch(still, settings):
    acc, m = engine.make_accelerator(), CrossEncoder.from_pretrained(still)
    one, two = ([Pair('fox', 'the dog jumps over', 1., i) for i in range(n)] for n in (20, 40))
    a, b = (trainer.activations(acc, m, m.collator(64)(pairs), 'classfication') for pairs in (one, two))
    assert a > 20 * 8 * 32 * 4 * 10 and b / a == pytest.approx(2, abs=.1)   # more than ten states of a layer


# ---------- in two processes ----------

@pytest.mark.slow
def test_a_dry_run_in_two_processes(still, tmp_path):
    words = flags(still, binary_file(tmp_path/'t.jsonl', 12), tmp_path/'out', batch_size=8, mixed_precision='no')
    one, two = (run(*command(n, script='rerank_nb/train_reranker.py'), *words, '--dry_run', env=env()) for n in (1, 2))
    sizes = [float(re.search(r'parameters +([\d.]+) kB', p.stdout)[1]) for p in (one, two)]
    assert sizes[1] / sizes[0] == pytest.approx(.5, abs=.05) and '2 x cpu' in two.stdout, (one, two)
    assert not (tmp_path/'out').exists()


@pytest.mark.slow
@pytest.mark.parametrize('start', [command(2), [*TORCHRUN, 'tests/cut.py']], ids=['sharded', 'whole'])
def test_a_mean_in_two_processes(start, still, tmp_path):
    data, dev = binary_file(tmp_path/'t.jsonl', 12), binary_file(tmp_path/'d.jsonl', 6, seed=1)
    one, two = tmp_path/'one', tmp_path/'two'
    kw = dict(lr=1e-3, init_average='auto', mixed_precision='no', eval_dataset=dev, eval_steps=2,
              metric_for_best_model='loss')
    a = finished(run(*command(1), *flags(still, data, one, batch_size=16, **kw), env=env()), one)
    p = run(*start, *flags(still, data, two, batch_size=8, **kw), env=env())
    b = finished(p, two)
    assert '--init_average auto, by loss' in p.stdout and p.stdout.count('<-') == 1, p.stdout
    assert a[-1]['init_average'] == b[-1]['init_average']
    x, y = (load_file(out/'model/model.safetensors') for out in (one, two))
    assert off(x, y) < 1e-6


@pytest.mark.slow
def test_layers_computed_twice_in_two_processes(still, tmp_path):
    data, one, two = binary_file(tmp_path/'t.jsonl', 12), tmp_path/'one', tmp_path/'two'
    kw = dict(lr=1e-4, mixed_precision='no', save_on_epoch_end=0, logging_steps=1)
    finished(run(*command(1), *flags(still, data, one, batch_size=16, **kw), env=env()), one)
    *start, script = command(2)
    start += ['--fsdp_activation_checkpointing', 'true', script]
    p = run(*start, *flags(still, data, two, batch_size=8, **kw), env=env())
    finished(p, two)
    assert '--gradient_checkpointing 1 is taken in its place' in p.stdout, p.stdout
    x, y = (load_file(out/'model/model.safetensors') for out in (one, two))
    assert off(x, y) < 1e-6


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
