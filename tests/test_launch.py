"The command line as its users launch it: real processes, from the project's root."
import json, re, subprocess, sys
from pathlib import Path
import pytest
from transformers import AutoModelForSequenceClassification
from conftest import ROOT, clean_env, run

ACCELERATE = [sys.executable, '-m', 'accelerate.commands.launch', '--main_process_port', '0']   # a free one


def flags(model, data, out, **kw):
    kw = dict(loss_type='classfication', batch_size=16, lr=1e-3, epochs=1, num_labels=1, max_len=64, save_on_epoch_end=1, warmup_proportion=0.1, gradient_accumulation_steps=1) | kw
    return ['--model_name_or_path', model, '--dataset', data, '--output_dir', out, *[w for k, v in kw.items() for w in (f'--{k}', str(v))]]


def finished(p, out):
    assert p.returncode == 0, p.stdout + p.stderr
    AutoModelForSequenceClassification.from_pretrained(out/'model')
    return [json.loads(l) for l in (out/'metrics.jsonl').read_text().splitlines()]


@pytest.mark.parametrize('how', ['path', 'module', 'python', 'python_path'])
def test_ways_to_launch(how, tiny, binary, tmp_path):
    config = ['--config_file', 'config/xlmroberta_default_config.yaml']
    start = {'path': [*ACCELERATE, *config, 'rerank_nb/train_reranker.py'], 'module': [*ACCELERATE, *config, '-m', 'rerank_nb.train_reranker'],
             'python': [sys.executable, '-m', 'rerank_nb.train_reranker'], 'python_path': [sys.executable, 'rerank_nb/train_reranker.py']}[how]
    out = tmp_path/'out'
    p = run(*start, *flags(tiny['xlm-roberta'], binary[0], out, eval_dataset=binary[1]), env=clean_env())
    records = finished(p, out)
    assert records[0]['epoch'] == 0 and 'eval_ndcg@10' in records[0] and 'before' in p.stdout
    assert (out/'epoch_1/model.safetensors').exists() and (out/'history.png').stat().st_size > 1000
    if how in ('path', 'module'): assert 'running in float32' in p.stdout and 'nothing to shard' in p.stdout


def test_graded_by_path_with_accumulation(tiny, graded, tmp_path):
    out = tmp_path/'out'
    p = run(*ACCELERATE, '--config_file', 'config/default_fsdp.yaml', 'rerank_nb/train_reranker.py',
            *flags(tiny['bert'], graded[0], out, loss_type='regression', gradient_accumulation_steps=3, save_on_epoch_end=0, eval_dataset=graded[1]), env=clean_env(ACCELERATE_USE_CPU='1'))
    records = finished(p, out)
    assert records[-1]['step'] == 4   # 160 pairs, 10 batches, windows of 3, 3, 3, 1
    assert not list(out.glob('epoch_*'))


@pytest.mark.parametrize('change,message', [
    (dict(loss_type='mse'), '--loss_type: found'), (dict(log_with='nothing'), '--log_with: found'), (dict(lr=-1), '--lr: found'),
    (dict(num_labels=2), '--num_labels: found'), (dict(loss_type='regression'), 'format: found JSON lines')])
def test_a_users_mistake_has_no_traceback(change, message, tiny, binary, tmp_path):
    p = run(sys.executable, '-m', 'rerank_nb.train_reranker', *flags(tiny['bert'], binary[0], tmp_path/'out', **change), env=clean_env())
    assert p.returncode == 1 and message in p.stderr and 'Traceback' not in p.stderr + p.stdout
    assert not (tmp_path/'out').exists()


def test_missing_model_and_bad_lines(tiny, tmp_path):
    bad = tmp_path/'bad.jsonl'
    bad.write_bytes('\n'.join(['{"query": "q", "pos": "abc", "neg": []}']*25 + ['{"query": "q", "pos": ["a"], "neg": ["b"]}']).encode() + b'\n\xff\n')
    p = run(sys.executable, '-m', 'rerank_nb.train_reranker', *flags(tiny['bert'], bad, tmp_path/'out'), env=clean_env())
    assert p.returncode == 1 and 'Traceback' not in p.stderr
    assert f'{bad}:1: pos: found a text "abc", expected a list of texts' in p.stderr and '... and 6 more' in p.stderr and f'{bad}:21' not in p.stderr
    p = run(sys.executable, '-m', 'rerank_nb.train_reranker', *flags(tiny['bert'], bad, tmp_path/'out', on_bad_line='skip'), env=clean_env())
    finished(p, tmp_path/'out')
    assert len((tmp_path/'out/skipped_lines.txt').read_text().splitlines()) == 26 and re.search(r'lines skipped +26\n', p.stdout)
    p = run(sys.executable, '-m', 'rerank_nb.train_reranker', *flags(tmp_path/'nowhere', bad, tmp_path/'out2', on_bad_line='skip'), env=clean_env())
    assert p.returncode == 1 and 'no model could be loaded' in p.stderr and 'Traceback' not in p.stderr
    assert not (tmp_path/'out2').exists()   # the next try must not hear that a run is there already


def test_a_run_is_not_overwritten(tiny, binary, tmp_path):
    out = tmp_path/'out'
    start = [sys.executable, '-m', 'rerank_nb.train_reranker', *flags(tiny['bert'], binary[0], out)]
    finished(run(*start, env=clean_env()), out)
    p = run(*start, env=clean_env())
    assert p.returncode == 1 and 'already holds a run' in p.stderr and (out/'model/model.safetensors').exists()
    finished(run(*start, '--overwrite_output_dir', env=clean_env()), out)


def test_help_is_a_manual():
    p = run(sys.executable, 'rerank_nb/train_reranker.py', '--help', env=clean_env())
    assert p.returncode == 0
    for word in ('--negatives_per_query', '--eval_dataset', '--label2id', 'classfication', 'NDCG@10', 'default: 42'): assert word in p.stdout, word


def test_train_reranker_sh(tiny, binary, tmp_path):
    "The shell script of the README, with its own variables."
    p = run('bash', 'train_reranker.sh', '--epochs', '1', '--lr', '1e-3', env=clean_env(MODEL=tiny['xlm-roberta'], DATASET=binary[0], OUTPUT=str(tmp_path/'sh'), LOG_WITH='', PATH=f'{Path(sys.executable).parent}:/usr/bin:/bin'))
    finished(p, tmp_path/'sh')
    assert 'training data' in (tmp_path/'sh.log').read_text()
