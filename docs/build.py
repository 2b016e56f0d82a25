"""Build the site from the notebooks: python docs/build.py [TARGET]        (make docs)

Pages are the notebooks with their outputs, the README, and an API page a module: signature, table of parameters from
the comments in the code, link to the source. mkdocs with the material theme makes the HTML, search included.
`docs/check.py` walks the result.
"""
import importlib, inspect, os, re, shutil, subprocess, sys, tempfile
from configparser import ConfigParser
from pathlib import Path
import graph, nbformat, yaml
from fastcore.docments import docments
from latex2mathml.converter import convert
from markdown.extensions.toc import slugify
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent
config = ConfigParser(delimiters=['='])
config.read(ROOT/'settings.ini', encoding='utf-8')
config = config['DEFAULT']
SOURCE = f"{config['git_url']}/blob/{config['branch']}/"
BOOK = {
    'Start': ['index', *(f'tutorials/{p.stem}' for p in sorted((ROOT/'nbs/tutorials').glob('[0-9]*.ipynb')))],
    'The library': [p.stem for p in sorted((ROOT/'nbs').glob('[0-9]*.ipynb'))]}
PICTURES = ['docs/before_after.png']   # that a page shows and no cell draws there
PAGES = ['docs/guarantees.md', 'docs/engines.md', 'docs/peers.md', 'docs/rag_retrieval.md', 'docs/one_billion_pairs.md',
         'RELIABILITY.md', 'SECURITY.md', 'benchmarks/README.md', 'CHANGELOG.md', 'CONTRIBUTING.md']
FIRST = {   # of a module, or of a class
    'data': ['PairDataset', 'describe', 'open_pairs'],
    'losses': ['get_loss', 'Loss', 'LOSSES'],
    'metrics': ['ranking_metrics'],
    'model': ['CrossEncoder', 'FAMILIES'],
    'CrossEncoder': ['from_pretrained', 'compute_score', 'rank', 'save_pretrained', 'forward'],
    'engine': ['launch', 'make_accelerator'],
    'rows': ['by_rows', 'shard_rows'],
    'checkpoint': ['find_checkpoint', 'read_checkpoint', 'save_checkpoint', 'load_checkpoint'],
    'parts': ['in_parts'],
    'records': ['Reporter', 'plot_history', 'results_table', 'Collapse'],
    'trainer': ['TrainConfig', 'train'],
    'train_reranker': ['main'],
    'evaluation': ['evaluate', 'load_lists', 'evaluate_scores', 'compare', 'suspects'],
    'scoring': ['score_dataset', 'ScoringConfig', 'with_scores'],
    'mining': ['mine', 'MiningConfig', 'BM25', 'Embedding'],
    'BM25': ['build'],
    'Embedding': ['from_pretrained', 'build'],
    'base': ['make_base', 'cosine_scores'],
    'playground': ['Playground'],
    'candidates': ['Candidates', 'find_files'],
    'calibration': ['calibrate'],
    'convert': ['convert'],
    'export': ['export_model'],
    'runtimes': ['find_runtime', 'EngineNetwork'],
    'tiny': ['tiny_model']}
NOISE = ('training:', 'scoring:', 'Writing', 'Loading')   # how bars begin
CSS = (
    '.md-typeset pre > code { white-space: pre-wrap; } '
    '.md-typeset p:has(math) { overflow-x: auto; overflow-y: hidden; } '
    '.md-typeset table:not([class]) { font-size: .7rem; } '
    '.md-typeset td code { word-break: normal; } '
    '.md-typeset summary { font-size: .7rem; } '
    '@media (max-width: 44em) { '
    '.md-typeset table:not([class]) :is(th, td) { min-width: 0; padding: .5em .6em; } } '
    '.md-typeset td:first-child code { white-space: nowrap; } '
    '@media (min-width: 76em) { .md-grid { max-width: 78rem; } }\n')


def directive(cell, pattern):
    "Match of a `#|` line of a code cell; None where it has no such line."
    return re.search(rf'^#\s*\|\s*{pattern}', cell.source, re.M) if cell.cell_type == 'code' else None


