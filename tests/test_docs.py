"README.md is nbs/index.ipynb, and what the texts name exists."
import re, sys
import pytest
from helpers import ROOT, TRAIN, run

TEXTS = ['README.md', 'README_zh.md', 'CONTRIBUTING.md', 'example_data/README.md', 'benchmarks/README.md',
         'docs/guarantees.md', 'docs/peers.md', 'docs/rag_retrieval.md']
LINK = r'\]\(([^)#:]+)\)'
FILE = r'(?:config|example_data|nbs|benchmarks|tests)/[\w./]+\.(?:yaml|jsonl|tsv|ipynb|py|md)'
NOT_OF_TRAINING = {'config_file', 'num_processes', 'quiet', 'layers', 'epochs', 'base', 'mb', 'machine_rank',
                   'main_process_ip', 'max_restarts'}


def text_of(path): return path.read_text(encoding='utf-8')


def test_readme_is_the_index_notebook(tmp_path):
    p = run(sys.executable, 'nbs/readme.py', tmp_path/'README.md')
    assert p.returncode == 0, p.stderr
    assert text_of(tmp_path/'README.md') == text_of(ROOT/'README.md'), 'run make readme'


@pytest.mark.parametrize('name', TEXTS)
def test_paths_and_flags_in_the_texts_exist(name):
    text = text_of(ROOT/name)
    for target in re.findall(LINK, text): assert (ROOT/name).parent.joinpath(target).exists(), target
    for path in re.findall(FILE, text): assert (ROOT/path).exists(), path
    manual = run(*TRAIN, '--help').stdout
    flags = set(re.findall(r' --(\w+)', text_of(ROOT/'rerank_nb/train_reranker.py') + manual))
    for block in re.findall(r'train_reranker[\s\S]*?(?:\n\n|```)', text):
        for f in re.findall(r' --(\w+)', block): assert f in flags | NOT_OF_TRAINING, f


def test_the_site_builds_and_every_link_leads_somewhere(tmp_path):
    p = run(sys.executable, 'docs/build.py', tmp_path/'site')
    assert p.returncode == 0, p.stdout + p.stderr
    p = run(sys.executable, 'docs/check.py', tmp_path/'site')
    assert p.returncode == 0, p.stdout
    api = text_of(tmp_path/'site/api/losses.html')
    assert 'softmax_ce' in api and 'one value a query in rising order of group' in api
    assert '/blob/main/rerank_nb/losses.py#L' in api
    page = tmp_path/'site/01_losses.html'   # the check sees what is broken
    broken = '<a href="nowhere.html">x</a><img src="no.png">'
    page.write_text(text_of(page).replace('</article>', f'{broken}</article>'), encoding='utf-8')
    p = run(sys.executable, 'docs/check.py', tmp_path/'site')
    assert p.returncode == 1 and 'nowhere.html' in p.stdout and 'no.png' in p.stdout


@pytest.fixture
def build(monkeypatch):
    monkeypatch.syspath_prepend(ROOT/'docs')
    import build
    return build


def test_every_notebook_has_a_page(build):
    files = [p.relative_to(ROOT/'nbs') for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts]
    there = {p.with_suffix('').as_posix() for p in files}
    assert {n for names in build.BOOK.values() for n in names} == there


def test_an_api_page_has_patched_methods_and_begins_with_what_people_call(build, tmp_path):
    for module in ('model', 'mining'): build.api(module, tmp_path)
    page, mining = (text_of(tmp_path/f'api/{m}.md').replace(r'\_', '_') for m in ('model', 'mining'))
    methods = ['### CrossEncoder.from_pretrained', '### CrossEncoder.rank', '### CrossEncoder.device']
    order = ['## CrossEncoder\n', *methods, '## packed_sdpa', '## MAX_TOKENS']
    assert sorted(order, key=page.index) == order
    assert '### BM25.__call__' in mining


def test_a_link_to_a_heading_has_the_name_that_the_page_gives_it(build):
    def of(url): return build.links(f'[x]({url})', 'nbs/05_train_reranker', '05_train_reranker')
    assert of('#Line-4:-one-step,-exactly') == '[x](#line-4-one-step-exactly)'
    assert of('04_trainer.ipynb#The-laws-of-a-run') == '[x](04_trainer.md#the-laws-of-a-run)'
    assert of('04_trainer.ipynb') == '[x](04_trainer.md)'


def test_imports_are_folded_and_what_the_set_up_shows_stays(build):
    code, prose = build.nbformat.v4.new_code_cell, build.nbformat.v4.new_markdown_cell
    shows = code('print(1)', outputs=[build.nbformat.v4.new_output('stream', text='1')])
    cells = [prose('# T'), code('import re'), shows, prose('p'), code('import os')]
    title, folded, output, *rest = build.opening(cells)
    assert folded.source.startswith('<details') and 'import re\n\nprint(1)' in folded.source
    assert (title.source, output.source, output.outputs[0].text) == ('# T', '', '1')
    assert [c.source for c in rest] == ['p', 'import os']


def test_targets_of_make_in_the_texts_exist():
    targets = set(re.findall(r'^([\w-]+):', (ROOT/'Makefile').read_text(), re.M))
    for name in ('README.md', 'README_zh.md', 'CONTRIBUTING.md'):
        for t in re.findall(r'(?:`|    )make ([\w-]+)', text_of(ROOT/name)): assert t in targets, (name, t)


def test_the_graph_of_modules_is_that_of_the_code(tmp_path):
    p = run(sys.executable, 'docs/graph.py', tmp_path/'CONTRIBUTING.md')
    assert p.returncode == 0, p.stderr
    assert text_of(tmp_path/'CONTRIBUTING.md') == text_of(ROOT/'CONTRIBUTING.md'), 'run make graph'


def test_a_graph_leaves_out_what_a_longer_way_implies_and_refuses_a_circle(monkeypatch):
    monkeypatch.syspath_prepend(ROOT/'docs')
    import graph
    three = dict(a={'b', 'c'}, b={'c'}, c=set())
    assert graph.mermaid(three) == '```mermaid\ngraph LR\n    a --> b\n    b --> c\n```'
    with pytest.raises(SystemExit): graph.mermaid(dict(a={'b'}, b={'a'}))
    modules = graph.imports()
    drawn = graph.svg(modules)
    assert drawn.count('marker-end') == len(graph.arrows(modules)) and all(f'>{m}</text>' in drawn for m in modules)
