"One optimizer step, against independent arithmetic: each of these laws breaks when a line of the loop is left out."
import json, math
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch
import pytest, torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode
from helpers import WORDS, binary_file, quiet, write_jsonl
from rerank_nb import engine, trainer
from rerank_nb.data import Pair, PairBatches, PairDataset
from rerank_nb.evaluation import evaluate_scores
from rerank_nb.losses import LOSSES, n_units
from rerank_nb.model import CrossEncoder, packed_sdpa
from rerank_nb.tiny import tiny_model
from rerank_nb.trainer import TrainConfig, Window, accumulate, evaluate

pytestmark = pytest.mark.usefixtures('alone')


def textbook(model, data, c, clip=True, decay=True):
    "The run of `c` as a textbook writes it: one batch a step, torch's plain AdamW, a cosine from the first step on."
    torch.manual_seed(c.seed)
    m, ds = CrossEncoder.from_pretrained(model), PairDataset(data)
    matrices, others = ([p for p in m.parameters() if (p.ndim > 1) == many] for many in (True, False))
    groups = [dict(params=matrices, weight_decay=c.weight_decay * decay), dict(params=others, weight_decay=0.)]
    opt = torch.optim.AdamW(groups, lr=c.lr, foreach=False)
    batches = PairBatches(len(ds), c.batch_size, seed=c.seed)
    batches.set_epoch(1)
    for step, places in enumerate(batches):
        pairs = [ds[i] for i in places]
        tokens = m.tokenizer([p.query for p in pairs], [p.doc for p in pairs], padding=True, return_tensors='pt')
        logits = m.model(**tokens).logits[:, 0]
        F.binary_cross_entropy_with_logits(logits, torch.tensor([p.label for p in pairs])).backward()
        if clip: torch.nn.utils.clip_grad_norm_(m.parameters(), c.max_grad_norm)
        for g in opt.param_groups: g['lr'] = c.lr * (1 + math.cos(math.pi * step / len(batches))) / 2
        opt.step()
        opt.zero_grad()
    # the gradient of a key's bias is rounding, which Adam makes a step of
    return {k: v for k, v in m.model.state_dict().items() if not k.endswith('key.bias')}


def test_a_run_is_the_loop_of_the_textbook(still, tmp_path):
    data = binary_file(tmp_path/'t.jsonl', 8)
    c = TrainConfig(still, data, tmp_path/'out', batch_size=8, lr=2e-3, epochs=1, warmup_proportion=0., weight_decay=.5,
                    max_grad_norm=.3, mixed_precision='no', save_on_epoch_end=False, max_len=64)
    records = quiet(c)
    assert records[-1]['step'] == 5 and records[-1]['grad_norm'] > .3   # clipped at its last step too
    got = load_file(tmp_path/'out/model/model.safetensors')
    def off(**kw): return max((got[k] - v).abs().max().item() for k, v in textbook(still, data, c, **kw).items())
    assert off() < 2e-5
    assert off(clip=False) > 2e-4 and off(decay=False) > 2e-4   # and the comparison would see it


@pytest.mark.parametrize('loss,norm,fp16,noted', [
    (1., 2., False, -1), (math.nan, 2., False, 3), (1., math.inf, False, 3), (1., math.nan, False, 3),
    (1., math.inf, True, -1), (math.nan, 2., True, 3)])
def test_a_number_that_is_none_is_noted(loss, norm, fp16, noted):
    "fp16 skips a step with infinite gradients by itself; everything else ends the run."
    bad = trainer.FirstBad('cpu', fp16)
    bad.look(torch.tensor(loss), torch.tensor(norm), step=3)
    assert bad.step.item() == noted


def test_attention_dropout_drops_weights_and_keeps_the_mean():
    "2,000 pairs that are all the same: dropped attention is right on average, at any scale of the dot products."
    torch.manual_seed(0)
    n, many = 5, 2000
    q, k, v = (torch.randn(1, 2, n, 4).repeat(1, 1, many, 1) for _ in range(3))
    for scale in (None, .1, 1.5):
        plain = packed_sdpa(q, k, v, (n,) * many, scale=scale)[0].view(many, n, 2, 4)
        dropped = packed_sdpa(q, k, v, (n,) * many, p=.4, scale=scale)[0].view(many, n, 2, 4)
        spread = dropped.std(0)
        assert spread.min() > .005   # each pair draws for itself
        assert ((dropped.mean(0) - plain[0]).abs() < 6 * spread / many**.5).all()
        weights = F.softmax(q[0, 0, :n] @ k[0, 0, :n].T * (scale or .5), -1)
        assert torch.allclose(plain[0, :, 0], weights @ v[0, 0, :n], atol=1e-5)


def test_a_model_in_training_drops_attention(tmp_path):
    m = CrossEncoder.from_pretrained(tiny_model(tmp_path/'m', hidden_dropout_prob=0., attention_probs_dropout_prob=.5))
    batch = m.collator(64)([Pair('fox', 'the dog jumps'), Pair('dog', 'lazy fox')])
    torch.manual_seed(0)
    assert not torch.equal(m.train()(batch), m(batch))
    assert torch.equal(m.eval()(batch), m(batch))


