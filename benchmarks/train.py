"""How fast, and in how much memory, does training run, and how much of that depends on the lengths?

    python benchmarks/train.py [--rounds 5] [--minutes 20] [--mixtures short natural long]

The same model (6 layers of 384, float32), pairs, batch of 32, max_len 512, AdamW, binary cross-entropy, dropout on:
- rerank_nb: `rerank_nb.trainer.train` as users call it, tokenizing, logging and optimizer included;
- sentence-transformers: CrossEncoderTrainer with its defaults, and with batches of similar length by its own `batch_sampler`;
- padded to max_len: every batch a rectangle of 512, what this project descends from (natural lengths only: its time does not depend on them).
Three mixtures of log-normal lengths, about 120 to 150 tokens on average, one after the other: a short tail (half of a shuffled batch is padding), the natural one, a long one.
Each has its share of the minutes, and takes no new round after them.
The limit is the machine's rate on plain matrix products, measured between the rounds, divided by the operations that the real tokens need.
"""
import argparse, random, tempfile, time
from pathlib import Path
from common import (MIXTURES, MODEL, Gate, Worker, bars, flops, gemm_rate, machine, make_pairs, median, padding, save,
                    spread, token_lengths, write_jsonl)

BATCH, MAX_LEN, LR = 32, 512, 2e-5
PAIRS = 320   # ten batches; two a round, so that five rounds see all of them
NAMES = {'rerank_nb': 2, 'sentence-transformers': 2, 'sentence-transformers, length-grouped': 2, 'padded to max_len': 1}   # steps a turn; the padded one takes only every second turn


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
    trainer.train(trainer.TrainConfig(MODEL, write_jsonl(f'{out}/t.jsonl', pairs), f'{out}/run', batch_size=BATCH, max_len=MAX_LEN, lr=LR, epochs=100, save_on_epoch_end=False))


def sentence_transformers(gate, pairs, grouped):
    from datasets import Dataset
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.base.sampler import DefaultBatchSampler
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
    from transformers import TrainerCallback
    class by_length(DefaultBatchSampler):
        "Batches of similar lengths, in random order. (`train_sampling_strategy='group_by_length'` is accepted by the trainer and does nothing.)"
        def __iter__(self):
            n = [len(q) + len(d) for q, d in zip(self.dataset['query'], self.dataset['passage'])]
            order = sorted(range(len(n)), key=lambda i: n[i])
            batches = [order[i:i + BATCH] for i in range(0, len(order), BATCH)]
            random.shuffle(batches)
            return iter(batches)
        def __init__(self, dataset, *args, **kw): super().__init__(dataset, *args, **kw); self.dataset = dataset
    class Timed(TrainerCallback):
        def on_step_end(self, args, state, control, **kw):
            if state.global_step >= 2: gate.step()
    model = CrossEncoder(str(MODEL), num_labels=1, max_length=MAX_LEN, device='cpu')
    data = Dataset.from_dict(dict(query=[q for q, _, _ in pairs], passage=[d for _, d, _ in pairs], label=[float(y) for _, _, y in pairs]))
    args = CrossEncoderTrainingArguments(output_dir=tempfile.mkdtemp(), per_device_train_batch_size=BATCH, learning_rate=LR, num_train_epochs=100, save_strategy='no', report_to='none', use_cpu=True,
                                         disable_tqdm=True, **(dict(batch_sampler=by_length) if grouped else {}))
    CrossEncoderTrainer(model=model, args=args, train_dataset=data, loss=BinaryCrossEntropyLoss(model), callbacks=[Timed()]).train()


def padded_to_max(gate, pairs):
    import random, torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    model, tok = AutoModelForSequenceClassification.from_pretrained(MODEL, num_labels=1, dtype=torch.float32), AutoTokenizer.from_pretrained(MODEL)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    model.train()
    for i in range(10**6):
        some = random.Random(i).sample(pairs, BATCH)
        batch = tok([q for q, _, _ in some], [d for _, d, _ in some], padding='max_length', truncation=True, max_length=MAX_LEN, return_tensors='pt')
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(**batch).logits[:, 0], torch.tensor([float(y) for _, _, y in some]))
        loss.backward(); optimizer.step(); optimizer.zero_grad()
        gate.step()


def turns(mixture, names, rounds, seconds):
    "Rates of all contenders, round by round, at most `rounds` and no new one after `seconds`."
    start, workers = time.time(), [Worker(__file__, n, '--mixtures', mixture) for n in names]
    rates, peaks, limit, tokens = {n: [] for n in names}, {}, [], []
    for r in range(rounds):
        if r and time.time() - start > seconds: break
        taking = [w for w in workers if not (w.name.startswith('padded') and r % 2)]
        for w in taking:
            if w.name == 'rerank_nb': gemm = gemm_rate()
            got = w.go(NAMES[w.name])
            rates[w.name].append(BATCH * NAMES[w.name] / got['seconds']); peaks[w.name] = got['peak_mb']
            if w.name == 'rerank_nb':   # the limit is taken right before and after
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
    base = together(rates['sentence-transformers'])
    print(f"""
{mixture}: {len(limit)} rounds, mean length {got['mean_tokens']:.0f} tokens, longest {max(lengths)}, \
{got['lengths']['padding']:.0%} of a shuffled batch is padding

| | pairs a second (median, spread) | beside sentence-transformers, all rounds together | peak memory, MB | of the limit |
|---|---|---|---|---|""")
    for n, v in rates.items():
        share = f'{together(v) / base:.2f}x | {got["peak_mb"][n]:,.0f} | {together(v) / together(limit):.0%}'
        print(f'| {n} | {median(v):.2f} ({spread(v)}) | {share} |')
    print(f'| matrix products alone | {median(limit):.1f} ({spread(limit)}) | {together(limit) / base:.2f}x | | 100% |')
    save('train' if mixture == 'natural' else f'train_{mixture}', got,
         bars([*rates.items(), ('limit: matrix products', limit)], 'pairs a second',
              f'training, {mixture} tail of lengths, batch 32, 2 cores'))


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--worker'); p.add_argument('--rounds', type=int, default=5)
    p.add_argument('--minutes', type=float, default=20.)
    p.add_argument('--mixtures', nargs='+', choices=MIXTURES, default=list(MIXTURES))
    a = p.parse_args()
    pairs = {m: make_pairs(PAIRS, *MIXTURES[m]) for m in a.mixtures}
    if a.worker:
        gate, [mine] = Gate(), pairs.values()
        if a.worker == 'rerank_nb': ours(gate, mine)
        elif a.worker == 'padded to max_len': padded_to_max(gate, mine)
        else: sentence_transformers(gate, mine, 'grouped' in a.worker)
    print(machine())
    for m in a.mixtures:
        names = [n for n in NAMES if m == 'natural' or not n.startswith('padded')]
        report(m, turns(m, names, a.rounds, 60 * a.minutes / len(a.mixtures)), token_lengths(pairs[m], MAX_LEN))


if __name__ == '__main__': main()
