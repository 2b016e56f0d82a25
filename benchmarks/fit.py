"""What do --gradient_checkpointing and --lora_r save, and what does the first cost?

    python benchmarks/fit.py [--rounds 3] [--bytes]

First what is trained of a model, in bytes of gradients, of AdamW's moments and of a checkpoint, for all weights and for
some; nothing is computed for this, and with --bytes it is all.

Training steps (forward, backward, AdamW) on 8 pairs of 512 tokens and on one of 4,096, with it and without, each in a
process of its own, in turn. Six layers of 192 with random weights, dropout 0.1, float32, one thread. The peak is
resident memory at its highest, less what was resident before the first step; seconds are those of the processor, so
that other work on the machine counts less.
"""
import argparse, tempfile, time
from common import Gate, Worker, machine, median, peak_mb, save, spread

SHAPES = {'8 pairs of 512': (8, 512), 'one pair of 4,096': (1, 4096)}
NETWORKS = {   # the shapes of two models that people start from
    'XLM-RoBERTa base': ('xlm-roberta', dict(vocab_size=250002, max_position_embeddings=514, type_vocab_size=1)),
    'Qwen3 0.6B': ('qwen3', dict(vocab_size=151936, hidden_size=1024, num_hidden_layers=28, num_attention_heads=16,
                                 num_key_value_heads=8, head_dim=128, intermediate_size=3072, pad_token_id=0))}
TRAINED = {'all': {}, '`--freeze_embeddings 1`': dict(freeze_embeddings=True), '`--lora_r 16`': dict(lora_r=16)}
OF_BYTES = '''| trained weights | millions | gradients, MB | optimizer, MB | a checkpoint, MB |
|---|---|---|---|---|'''
HEAD = '''| | peak of a step, MB | processor seconds a step (median, spread) |
|---|---|---|'''


def trained(kind, shape, settings):
    "(weights that are trained, all that there are) of a network that has shapes and no values."
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForSequenceClassification
    from rerank_nb.model import CrossEncoder
    from rerank_nb.tiny import tiny_tokenizer
    from rerank_nb.trainer import TrainConfig, add_lora, freeze_embeddings
    with torch.device('meta'):
        net = AutoModelForSequenceClassification.from_config(CONFIG_MAPPING[kind](num_labels=1, **shape))
    model, config = CrossEncoder(net, tiny_tokenizer('xlm-roberta')), TrainConfig('m', 'd', 'o', **settings)
    if config.freeze_embeddings: freeze_embeddings(model)
    add_lora(config, model)
    counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, grad in counts if grad), sum(n for n, _ in counts)


def table_of_bytes():
    "A row for each network and each part of its weights; float32."
    found = {}
    print(OF_BYTES)
    for name, network in NETWORKS.items():
        for what, settings in TRAINED.items():
            n, total = trained(*network, settings)
            kept = 3 * n if settings.get('lora_r') else total + 2 * n
            sizes = dict(gradients_mb=4 * n / 1e6, optimizer_mb=8 * n / 1e6, checkpoint_mb=4 * kept / 1e6)
            found[f'{name}, {what}'] = dict(weights=n, **sizes)
            print(f'| {name}, {what} | {n / 1e6:,.1f} | ' + ' | '.join(f'{mb:,.0f}' for mb in sizes.values()) + ' |')
    save('fit_bytes', dict(trained=found))


def worker(pairs, tokens, checkpointing):
    import torch
    from rerank_nb.data import Pair
    from rerank_nb.losses import bce
    from rerank_nb.model import CrossEncoder
    from rerank_nb.tiny import tiny_model
    from rerank_nb.trainer import keep_inputs_only, make_optimizer
    gate = Gate()
    shape = dict(hidden_size=192, num_hidden_layers=6, num_attention_heads=6, intermediate_size=768)
    with tempfile.TemporaryDirectory() as d:
        model = CrossEncoder.from_pretrained(tiny_model(d, max_len=4096, initializer_range=.02, **shape)).train()
    if checkpointing: keep_inputs_only(model)
    optimizer = make_optimizer(model, 1e-6, .01)
    batch = model.collator(tokens)([Pair('fox', 'dog ' * tokens, float(i % 2), i) for i in range(pairs)])
    assert batch.lens == (tokens,) * pairs
    torch.set_num_threads(1)
    gate.step(before=peak_mb())
    while True:
        start = time.process_time()
        bce(model(batch), batch.labels, batch.groups).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        gate.step(cpu=time.process_time() - start)


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--rounds', type=int, default=3)
    p.add_argument('--bytes', action='store_true', help='only the table of bytes')
    p.add_argument('--worker')
    p.add_argument('shape', nargs='*', type=int)
    a = p.parse_args()
    if a.worker: return worker(*a.shape)
    table_of_bytes()
    if a.bytes: return
    print(f'\n{machine()}\n\n{HEAD}')
    out = {}
    for name, shape in SHAPES.items():
        workers = [Worker(__file__, f'{name}, {how}', *shape, i) for i, how in enumerate(('plain', 'checkpointed'))]
        rows = [[w.go(1) for w in workers] for _ in range(a.rounds + 1)][1:]   # the first is the warm-up
        for w, answers in zip(workers, zip(*rows)):
            seconds, peak = [r['cpu'] for r in answers], answers[-1]['peak_mb'] - w.first['before']
            out[w.name] = dict(peak_mb=round(peak), seconds=seconds)
            print(f'| {w.name} | {peak:,.0f} | {median(seconds):.2f} ({spread(seconds)}) |', flush=True)
            w.end()
    save('fit', dict(steps=out))


if __name__ == '__main__': main()
