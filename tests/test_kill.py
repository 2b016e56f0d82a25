"kill -9 in the middle of scoring and of mining: the same command goes on, and no line is lost or doubled."
import json, subprocess, sys
import psutil, pytest
from conftest import ROOT, binary_file, clean_env, run, until

ENV = dict(OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT), ACCELERATE_USE_CPU='1', GLOO_SOCKET_IFNAME='lo')


def killed_and_again(command, output, cwd, expected=1, parts_before=2):
    "Kill all processes of the command once some parts are there, see that no output is, and run it again."
    p = subprocess.Popen([str(c) for c in command], cwd=cwd, env=clean_env(**ENV), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    parts = output.with_name(output.name + '.parts')
    until(lambda: len(list(parts.glob('0*.jsonl'))) >= parts_before, p)
    processes = [psutil.Process(p.pid), *psutil.Process(p.pid).children(recursive=True)]      # the launcher's workers have sessions of their own
    for q in processes: q.kill()
    psutil.wait_procs(processes, timeout=60)
    p.communicate(timeout=60)
    assert len(processes) >= expected, processes
    there = {f.name: f.stat().st_mtime_ns for f in parts.glob('0*.jsonl')}
    assert len(there) >= parts_before and not output.exists()
    p = run(*command, cwd=cwd, env=clean_env(**ENV))
    assert p.returncode == 0, p.stderr
    assert f'going on: {len(there)} parts of' in p.stdout, p.stdout
    assert not parts.exists()
    return [json.loads(l) for l in output.read_text(encoding='utf-8').splitlines()]


def program(module, processes):
    "The start of a command line, with accelerate's launcher for more than one process."
    launch = ['-m', 'accelerate.commands.launch', '--multi_gpu', '--num_processes', processes, '--num_machines', 1, '--mixed_precision', 'no', '--dynamo_backend', 'no', '--main_process_port', 0] if processes > 1 else []
    return [sys.executable, *launch, '-m', f'rerank_nb.{module}']


@pytest.mark.parametrize('processes', [1, 2])
def test_scoring(tiny, tmp_path, processes):
    data = binary_file(tmp_path/'train.jsonl', 1200)
    command = [*program('scoring', processes), '--model', tiny['bert'], '--dataset', data, '--max_len', 64, '--lines_a_part', 8, '--output']
    got = killed_and_again([*command, tmp_path/'killed.jsonl'], tmp_path/'killed.jsonl', tmp_path, processes + (processes > 1))
    p = run(*command, tmp_path/'whole.jsonl', cwd=tmp_path, env=clean_env(**ENV))
    assert p.returncode == 0, p.stderr
    whole = [json.loads(l) for l in (tmp_path/'whole.jsonl').read_text(encoding='utf-8').splitlines()]
    assert [r['query'] for r in got] == [json.loads(l)['query'] for l in open(data, encoding='utf-8')]
    for a, b in zip(got, whole, strict=True):
        assert {k: a[k] for k in ('query', 'pos', 'neg')} == {k: b[k] for k in ('query', 'pos', 'neg')}
        assert a['pos_scores'] + a['neg_scores'] == pytest.approx(b['pos_scores'] + b['neg_scores'], abs=1e-4)


@pytest.mark.parametrize('processes, first', [(1, 'bm25'), (2, 'embedding')])
def test_mining(tiny, tmp_path, processes, first):
    data, corpus = binary_file(tmp_path/'train.jsonl', 600), tmp_path/'corpus.jsonl'
    texts = list(dict.fromkeys(d for l in open(data, encoding='utf-8') for r in [json.loads(l)] for d in r['pos'] + r['neg']))
    texts += [f'passage {i}' for i in range(5000 - len(texts))]      # more than one file of vectors
    corpus.write_text('\n'.join(json.dumps(dict(text=t), ensure_ascii=False) for t in texts) + '\n', encoding='utf-8')
    command = lambda n: [*program('mining', n), '--dataset', data, '--corpus', corpus, '--reranker', tiny['bert'], '--negatives', 3, '--depth', 20, '--max_len', 64, '--lines_a_part', 8, *(['--embedding_model', tiny['bert']] if first == 'embedding' else []), '--output']
    got = killed_and_again([*command(processes), tmp_path/'killed.jsonl'], tmp_path/'killed.jsonl', tmp_path, processes + (processes > 1))
    p = run(*command(1), tmp_path/'whole.jsonl', cwd=tmp_path, env=clean_env(**ENV))
    assert p.returncode == 0, p.stderr
    assert got == [json.loads(l) for l in (tmp_path/'whole.jsonl').read_text(encoding='utf-8').splitlines()] and len(got) == 600