def visible(output):
    "Is it for a reader? Warnings and bars are not."
    text = output.get('data', {}).get('text/plain', '')
    return output.get('name') != 'stderr' and not text.startswith(NOISE)


def tidy(output):
    "An output as a page shows it: the last state of a bar, a word for a form, a picture without its text."
    if output.output_type == 'stream':
        output.text = '\n'.join(l.split('\r')[-1] for l in output.text.split('\n'))
    data = output.get('data', {})
    data.pop('application/vnd.jupyter.widget-view+json', None)
    if data.get('text/plain', '').startswith('VBox('): data['text/plain'] = 'a form: it needs the notebook'
    if 'image/png' in data: data.pop('text/plain', None)
    return output


def shown(cell):
    "The cell as a page shows it, without its directives; None where nothing is left of it."
    if cell.cell_type != 'code': return cell
    if directive(cell, r'default_exp\s+\S') or directive(cell, 'hide'): return None
    if directive(cell, r'echo:\s*false'): cell.source = ''
    cell.source = re.sub(r'^#\s*\|.*\n?', '', cell.source, flags=re.M)
    cell.outputs = [tidy(o) for o in cell.outputs if visible(o)]
    return cell if cell.source or cell.outputs else None


def opening(cells):
    "The cells with imports and set-up, which stand behind the title, folded into a line; what they show stays."
    first_prose = next((i for i, c in enumerate(cells[1:], 1) if c.cell_type == 'markdown'), 1)
    title, setup, rest = cells[0], cells[1:first_prose], cells[first_prose:]
    if not setup: return cells
    code = '\n\n'.join(c.source for c in setup)
    folded = f'<details markdown="1"><summary>Imports and set-up</summary>\n\n```python\n{code}\n```\n\n</details>'
    for c in setup: c.source = ''
    return [title, nbformat.v4.new_markdown_cell(folded), *(c for c in setup if c.outputs), *rest]


def page(name, out):
    "One notebook as Markdown with its pictures; returns its title."
    nb = nbformat.read(ROOT/f'nbs/{name}.ipynb', 4)
    modules = [m[1] for c in nb.cells if (m := directive(c, r'default_exp\s+(\S+)'))]
    nb.cells = opening([c for c in map(shown, nb.cells) if c])
    nb.metadata['language_info'] = {'name': 'python'}
    stem, target = Path(name).name, out/f'{name}.md'
    exporter = MarkdownExporter(exclude_input_prompt=True, exclude_output_prompt=True)
    body, parts = exporter.from_notebook_node(nb, dict(output_files_dir=f'{stem}_files', unique_key=stem))
    target.parent.mkdir(parents=True, exist_ok=True)
    for path, data in parts['outputs'].items():
        picture = target.parent/path
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(data)
    without_empty_blocks = re.sub(r'```python\s*```\n*', '', body)
    body = links(mathematics(without_empty_blocks), f'nbs/{name}', name)
    if modules: body = under_title(body, api_link(modules[-1], name))
    target.write_text(body, encoding='utf-8')
    return re.search(r'^# (.*)', body, re.M)[1]


def api_link(module, name):
    "The line of a notebook's page that leads to the API of its module and to its source."
    up = '../' * name.count('/')
    return f'[API of rerank_nb.{module}]({up}api/{module}.md) · [notebook]({SOURCE}nbs/{name}.ipynb)'


def under_title(body, line):
    return re.sub(r'^(# .*\n)', rf'\1\n{line}\n', body, count=1, flags=re.M)


def mathematics(body):
    "$...$ as MathML, which browsers draw without a script; in a span: a line that begins with it stays a paragraph."
    pieces = re.split(r'(```.*?```|`[^`\n]+`)', body, flags=re.S)   # every second one is code
    formula = r'(?<![\\$\w])\$(?=\S)([^$\n]+?)(?<=\S)\$(?!\w)'
    def mathml(m): return f'<span>{convert(m[1])}</span>'
    return ''.join(t if i % 2 else re.sub(formula, mathml, t) for i, t in enumerate(pieces))


def site_name(path):
    "File of a page of PAGES on the site."
    p = Path(path)
    return f'{(p.parent.name if p.stem == "README" else p.stem).lower()}.md'


