"""How fast, and in how much memory, does training run, and how much of that depends on the lengths?

    python benchmarks/train.py [--rounds 5] [--minutes 20] [--mixtures short natural long]

The same model (6 layers of 384, float32), pairs, batch of 32, max_len 512, AdamW, binary cross-entropy, dropout on:
- rerank_nb: `rerank_nb.trainer.train` as users call it, tokenizing, logging and optimizer included;
- sentence-transformers: CrossEncoderTrainer with its defaults, and with batches of similar length by its own
  `batch_sampler`;
- padded to max_len: every batch a rectangle of 512, what this project descends from (natural lengths only: its time
  does not depend on them).
Three mixtures of log-normal lengths, about 120 to 150 tokens on average, one after the other: a short tail (half of a
shuffled batch is padding), the natural one, a long one. Each has its share of the minutes, and takes no new round after
them. The limit is the machine's rate on plain matrix products, measured between the rounds, divided by the operations
that the real tokens need.
"""
import argparse, random, tempfile, time
from common import (MIXTURES, MODEL, Gate, Worker, bars, flops, gemm_rate, machine, make_pairs, median, padding, save,
                    spread, token_lengths, write_jsonl)

BATCH, MAX_LEN, LR = 32, 512, 2e-5
PAIRS = 320   # ten batches; two a round, so that five rounds see all of them
OURS, THEIRS, PADDED = 'rerank_nb', 'sentence-transformers', 'padded to max_len'
GROUPED = f'{THEIRS}, length-grouped'
HEAD = ['pairs a second (median, spread)', f'beside {THEIRS}, all rounds together', 'peak memory, MB', 'of the limit']
STEPS = {OURS: 2, THEIRS: 2, GROUPED: 2, PADDED: 1}   # in a turn; the padded one takes only every second turn


def ours(gate, pairs):
    import rerank_nb.trainer as trainer
    out = tempfile.mkdtemp()
    class Timed(trainer.Run):
        def windows(self):
            for w in super().windows():
                tokens = []
                w.batches = (tokens.extend(b.lens) or b for b in w.batches)   # a window can be gone through once
                yield w
                if self.at.epoch > 1 or self.at.done >= 2: gate.step(tokens=tokens)
    trainer.Run = Timed
    trainer.train(trainer.TrainConfig(MODEL, write_jsonl(f'{out}/t.jsonl', pairs), f'{out}/run', batch_size=BATCH,
                                      max_len=MAX_LEN, lr=LR, epochs=100, save_on_epoch_end=False))


def columns(pairs):
    "Queries, passages and labels of pairs, a list each."
    queries, passages, labels = zip(*pairs)
    return list(queries), list(passages), [float(y) for y in labels]


def batches_by_length():
    """The class for their `batch_sampler`: batches of similar lengths, in random order. (Their trainer accepts
    `train_sampling_strategy='group_by_length'`, and it does nothing.)"""
    from sentence_transformers.base.sampler import DefaultBatchSampler
    class ByLength(DefaultBatchSampler):
        def __init__(self, dataset, *args, **kw):
            super().__init__(dataset, *args, **kw)
            self.dataset = dataset

        def __iter__(self):
            n = [len(q) + len(d) for q, d in zip(self.dataset['query'], self.dataset['passage'])]
            order = sorted(range(len(n)), key=lambda i: n[i])
            batches = [order[i:i + BATCH] for i in range(0, len(order), BATCH)]
            random.shuffle(batches)
            return iter(batches)
    return ByLength


def sentence_transformers(gate, pairs, **sampler):
    from datasets import Dataset
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
    from transformers import TrainerCallback
    class Timed(TrainerCallback):
        def on_step_end(self, args, state, control, **kw):
            if state.global_step >= 2: gate.step()
    model = CrossEncoder(str(MODEL), num_labels=1, max_length=MAX_LEN, device='cpu')
    data = Dataset.from_dict(dict(zip(('query', 'passage', 'label'), columns(pairs))))
    args = CrossEncoderTrainingArguments(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=BATCH, learning_rate=LR, num_train_epochs=100,
        save_strategy='no', report_to='none', use_cpu=True, disable_tqdm=True, **sampler)
    loss = BinaryCrossEntropyLoss(model)
    CrossEncoderTrainer(model=model, args=args, train_dataset=data, loss=loss, callbacks=[Timed()]).train()


