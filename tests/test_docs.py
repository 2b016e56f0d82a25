"README.md is nbs/index.ipynb, and what the texts name exists."
import json, re
from pathlib import Path
import pytest
from conftest import ROOT, run
import sys


def test_readme_is_the_index_notebook(tmp_path):
    p = run(sys.executable, 'nbs/readme.py', tmp_path/'README.md')
    assert p.returncode == 0, p.stderr
    assert (tmp_path/'README.md').read_text(encoding='utf-8') == (ROOT/'README.md').read_text(encoding='utf-8'), 'run make readme'


@pytest.mark.parametrize('name', ['README.md', 'README_zh.md', 'CONTRIBUTING.md', 'example_data/README.md', 'benchmarks/README.md',
                                  'docs/guarantees.md', 'docs/peers.md', 'docs/rag_retrieval.md'])
def test_paths_and_flags_in_the_texts_exist(name):
    text = (ROOT/name).read_text(encoding='utf-8')
    for target in re.findall(r'\]\(([^)#:]+)\)', text): assert (ROOT/name).parent.joinpath(target).exists(), target
    for path in re.findall(r'(?:config|example_data|nbs|benchmarks|tests)/[\w./]+\.(?:yaml|jsonl|tsv|ipynb|py|md)', text): assert (ROOT/path).exists(), path
    flags = set(re.findall(r' --(\w+)', (ROOT/'rerank_nb/train_reranker.py').read_text() + run(sys.executable, '-m', 'rerank_nb.train_reranker', '--help').stdout))
    known = flags | {'config_file', 'num_processes', 'quiet', 'layers', 'epochs', 'base', 'mb', 'machine_rank', 'main_process_ip', 'max_restarts'}
    for block in re.findall(r'train_reranker[\s\S]*?(?:\n\n|```)', text):
        for f in re.findall(r' --(\w+)', block): assert f in known, f


def test_the_site_builds_and_every_link_leads_somewhere(tmp_path):
    p = run(sys.executable, 'docs/build.py', tmp_path/'site')
    assert p.returncode == 0, p.stdout + p.stderr
    p = run(sys.executable, 'docs/check.py', tmp_path/'site')
    assert p.returncode == 0, p.stdout
    api = (tmp_path/'site/api/losses.html').read_text(encoding='utf-8')
    assert 'softmax_ce' in api and 'one value a query in rising order of group' in api and '/blob/main/rerank_nb/losses.py#L' in api
    page = tmp_path/'site/01_losses.html'   # the check sees what is broken
    page.write_text(page.read_text(encoding='utf-8').replace('</article>', '<a href="nowhere.html">x</a><img src="no.png"></article>'), encoding='utf-8')
    p = run(sys.executable, 'docs/check.py', tmp_path/'site')
    assert p.returncode == 1 and 'nowhere.html' in p.stdout and 'no.png' in p.stdout


def test_targets_of_make_in_the_texts_exist():
    targets = set(re.findall(r'^([\w-]+):', (ROOT/'Makefile').read_text(), re.M))
    for name in ('README.md', 'README_zh.md', 'CONTRIBUTING.md'):
        for t in re.findall(r'(?:`|    )make ([\w-]+)', (ROOT/name).read_text(encoding='utf-8')): assert t in targets, (name, t)


def test_the_graph_of_modules_is_that_of_the_code(tmp_path):
    p = run(sys.executable, 'docs/graph.py', tmp_path/'CONTRIBUTING.md')
    assert p.returncode == 0, p.stderr
    assert (tmp_path/'CONTRIBUTING.md').read_text(encoding='utf-8') == (ROOT/'CONTRIBUTING.md').read_text(encoding='utf-8'), 'run make graph'
    sys.path.insert(0, str(ROOT/'docs'))
    import graph
    assert graph.mermaid(dict(a={'b', 'c'}, b={'c'}, c=set())) == '```mermaid\ngraph LR\n    a --> b\n    b --> c\n```'
    with pytest.raises(SystemExit): graph.mermaid(dict(a={'b'}, b={'a'}))
    drawn = graph.svg(graph.imports())
    assert drawn.count('marker-end') == len(graph.arrows(graph.imports())) and all(f'>{m}</text>' in drawn for m in graph.imports())