def links(body, source, page):
    """Links of a text that stands at `source` in the project and at `page` on the site.

    Notebooks and the pages of PAGES become links between pages, other files of the project lead to its source.
    """
    at = {(ROOT/'nbs'/n).with_suffix('.ipynb'): f'{n}.md' for names in BOOK.values() for n in names}
    at |= {ROOT/p: site_name(p) for p in PAGES} | {ROOT/p: Path(p).name for p in PICTURES}
    def one(m):
        text, url = m[1], m[2]
        if re.match(r'(https?:|data:)', url) or '_files/' in url: return m[0]
        file, _, heading = url.partition('#')
        anchor = heading and '#' + slugify(heading, '-')   # JupyterLab keeps case and signs of a heading
        if not file: return f'{text}({anchor})'
        path = (ROOT/source).parent.joinpath(file).resolve()
        if path in at: return f'{text}({os.path.relpath(at[path], Path(page).parent)}{anchor})'
        if path.exists() and path.is_relative_to(ROOT): return f'{text}({SOURCE}{path.relative_to(ROOT)})'
        raise SystemExit(f'{source}: a link to nowhere: {url}')
    hidden = re.sub(r'```.*?```', lambda m: m[0].replace('](', ']\0('), body, flags=re.S)
    return re.sub(r'(!?\[[^\]\n]*\])\(([^)\s]+)\)', one, hidden).replace(']\0(', '](')


def row(name, d, help):
    "A line of the table of parameters, from what `docments` found."
    returns = name == 'return'
    name = '*returns*' if returns else f'`{name}`'
    kind = '' if d.anno is inspect._empty else f"`{getattr(d.anno, '__name__', str(d.anno))}`"
    default = '' if d.default is inspect._empty or returns else f'`{re.sub("<.*>", "...", repr(d.default))}`'
    meaning = (d.docment or help or '').replace('|', r'\|').replace('\n', ' ')
    return f'| {name} | {kind} | {default} | {meaning} |'


def parameters(obj):
    "The table of what a function or class takes and returns, as lines."
    fields = getattr(obj, '__dataclass_fields__', {}) if inspect.isclass(obj) else {}
    help = {k: f.metadata.get('help') for k, f in fields.items()}
    found = {k: d for k, d in docments(obj, full=True, returns=True).items() if k not in ('self', 'cls')}
    rows = [row(k, d, help.get(k)) for k, d in found.items() if k != 'return' or d.docment]
    return ['| | type | default | |', '|---|---|---|---|', *rows] if rows else []


def describe(obj, name, level):
    "Heading, signature, meaning and parameters of a function or class."
    obj = inspect.unwrap(obj)
    file, line = Path(inspect.getsourcefile(obj)).relative_to(ROOT), inspect.getsourcelines(obj)[1]
    try: signature = re.sub(r'<[^>]*>', '...', str(inspect.signature(obj)))
    except ValueError: signature = '(...)'
    call = f'```python\n{name.split(".")[-1]}{signature}\n```'
    title, meaning = name.replace('_', r'\_'), inspect.cleandoc(obj.__doc__ or '')
    out = [f'{"#" * level} {title}', f'[source]({SOURCE}{file}#L{line})', call, meaning]
    plain_class = inspect.isclass(obj) and '__init__' not in vars(obj) and not hasattr(obj, '__dataclass_fields__')
    table = [] if plain_class else parameters(obj)
    return out + ['\n'.join(table)] if table else out


def constant(name, value):
    "Heading and value of a constant, functions in it by their names."
    text = re.sub('<function ([^ ]+) [^>]*>', r'\1', repr(value))
    if len(text) > 600: text = f'{text[:600]} ...'
    return [f'## {name}', f'```python\n{name} = {text}\n```']


def methods(cls):
    "(name, function) of what is called on an object, also what `patch` put into the class."
    for name in users_first(vars(cls), cls.__name__):
        f = vars(cls)[name]
        f = getattr(f, '__func__', getattr(f, 'fget', f))   # of a classmethod, staticmethod or property
        if inspect.isfunction(f) and (name == '__call__' or not name.startswith('_')): yield name, f


