"The command line as its users launch it: real processes, from the project's root."
import re, sys
from pathlib import Path
import pytest
from helpers import ACCELERATE, CONFIG, TRAIN, clean_env, finished, flags, run

LAUNCH = [*ACCELERATE, '--config_file', CONFIG['xlm-roberta']]
WAYS = {
    'path': [*LAUNCH, 'rerank_nb/train_reranker.py'],
    'module': [*LAUNCH, '-m', 'rerank_nb.train_reranker'],
    'python': TRAIN,
    'python_path': [sys.executable, 'rerank_nb/train_reranker.py']}


@pytest.mark.parametrize('how', WAYS)
def test_ways_to_launch(how, tiny, binary, tmp_path):
    out = tmp_path/'out'
    p = run(*WAYS[how], *flags(tiny['xlm-roberta'], binary[0], out, eval_dataset=binary[1]), env=clean_env())
    records = finished(p, out)
    assert records[0]['epoch'] == 0 and 'eval_ndcg@10' in records[0] and 'before' in p.stdout
    assert (out/'epoch_1/model.safetensors').exists() and (out/'history.png').stat().st_size > 1000
    if how in ('path', 'module'): assert 'running in float32' in p.stdout and 'nothing to shard' in p.stdout


def test_graded_by_path_with_accumulation(tiny, graded, tmp_path):
    out = tmp_path/'out'
    words = flags(tiny['bert'], graded[0], out, loss_type='regression', gradient_accumulation_steps=3,
                  save_on_epoch_end=0, eval_dataset=graded[1])
    launch = [*ACCELERATE, '--config_file', CONFIG['bert'], 'rerank_nb/train_reranker.py']
    records = finished(run(*launch, *words, env=clean_env(ACCELERATE_USE_CPU='1')), out)
    assert records[-1]['step'] == 4   # 160 pairs, 10 batches, windows of 3, 3, 3, 1
    assert not list(out.glob('epoch_*'))


@pytest.mark.parametrize('change,message', [
    (dict(loss_type='mse'), '--loss_type: found'), (dict(log_with='nothing'), '--log_with: found'),
    (dict(lr=-1), '--lr: found'), (dict(num_labels=2), '--num_labels: found'),
    (dict(loss_type='regression'), 'format: found JSON lines')])
def test_a_users_mistake_has_no_traceback(change, message, tiny, binary, tmp_path):
    p = run(*TRAIN, *flags(tiny['bert'], binary[0], tmp_path/'out', **change), env=clean_env())
    assert p.returncode == 1 and message in p.stderr and 'Traceback' not in p.stderr + p.stdout
    assert not (tmp_path/'out').exists()


def test_missing_model_and_bad_lines(tiny, tmp_path):
    bad, out = tmp_path/'bad.jsonl', tmp_path/'out'
    lines = ['{"query": "q", "pos": "abc", "neg": []}']*25 + ['{"query": "q", "pos": ["a"], "neg": ["b"]}']
    bad.write_bytes('\n'.join(lines).encode() + b'\n\xff\n')
    p = run(*TRAIN, *flags(tiny['bert'], bad, out), env=clean_env())
    assert p.returncode == 1 and 'Traceback' not in p.stderr
    assert f'{bad}:1: pos: found a text "abc", expected a list of texts' in p.stderr
    assert '... and 6 more' in p.stderr and f'{bad}:21' not in p.stderr
    p = run(*TRAIN, *flags(tiny['bert'], bad, out, on_bad_line='skip'), env=clean_env())
    finished(p, out)
    assert len((out/'skipped_lines.txt').read_text().splitlines()) == 26
    assert re.search(r'lines skipped +26\n', p.stdout)
    p = run(*TRAIN, *flags(tmp_path/'nowhere', bad, tmp_path/'out2', on_bad_line='skip'), env=clean_env())
    assert p.returncode == 1 and 'no model could be loaded' in p.stderr and 'Traceback' not in p.stderr
    assert not (tmp_path/'out2').exists()   # the next try must not hear that a run is there already


def test_a_run_is_not_overwritten(tiny, binary, tmp_path):
    out = tmp_path/'out'
    start = [*TRAIN, *flags(tiny['bert'], binary[0], out)]
    finished(run(*start, env=clean_env()), out)
    p = run(*start, env=clean_env())
    assert p.returncode == 1 and 'already holds a run' in p.stderr and (out/'model/model.safetensors').exists()
    finished(run(*start, '--overwrite_output_dir', env=clean_env()), out)


def test_help_is_a_manual():
    p = run(sys.executable, 'rerank_nb/train_reranker.py', '--help', env=clean_env())
    assert p.returncode == 0
    said = ('--negatives_per_query', '--eval_dataset', '--label2id', 'classfication', 'NDCG@10', 'default: 42')
    for word in said: assert word in p.stdout, word


def test_train_reranker_sh(tiny, binary, tmp_path):
    "The shell script of the README, with its own variables."
    own = dict(MODEL=tiny['xlm-roberta'], DATASET=binary[0], OUTPUT=str(tmp_path/'sh'), LOG_WITH='')
    path = f'{Path(sys.executable).parent}:/usr/bin:/bin'
    p = run('bash', 'train_reranker.sh', '--epochs', '1', '--lr', '1e-3', env=clean_env(PATH=path, **own))
    finished(p, tmp_path/'sh')
    assert 'training data' in (tmp_path/'sh.log').read_text()
