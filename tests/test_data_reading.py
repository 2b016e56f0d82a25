"What reading costs and takes: long lines, many files, packed files, a spreadsheet's quotes, the same steps however they are split."
import gzip, json, os, resource
from dataclasses import replace
from unittest.mock import patch
import pytest
from conftest import binary_file
from rerank_nb import data
from rerank_nb.data import DataError, PairDataset


def test_a_loader_parses_no_line_twice(tmp_path):
    "Both a long line and short ones, through torch's own loader."
    import torch
    lists = [dict(query=f'q{i}', pos=['p'], neg=[f'{i} {j} ' + 'x'*50 for j in range(n)]) for i, n in enumerate((500, 3, 3))]
    path = tmp_path/'lists.jsonl'
    path.write_text(''.join(json.dumps(l) + '\n' for l in lists))
    ds = PairDataset(path)
    with patch.object(data, '_parse', wraps=data._parse) as parse:
        in_order = [p for b in torch.utils.data.DataLoader(ds, batch_size=len(ds), collate_fn=list) for p in b]
    assert parse.call_count == 3
    with patch.object(data, '_parse', wraps=data._parse) as parse:
        some = [ds[i] for i in range(0, 500, 50)]
    assert parse.call_count == 0
    assert [p.doc for p in in_order] == [d for l in lists for d in l['pos'] + l['neg']] and some == in_order[:500:50]


def test_more_files_than_may_be_open(tmp_path):
    files = [tmp_path/f'{i}.jsonl' for i in range(300)]
    for i, f in enumerate(files): f.write_text(json.dumps(dict(query=f'q{i}', pos=['a'], neg=['b'])) + '\n')
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
    bad.write_text('{"query": 1}\n'); tsv.write_text('a\tb\t3\n')
    for path, remedy in ((bad, '--on_bad_line skip'), (tsv, '--loss_type: classfication and margin_mse read JSON lines')):
        with pytest.raises(DataError) as fact: PairDataset(path, 'binary')
        assert '--' not in str(fact.value)
        with pytest.raises(DataError) as told: open_data(config(tmp_path, path))
        assert str(told.value).startswith(str(fact.value)) and remedy in str(told.value)


def test_a_packed_file_and_a_spreadsheet_train_as_what_they_hold(tmp_path):
    from rerank_nb.trainer import open_data
    plain = open(binary_file(tmp_path/'plain.jsonl'), encoding='utf-8').read()
    rows = [json.loads(l) for l in plain.splitlines()]
    (tmp_path/'a.gz').write_bytes(gzip.compress(plain.encode()))
    (tmp_path/'b.jsonl').write_bytes(plain.encode('utf-16'))
    (tmp_path/'c.json').write_text(json.dumps(rows, indent=1))
    expected = [*PairDataset(tmp_path/'plain.jsonl')]
    for name in ('a.gz', 'b.jsonl', 'c.json'): assert [*open_data(config(tmp_path, tmp_path/name))[0]] == expected
    (tmp_path/'excel.tsv').write_text('"how, to"\t"the ""big"" dog"\t3\n"how, to"\t"a ""red"" fox"\t0\n')
    ds = open_data(config(tmp_path, tmp_path/'excel.tsv', loss_type='regression'))[0]
    assert [p[:2] for p in ds] == [('how, to', 'the "big" dog'), ('how, to', 'a "red" fox')]
    assert len(ds.warnings) == 1 and 'taken off' in ds.warnings[0]


def test_labels_that_cannot_teach_are_told_before_training(tmp_path, capsys):
    from rerank_nb.model import CrossEncoder
    from rerank_nb.tiny import tiny_model
    from rerank_nb.trainer import open_data, report_data
    rows = [json.loads(l) for l in open(binary_file(tmp_path/'plain.jsonl', 60), encoding='utf-8')]
    (tmp_path/'marked.jsonl').write_text(''.join(json.dumps(r | dict(neg=[f'neg: {t}' for t in r['neg']])) + '\n' for r in rows))
    (tmp_path/'one.jsonl').write_text(''.join(json.dumps(r | dict(neg=[])) + '\n' for r in rows))
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
    from rerank_nb.tiny import tiny_model
    from rerank_nb.trainer import train
    tiny_model(tmp_path/'model', 'bert', hidden_dropout_prob=0., attention_probs_dropout_prob=0.)
    rows = [json.loads(l) for l in open(binary_file(tmp_path/'five.jsonl'), encoding='utf-8')]
    lists = tmp_path/'lists.jsonl'   # of 5 to 15 documents
    lists.write_text(''.join(json.dumps(r | dict(neg=[f'{t} {j}' for j in range(1 + i % 3) for t in r['neg']])) + '\n' for i, r in enumerate(rows)))
    base = config(tmp_path, lists, loss_type='ce', epochs=1, lr=1e-3, logging_steps=1, max_len=32, save_on_epoch_end=False, checkpointing_steps=3, mixed_precision='no')
    losses = lambda history: [r['loss'] for r in history if 'loss' in r]
    one = losses(train(replace(base, batch_size=64)))
    assert len(one) == 7   # 6 queries a step
    for batch, k in ((4, 16), (16, 4)):
        other = losses(train(replace(base, batch_size=batch, gradient_accumulation_steps=k, output_dir=str(tmp_path/f'{batch}'))))
        assert other == pytest.approx(one, rel=1e-4)
    on = train(replace(base, batch_size=16, gradient_accumulation_steps=4, output_dir=str(tmp_path/'on'), resume_from_checkpoint=str(tmp_path/'out'/'checkpoint_3')))
    assert losses(on) == pytest.approx(one, rel=1e-4)
