"""Stage 7 of `make start`: the cosine becomes a reranker.

    python start/train.py        # cosine/, lessons.jsonl, near.jsonl -> run/start

One pass over lessons of two teachers and over lists that the cosine alone judged, as many of each. Embeddings stay as
they are, so that what is learned with the words of the lessons holds for their neighbours. The start is the mean of the
model before and after: after alone is better on documentation and worse on everything else. A run that was stopped goes
on. `--mixed_precision no` is for CPUs without bf16, and takes about 1.6 times as long.
"""
import argparse, random
import torch
from lists import OUT, read_jsonl, write_jsonl
from rerank_nb.losses import LOSSES, Loss, as_they_are, kl, logit_mse
from rerank_nb.model import average_models
from rerank_nb.trainer import TrainConfig, train

LISTS = 1600          # of each of the two files
LESSON = dict(loss_type='lists', lr=4e-5, warmup_proportion=.05, epochs=1, batch_size=64, max_len=400,
              freeze_embeddings=True)


def lists(logits, labels, groups):
    "The order within a list (KL), and a little of the logits themselves, so that scores mean the same in every list."
    each, ids = logit_mse(logits, labels), groups.unique(return_inverse=True)[1]
    size = torch.bincount(ids)
    return kl(logits, labels, groups) + .1 * each.new_zeros(len(size)).index_add(0, ids, each) / size


LOSSES['lists'] = Loss(lists, per='query', reads=('scored',), perfect=as_they_are, judged_by='ce')


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--mixed_precision', choices=['bf16', 'no'], default='bf16')
    a = p.parse_args()
    if not (OUT/'mixed.jsonl').exists():
        lines = [l for name in ('lessons', 'near') for l in read_jsonl(OUT/f'{name}.jsonl')[:LISTS]]
        write_jsonl(OUT/'mixed.jsonl', random.Random(5).sample(lines, len(lines)))
    train(TrainConfig(OUT/'cosine', OUT/'mixed.jsonl', OUT/'run', **LESSON, mixed_precision=a.mixed_precision,
                      save_on_epoch_end=False, checkpointing_steps=150, num_max_checkpoints=1,
                      resume_from_checkpoint='latest'))
    print(average_models([OUT/'cosine', OUT/'run/model'], OUT/'run/start'))


if __name__ == '__main__': main()
