"kill -9 in the middle of scoring and of mining: the same command goes on, and no line is lost or doubled."
import subprocess, sys
import psutil, pytest
from helpers import ROOT, as_flags, binary_file, env, read_jsonl, run, until, write_jsonl


PLACE = dict(PYTHONPATH=str(ROOT))


def kill_all(p):
    "Kill a process and all below it, since the launcher's workers have sessions of their own; how many there were."
    processes = [psutil.Process(p.pid), *psutil.Process(p.pid).children(recursive=True)]
    for q in processes: q.kill()
    psutil.wait_procs(processes, timeout=60)
    p.communicate(timeout=60)
    return len(processes)


def killed_and_again(command, output, expected, parts_before=2):
    "Kill all processes of the command once some parts are there, see that no output is, and run it again."
    command = [str(word) for word in [*command, '--output', output]]
    p = subprocess.Popen(command, cwd=output.parent, env=env(**PLACE), stdout=subprocess.DEVNULL,
                         stderr=subprocess.PIPE, text=True)
    parts = output.with_name(output.name + '.parts')
    until(lambda: len(list(parts.glob('0*.jsonl'))) >= parts_before, p)
    assert kill_all(p) >= expected
    there = len(list(parts.glob('0*.jsonl')))
    assert there >= parts_before and not output.exists()
    p = run(*command, cwd=output.parent, env=env(**PLACE))
    assert p.returncode == 0, p.stderr
    assert f'going on: {there} parts of' in p.stdout, p.stdout
    assert not parts.exists()
    return read_jsonl(output)


def at_once(command, output):
    "What the command writes when nothing stops it."
    p = run(*command, '--output', output, cwd=output.parent, env=env(**PLACE))
    assert p.returncode == 0, p.stderr
    return read_jsonl(output)


def program(module, processes):
    "The start of a command line, with accelerate's launcher for more than one process."
    several = as_flags(num_processes=processes, num_machines=1, mixed_precision='no', dynamo_backend='no',
                       main_process_port=0)
    launch = ['-m', 'accelerate.commands.launch', '--multi_gpu', *several] if processes > 1 else []
    return [sys.executable, *launch, '-m', f'rerank_nb.{module}']


@pytest.mark.parametrize('processes', [1, 2])
def test_scoring(tiny, tmp_path, processes):
    data = binary_file(tmp_path/'train.jsonl', 1200)
    command = [*program('scoring', processes), *as_flags(model=tiny['bert'], dataset=data, max_len=64, lines_a_part=8)]
    got = killed_and_again(command, tmp_path/'killed.jsonl', processes + (processes > 1))
    assert [r['query'] for r in got] == [r['query'] for r in read_jsonl(data)]
    for a, b in zip(got, at_once(command, tmp_path/'whole.jsonl'), strict=True):
        assert {k: a[k] for k in ('query', 'pos', 'neg')} == {k: b[k] for k in ('query', 'pos', 'neg')}
        assert a['pos_scores'] + a['neg_scores'] == pytest.approx(b['pos_scores'] + b['neg_scores'], abs=1e-4)


@pytest.mark.parametrize('processes, first', [(1, 'bm25'), (2, 'embedding')])
def test_mining(tiny, tmp_path, processes, first):
    data = binary_file(tmp_path/'train.jsonl', 600)
    texts = list(dict.fromkeys(d for r in read_jsonl(data) for d in r['pos'] + r['neg']))
    texts += [f'passage {i}' for i in range(5000 - len(texts))]   # more than one file of vectors
    corpus = write_jsonl(tmp_path/'corpus.jsonl', [dict(text=t) for t in texts])
    words = as_flags(dataset=data, corpus=corpus, reranker=tiny['bert'], negatives=3, depth=20, max_len=64,
                     lines_a_part=8)
    if first == 'embedding': words += as_flags(embedding_model=tiny['bert'])
    command = [*program('mining', processes), *words]
    got = killed_and_again(command, tmp_path/'killed.jsonl', processes + (processes > 1))
    assert got == at_once([*program('mining', 1), *words], tmp_path/'whole.jsonl') and len(got) == 600