class Late:
    "A number on a GPU: its copy holds nothing before the event that follows it is waited for."
    is_cuda = True
    def __init__(self, value): self.value, self.copy = value, torch.tensor(-1.)
    def detach(self): return self
    def to(self, device, non_blocking):
        assert non_blocking
        Late.last = self
        return self.copy


class Event:
    def record(self): self.number = Late.last
    def synchronize(self): self.number.copy.fill_(self.number.value)


def test_the_stop_is_read_when_its_copy_has_arrived():
    "One step late, and never before the event says that the number is there."
    with patch.object(torch.cuda, 'Event', Event):
        stop, said = engine.StopSignal(), []
        for value in (0., 0., 1., 1.):
            stop.tell(Late(value))
            said.append(stop.asked())
    assert said == [False, False, False, True]


class Copies(TorchDispatchMode):
    "Copies between devices that make the program wait."
    def __init__(self):
        super().__init__()
        self.waits = []

    def __torch_dispatch__(self, f, types, args=(), kw=None):
        kw = kw or {}
        out, name = f(*args, **kw), f.overloadpacket.__name__
        moved_new = name == '_to_copy' and args[0].device != out.device
        moved_into = name == 'copy_' and args[0].device != args[1].device
        goes_on = kw.get('non_blocking') or (name == 'copy_' and len(args) > 2 and args[2])
        if (moved_new or moved_into) and not goes_on: self.waits.append(str(f))
        return out


@contextmanager
def made_for(device):
    "Count the tensors that are made of Python numbers for a device."
    made = []
    def counted(f):
        def call(*args, **kw):
            out = f(*args, **kw)
            if out.device == device: made.append(args)
            return out
        return call
    constructor = patch.object(torch, 'tensor', counted(torch.tensor))
    method = patch.object(torch.Tensor, 'new_tensor', counted(torch.Tensor.new_tensor))
    with constructor, method: yield made


def accelerator_on(device):
    "What a step asks of an accelerator, for the second process of two."
    return SimpleNamespace(
        device=device, num_processes=2, scaler=None, reduce=lambda x: x.clone(),
        backward=lambda loss: loss.backward(), no_sync=lambda model: nullcontext())


@pytest.mark.parametrize('loss_type', sorted(LOSSES))
def test_a_step_waits_for_nothing(loss_type, tiny):
    """Forward, backward, clipping and the look at the numbers on torch's `meta` device, which has shapes and no values:
    whoever asks for one (`item`, `tolist`, `nonzero`, `unique`, `.cpu()`) fails; on a GPU it would wait. Tensors that
    are made of Python numbers for it, and copies to it that block, are counted."""
    m = CrossEncoder.from_pretrained(tiny['bert'])
    collate = m.collator(64)
    docs = ('dog', 'bread', 'fox dog')
    pairs = [Pair(q, f'{q} {d}', float(d == 'dog'), g) for g, q in enumerate(WORDS[:3]) for d in docs]
    batches = [collate(pairs[:4]), collate(pairs[4:]), collate([])]
    units = sum(n_units(loss_type, b.groups) for b in batches[:2])
    meta = torch.device('meta')
    m = m.to(meta).train()
    acc, bad = accelerator_on(meta), trainer.FirstBad(meta)
    no_autocast = patch.object(torch, 'autocast', lambda *a, **kw: nullcontext())   # `meta` has none
    with Copies() as copies, no_autocast, made_for(meta) as made:
        sums = accumulate(acc, m, Window(iter(batches), 3, units), loss_type)
        bad.look(sums[0], torch.nn.utils.clip_grad_norm_(m.parameters(), 1.), step=3)
    assert made == [] and copies.waits == []
    assert sums.shape == (6,) and all(p.grad is not None for p in m.parameters())


def scaled(scale):
    "An accelerator that does what it would for fp16 on a GPU: autocast, and a scaler for the loss."
    acc = engine.make_accelerator()
    acc.state._mixed_precision, acc.native_amp = 'fp16', True
    acc.scaler = torch.amp.GradScaler('cpu', init_scale=scale)
    return acc


def test_fp16_skips_a_step_that_overflows_and_goes_on(still, tmp_path):
    "The scale starts too high: steps are skipped, with the scale halved each time, until the gradients fit."
    out = tmp_path/'out'
    c = TrainConfig(still, binary_file(tmp_path/'t.jsonl', 16), out, batch_size=8, lr=1e-3, epochs=1,
                    warmup_proportion=0., save_on_epoch_end=False, max_len=64, logging_steps=1, checkpointing_steps=2,
                    resume_from_checkpoint='latest')
    with patch.object(trainer, 'make_accelerator', lambda *a, **kw: scaled(2.**24)): records = quiet(c)
    def is_no_json(x): pytest.fail(f'{x} is no JSON')
    lines = [json.loads(l, parse_constant=is_no_json) for l in (out/'metrics.jsonl').read_text().splitlines()]
    assert lines == records and [r['step'] for r in records] == [*range(1, 11)]
    skipped = [r['grad_norm'] is None for r in records]
    assert skipped[0] and not skipped[-1] and sorted(skipped, reverse=True) == skipped
    cosine = [1e-3 * (1 + math.cos(math.pi * i / 10)) / 2 for i in range(10)]
    assert [r['lr'] for r in records] == pytest.approx(cosine)   # a skipped step is a step of the schedule
    was, now = (load_file(Path(d)/'model.safetensors') for d in (still, out/'model'))
    assert all(v.isfinite().all() for v in now.values())
    assert not torch.equal(was['classifier.weight'], now['classifier.weight'])
    states = {n: json.loads((out/f'checkpoint_{n}/state.json').read_text())['scaler']['scale'] for n in (2, 10)}
    assert states == {2: 2.**22, 10: 2.**(24 - sum(skipped))}