def padded_to_max(gate, pairs):
    import torch
    import torch.nn.functional as F
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    model = AutoModelForSequenceClassification.from_pretrained(MODEL, num_labels=1, dtype=torch.float32).train()
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    for i in range(10**6):
        queries, passages, labels = columns(random.Random(i).sample(pairs, BATCH))
        batch = tokenizer(queries, passages, padding='max_length', truncation=True, max_length=MAX_LEN,
                          return_tensors='pt')
        F.binary_cross_entropy_with_logits(model(**batch).logits[:, 0], torch.tensor(labels)).backward()
        optimizer.step()
        optimizer.zero_grad()
        gate.step()


def serve(name, pairs):
    "In a worker: train as the contender does."
    gate = Gate()
    if name == OURS: ours(gate, pairs)
    elif name == PADDED: padded_to_max(gate, pairs)
    elif name == GROUPED: sentence_transformers(gate, pairs, batch_sampler=batches_by_length())
    else: sentence_transformers(gate, pairs)


def turns(mixture, names, rounds, seconds):
    "Rates of all contenders, round by round, at most `rounds` and no new one after `seconds`."
    start, workers = time.time(), [Worker(__file__, n, '--mixtures', mixture) for n in names]
    rates, peaks = {n: [] for n in names}, {}
    limit, tokens = [], []
    for r in range(rounds):
        if r and time.time() - start > seconds: break
        taking = [w for w in workers if not (w.name == PADDED and r % 2)]
        for w in taking:
            if w.name == OURS: gemm = gemm_rate()
            got = w.go(STEPS[w.name])
            rates[w.name].append(BATCH * STEPS[w.name] / got['seconds'])
            peaks[w.name] = got['peak_mb']
            if w.name == OURS:   # the limit is taken right before and after
                tokens += got['tokens']
                limit.append((gemm + gemm_rate()) / 2 / (flops(got['tokens']) / len(got['tokens'])))
        shown = {w.name: round(rates[w.name][-1], 2) for w in taking}
        print(f'{mixture}, round {r + 1}:', shown, 'limit', round(limit[-1], 1), flush=True)
    for w in workers: w.end()
    return dict(pairs_per_second=rates, peak_mb=peaks, limit=limit, mean_tokens=sum(tokens) / len(tokens))


def together(v): return len(v) / sum(1/x for x in v)   # all pairs of all rounds, by all seconds


def report(mixture, got, lengths):
    "A table, results/train.json for the natural mixture and results/train_MIXTURE.json for the others."
    rates, limit = got['pairs_per_second'], got['limit']
    got |= dict(lengths=dict(mean=sum(lengths) / len(lengths), longest=max(lengths), padding=padding(lengths, BATCH)))
    base = together(rates[THEIRS])
    print(f"\n{mixture}: {len(limit)} rounds, mean length {got['mean_tokens']:.0f} tokens, longest {max(lengths)}, "
          f"{got['lengths']['padding']:.0%} of a shuffled batch is padding\n\n| | {' | '.join(HEAD)} |\n|{'---|' * 5}")
    for n, v in rates.items():
        share = f'{together(v) / base:.2f}x | {got["peak_mb"][n]:,.0f} | {together(v) / together(limit):.0%}'
        print(f'| {n} | {median(v):.2f} ({spread(v)}) | {share} |')
    print(f'| matrix products alone | {median(limit):.1f} ({spread(limit)}) | {together(limit) / base:.2f}x | | 100% |')
    save('train' if mixture == 'natural' else f'train_{mixture}', got,
         bars([*rates.items(), ('limit: matrix products', limit)], 'pairs a second',
              f'training, {mixture} tail of lengths, batch 32, 2 cores'))


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--worker')
    p.add_argument('--rounds', type=int, default=5)
    p.add_argument('--minutes', type=float, default=20.)
    p.add_argument('--mixtures', nargs='+', choices=MIXTURES, default=list(MIXTURES))
    a = p.parse_args()
    pairs = {m: make_pairs(PAIRS, *MIXTURES[m]) for m in a.mixtures}
    if a.worker: return serve(a.worker, *pairs.values())
    print(machine())
    for m in a.mixtures:
        names = [n for n in STEPS if m == 'natural' or n != PADDED]
        report(m, turns(m, names, a.rounds, 60 * a.minutes / len(a.mixtures)), token_lengths(pairs[m], MAX_LEN))


if __name__ == '__main__': main()
