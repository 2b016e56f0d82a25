"""What reading costs and takes: long lines, many files, packed files, a spreadsheet's quotes, the same steps however
they are split."""
import gzip, json, os, resource
from dataclasses import replace
from unittest.mock import patch
import pytest
from helpers import binary_file, read_jsonl, still_model, write_jsonl
from rerank_nb import data
from rerank_nb.data import DataError, PairDataset


def test_a_loader_parses_no_line_twice(tmp_path):
    "Both a long line and short ones, through torch's own loader."
    import torch
    def negatives(i, n): return [f'{i} {j} ' + 'x'*50 for j in range(n)]
    lists = [dict(query=f'q{i}', pos=['p'], neg=negatives(i, n)) for i, n in enumerate((500, 3, 3))]
    ds = PairDataset(write_jsonl(tmp_path/'lists.jsonl', lists))
    loader = torch.utils.data.DataLoader(ds, batch_size=len(ds), collate_fn=list)
    with patch.object(data, '_parse', wraps=data._parse) as parse:
        in_order = [p for batch in loader for p in batch]
    assert parse.call_count == 3
    with patch.object(data, '_parse', wraps=data._parse) as parse:
        some = [ds[i] for i in range(0, 500, 50)]
    assert parse.call_count == 0
    assert [p.doc for p in in_order] == [d for l in lists for d in l['pos'] + l['neg']]
    assert some == in_order[:500:50]


def test_more_files_than_may_be_open(tmp_path):
    files = [tmp_path/f'{i}.jsonl' for i in range(300)]
    for i, f in enumerate(files): write_jsonl(f, [dict(query=f'q{i}', pos=['a'], neg=['b'])])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir('/proc/self/fd')) + 120, hard))
    try:
        ds = PairDataset(files)
        assert [ds[i].query for i in range(0, len(ds), 2)] == [f'q{i}' for i in range(300)]
    finally: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def config(tmp_path, dataset, **kw):
    from rerank_nb.trainer import TrainConfig
    return TrainConfig(str(tmp_path/'model'), [str(dataset)], str(tmp_path/'out'), **kw)


def test_the_data_states_the_fact_and_training_the_remedy(tmp_path):
    from rerank_nb.trainer import open_data
    bad, tsv = tmp_path/'bad.jsonl', tmp_path/'g.tsv'
    bad.write_text('{"query": 1}\n')
    tsv.write_text('a\tb\t3\n')
    remedies = {bad: '--on_bad_line skip', tsv: '--loss_type: classfication, margin_mse, kl and logit_mse read JSON'}
    for path, remedy in remedies.items():
        with pytest.raises(DataError) as fact: PairDataset(path, 'binary')
        assert '--' not in str(fact.value)
        with pytest.raises(DataError) as told: open_data(config(tmp_path, path))
        assert str(told.value).startswith(str(fact.value)) and remedy in str(told.value)


def test_a_packed_file_and_a_spreadsheet_train_as_what_they_hold(tmp_path):
    from rerank_nb.trainer import open_data
    path = binary_file(tmp_path/'plain.jsonl')
    plain = open(path, encoding='utf-8').read()
    (tmp_path/'a.gz').write_bytes(gzip.compress(plain.encode()))
    (tmp_path/'b.jsonl').write_bytes(plain.encode('utf-16'))
    (tmp_path/'c.json').write_text(json.dumps(read_jsonl(path), indent=1))
    expected = [*PairDataset(path)]
    for name in ('a.gz', 'b.jsonl', 'c.json'): assert [*open_data(config(tmp_path, tmp_path/name))[0]] == expected
    (tmp_path/'excel.tsv').write_text('"how, to"\t"the ""big"" dog"\t3\n"how, to"\t"a ""red"" fox"\t0\n')
    ds = open_data(config(tmp_path, tmp_path/'excel.tsv', loss_type='regression'))[0]
    assert [p[:2] for p in ds] == [('how, to', 'the "big" dog'), ('how, to', 'a "red" fox')]
    assert len(ds.warnings) == 1 and 'taken off' in ds.warnings[0]


def test_labels_that_cannot_teach_are_told_before_training(tmp_path, capsys):
    from rerank_nb.model import CrossEncoder
    from rerank_nb.tiny import tiny_model
    from rerank_nb.trainer import open_data, report_data
    rows = read_jsonl(binary_file(tmp_path/'plain.jsonl', 60))
    write_jsonl(tmp_path/'marked.jsonl', [r | dict(neg=[f'neg: {t}' for t in r['neg']]) for r in rows])
    write_jsonl(tmp_path/'one.jsonl', [r | dict(neg=[]) for r in rows])
    (tmp_path/'out').mkdir()
    reranker = CrossEncoder.from_pretrained(tiny_model(tmp_path/'model', 'bert'))
    for name, warning in (('plain', ''), ('marked', "begin with 'neg:"), ('one', 'all 60 pairs have the target 1')):
        c = config(tmp_path, tmp_path/f'{name}.jsonl', max_len=32)
        report_data(c, open_data(c)[0], reranker)
        said = capsys.readouterr().out
        assert said.count('warning:') == bool(warning) and warning in said
        assert (tmp_path/'out'/'data_report.txt').read_text(encoding='utf-8') in said


def test_a_listwise_run_takes_the_same_steps_however_they_are_split(tmp_path):
    "64 pairs as 64, 4 x 16 and 16 x 4; one goes on where another was stopped."
    from rerank_nb.trainer import train
    still_model(tmp_path/'model')
    rows = read_jsonl(binary_file(tmp_path/'five.jsonl'))
    for i, r in enumerate(rows): r['neg'] = [f'{t} {j}' for j in range(1 + i % 3) for t in r['neg']]
    lists = write_jsonl(tmp_path/'lists.jsonl', rows)   # of 5 to 15 documents
    base = config(tmp_path, lists, loss_type='ce', epochs=1, lr=1e-3, logging_steps=1, max_len=32,
                  save_on_epoch_end=False, checkpointing_steps=3, mixed_precision='no')

    def losses(name, batch, k, **kw):
        split = dict(batch_size=batch, gradient_accumulation_steps=k)
        history = train(replace(base, output_dir=str(tmp_path/name), **split, **kw))
        return [r['loss'] for r in history if 'loss' in r]

    one = losses('out', 64, 1)
    assert len(one) == 7   # 6 queries a step
    for batch, k in ((4, 16), (16, 4)): assert losses(f'{batch}', batch, k) == pytest.approx(one, rel=1e-4)
    checkpoint = str(tmp_path/'out/checkpoint_3')
    assert losses('on', 16, 4, resume_from_checkpoint=checkpoint) == pytest.approx(one, rel=1e-4)