def test_a_file_has_one_value(still, tmp_path):
    """A document that a query has twice counts once, in the trainer's evaluation as in `rerank_nb.evaluation`, with the
    higher of its labels."""
    rows = [
        dict(query='fox', pos=['lazy fox'], neg=['the dog', 'bread']),
        dict(query='fox', pos=['bread', 'lazy fox'], neg=['the dog', 'dough']),
        dict(query='dog', pos=['a dog'], neg=['a dog', 'fox'])]
    m, ds = CrossEncoder.from_pretrained(still), PairDataset(write_jsonl(tmp_path/'d.jsonl', rows))
    acc = engine.make_accelerator()
    here = evaluate(acc, m, ds, m.collator(64), 4, 'classfication')
    there = evaluate_scores(m.compute_score([[p.query, p.doc] for p in ds], max_len=64), ds)
    for k in ('ndcg@10', 'mrr@10', 'map'): assert here[k] == pytest.approx(there[k], abs=1e-9)
    with_workers = evaluate(acc, m, ds, m.collator(64), 4, 'classfication', workers=2)
    assert here == pytest.approx(with_workers, abs=1e-6)


def test_what_an_evaluation_is_measured_by_is_read_once(still, tmp_path):
    "Not once an evaluation: of the files nothing but the pairs of each batch is parsed again."
    data, dev = binary_file(tmp_path/'t.jsonl', 8), binary_file(tmp_path/'d.jsonl', 4, seed=1)
    read, calls = PairDataset.doc_ids, []
    def counted(self):
        calls.append(1)
        return read(self)
    c = TrainConfig(still, data, tmp_path/'out', eval_dataset=dev, eval_steps=1, batch_size=8, epochs=1,
                    save_on_epoch_end=False, max_len=64)
    with patch.object(PairDataset, 'doc_ids', counted): records = quiet(c)
    assert len(calls) == 1 and sum('eval_loss' in r for r in records) == 6


@pytest.mark.parametrize('loss_type', ['ce'])
def test_lists_in_several_batches_are_the_lists_in_one(loss_type, still, tmp_path):
    """Lists of 2 to 9 documents: three batches a step have the queries, the losses and the gradients of one batch three
    times as large."""
    def row(i, j):
        q, w = WORDS[i], WORDS[5 + j]
        return dict(query=f'{q} {w}', pos=[f'{q} fox'], neg=[f'{w} {x}' for x in WORDS[:1 + (i + j) % 8]])
    data = write_jsonl(tmp_path/'t.jsonl', [row(i, j) for i in range(5) for j in range(5)])
    def records(k):
        split = dict(batch_size=36 // k, gradient_accumulation_steps=k)
        return quiet(TrainConfig(still, data, tmp_path/f'k{k}', loss_type=loss_type, lr=1e-3, epochs=1, logging_steps=1,
                                 max_len=64, save_on_epoch_end=False, **split))
    one, three = records(1), records(3)
    assert [r['step'] for r in one] == [r['step'] for r in three] and len(one) > 2
    for a, b in zip(one, three):
        for key in ('loss', 'grad_norm', 'lr'): assert a[key] == pytest.approx(b[key], abs=1e-5, rel=1e-5), key


def test_batches_stream(still, tmp_path):
    """The loader is asked for a batch when the one before it has been computed, in the middle of a window too, and an
    epoch that goes on knows its units."""
    events, forward, collator = [], CrossEncoder.forward, CrossEncoder.collator
    def asking(self, *args, **kw):
        collate = collator(self, *args, **kw)
        def call(pairs):
            events.append('ask')
            return collate(pairs)
        return call
    def compute(self, batch, **kw):
        if self.training: events.append('compute')
        else: events.clear()   # tried before the run began
        return forward(self, batch, **kw)
    c = TrainConfig(still, binary_file(tmp_path/'t.jsonl', 8), tmp_path/'out', batch_size=8,
                    gradient_accumulation_steps=3, epochs=1, logging_steps=1, save_on_epoch_end=False, max_len=64)
    with patch.object(CrossEncoder, 'collator', asking), patch.object(CrossEncoder, 'forward', compute):
        records = quiet(c)
    assert events == ['ask', 'compute'] * 5 and len(records) == 2