def is_constant(obj): return not (inspect.isfunction(inspect.unwrap(obj)) or inspect.isclass(obj))


def users_first(names, of):
    "Names of a module or class: what people call stands before what it is made of."
    first = FIRST.get(of, [])
    return first + [n for n in names if n not in first]


def api(module, out):
    "The API page of a module."
    m = importlib.import_module(f'rerank_nb.{module}')
    parts = [f'# rerank_nb.{module}', m.__doc__ or '']
    for name in users_first(sorted(m.__all__, key=lambda n: is_constant(getattr(m, n))), module):   # constants last
        obj = getattr(m, name)
        parts += constant(name, obj) if is_constant(obj) else describe(obj, name, 2)
        if not inspect.isclass(obj): continue
        for k, f in methods(obj): parts += describe(f, f'{name}.{k}', 3)
    (out/'api').mkdir(exist_ok=True)
    (out/f'api/{module}.md').write_text('\n\n'.join(parts) + '\n', encoding='utf-8')


def write_page(source, out):
    "A Markdown file of the project as a page, with its graph drawn."
    text = (ROOT/source).read_text(encoding='utf-8')
    text = re.sub(r'```mermaid.*?```', lambda _: graph.svg(graph.imports()), text, flags=re.S)
    (out/site_name(source)).write_text(links(text, source, site_name(source)), encoding='utf-8')


def write_sources(out):
    "All pages as Markdown; returns the site's table of contents."
    book = [{part: [{page(n, out): f'{n}.md'} for n in names]} for part, names in BOOK.items()]
    modules = sorted(p.stem for p in (ROOT/'rerank_nb').glob('[!_]*.py'))
    for m in modules: api(m, out)
    for source in PAGES: write_page(source, out)
    for picture in PICTURES: shutil.copy(ROOT/picture, out)
    (out/'extra.css').write_text(CSS)
    expect = {'What to expect': [site_name(p) for p in PAGES if p.startswith('docs/')]}
    reference = {'API': [{f'rerank_nb.{m}': f'api/{m}.md'} for m in modules]}
    project = {'Project': [site_name(p) for p in PAGES if not p.startswith('docs/')]}
    return [book[0], expect, *book[1:], reference, project]


def palette(scheme, icon, other):
    "Colours for readers who prefer `scheme`, with a button that leads to the other."
    media = f"(prefers-color-scheme: {'dark' if scheme == 'slate' else 'light'})"
    toggle = dict(icon=f'material/weather-{icon}', name=other)
    return dict(media=media, scheme=scheme, primary='indigo', toggle=toggle)


def settings(nav, sources, target):
    "What mkdocs is told."
    features = ['navigation.top', 'navigation.tracking', 'content.code.copy', 'toc.follow']
    palettes = [palette('default', 'night', 'dark'), palette('slate', 'sunny', 'light')]
    extensions = ['tables', 'fenced_code', 'md_in_html', 'pymdownx.highlight', 'pymdownx.superfences',
                  {'toc': dict(permalink=True, toc_depth=3)}]
    return dict(
        site_name=config['lib_name'], site_description=config['description'], repo_url=config['git_url'],
        docs_dir=str(sources), site_dir=str(target), nav=nav, plugins=['search'], use_directory_urls=False,
        theme=dict(name='material', font=False, features=features, palette=palettes),
        markdown_extensions=extensions, extra_css=['extra.css'], validation=dict(links=dict(anchors='info')))


def main(target=ROOT/'_docs'):
    mkdocs = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--quiet', '-f']
    with tempfile.TemporaryDirectory() as work:
        sources, told = Path(work)/'src', Path(work)/'mkdocs.yml'
        text = yaml.safe_dump(settings(write_sources(sources), sources, target), allow_unicode=True, sort_keys=False)
        told.write_text(text, encoding='utf-8')
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run([*mkdocs, told], check=True, env={**os.environ, 'NO_MKDOCS_2_WARNING': '1'})
    print(f'{target}: {len(list(Path(target).rglob("*.html")))} pages')


if __name__ == '__main__': main(*map(Path, sys.argv[1:]))
