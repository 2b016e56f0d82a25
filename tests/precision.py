"What a model computes in under bf16, said by each process in a line of JSON: test_precision.py launches it."
import json, random, sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import torch
from rerank_nb import engine
from rerank_nb.data import Pair
from rerank_nb.model import CrossEncoder, head_modules
from rerank_nb.trainer import Window, accumulate, make_optimizer
from helpers import WORDS

rng = random.Random(0)


def text(n): return ' '.join(rng.choices(WORDS, k=n))


acc = engine.make_accelerator(mixed_precision='bf16')
model = CrossEncoder.from_pretrained(sys.argv[1])
batch = model.collator(64)([Pair(text(2), text(rng.randrange(3, 9)), float(rng.random() < .3)) for _ in range(1000)])
with torch.no_grad(): reference = model.eval()(batch)
model, optimizer = engine.distribute(acc, model, make_optimizer(model, 1e-3, .01), head_modules(model.model))
with torch.no_grad(): logits = model(batch)

summed = set()


def listen(name):
    "Note the types of what a function of torch.distributed is given."
    f = getattr(torch.distributed, name)
    def call(*args, **kw):
        tensors = [x for x in [*args, *kw.values()] if isinstance(x, torch.Tensor)]
        summed.update(str(x.dtype) for x in tensors if x.numel() > 1)
        return f(*args, **kw)
    setattr(torch.distributed, name, call)


# FSDP's sum of the gradients
for name in [n for n in dir(torch.distributed) if n.startswith('reduce_scatter')]: listen(name)
sums = accumulate(acc, model, Window(iter([batch]), 1, len(batch) * acc.num_processes), 'classfication')
encoder = acc.unwrap_model(model).model.base_model.encoder
inner = next(m for m in encoder.modules() if isinstance(m, torch.nn.Linear))
seen = []
inner.register_forward_hook(lambda m, args, out: seen.append(str(out.dtype)))
with torch.no_grad(): model(batch)
gradients = {str(p.grad.dtype) for p in model.parameters() if p.grad is not None}
said = dict(
    engine=str(acc.distributed_type), layers=seen, summed=sorted(summed), gradients=sorted(gradients),
    logits=str(logits.dtype), distinct=len(logits.unique()), exact=len(reference.unique()),
    off=(logits - reference).abs().max().item(), spread=reference.std().item())
print('said ' + json.dumps(said), flush=True)
