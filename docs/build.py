"""Build the site from the notebooks: python docs/build.py [TARGET]        (make docs)

Pages are the notebooks with their outputs, the README, and an API page a module: signature, table of parameters from the comments in the code, link to the source.
mkdocs with the material theme makes the HTML, search included. `docs/check.py` walks the result.
"""
import importlib, inspect, re, shutil, subprocess, sys, tempfile
from configparser import ConfigParser
from pathlib import Path
import graph, nbformat, yaml
from fastcore.docments import docments
from latex2mathml.converter import convert
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent
config = ConfigParser(delimiters=['=']); config.read(ROOT/'settings.ini', encoding='utf-8'); config = config['DEFAULT']
SOURCE = f"{config['git_url']}/blob/{config['branch']}/"
BOOK = {'Start': ['index', 'tutorials/01_quickstart', 'tutorials/02_launch', 'tutorials/03_speed', 'tutorials/04_errors', 'tutorials/05_distill'],
        'The library': ['00_files', '00_data', '01_losses', '02_metrics', '03_model', '03a_engine', '03b_checkpoint', '04_trainer', '05_train_reranker', '06_evaluate', '07_mine', '08_score', '09_base', '10_tiny', '11_playground']}


def page(name, out):
    "One notebook as Markdown with its pictures; returns its title."
    nb = nbformat.read(ROOT/f'nbs/{name}.ipynb', 4)
    cells, module = [], None
    for c in nb.cells:
        if c.cell_type == 'code':
            if m := re.search(r'^#\s*\|\s*default_exp\s+(\S+)', c.source, re.M): module = m[1]; continue
            if re.search(r'^#\s*\|\s*hide', c.source, re.M): continue
            if re.search(r'^#\s*\|\s*echo:\s*false', c.source, re.M): c.source = ''
            c.source = re.sub(r'^#\s*\|.*\n?', '', c.source, flags=re.M)
            for o in c.outputs:   # a bar shows its last state, a widget nothing
                if o.output_type == 'stream': o.text = '\n'.join(l.split('\r')[-1] for l in o.text.split('\n'))
                data = o.get('data', {})
                data.pop('application/vnd.jupyter.widget-view+json', None)
                if data.get('text/plain', '').startswith('VBox('): data['text/plain'] = 'a form: it needs the notebook'
            c.outputs = [o for o in c.outputs if not (o.output_type == 'stream' and o.name == 'stderr') and not o.get('data', {}).get('text/plain', '').startswith(('training:', 'scoring:', 'Writing', 'Loading'))]
            for o in c.outputs:
                if 'data' in o and 'image/png' in o.data: o.data.pop('text/plain', None)
            if not c.source and not c.outputs: continue
        cells.append(c)
    nb.cells, nb.metadata['language_info'] = cells, {'name': 'python'}
    body, parts = MarkdownExporter(exclude_input_prompt=True, exclude_output_prompt=True).from_notebook_node(nb, resources=dict(output_files_dir=f'{Path(name).name}_files', unique_key=Path(name).name))
    target = out/f'{name}.md'
    target.parent.mkdir(parents=True, exist_ok=True)
    for path, data in parts['outputs'].items():
        p = target.parent/path
        p.parent.mkdir(parents=True, exist_ok=True); p.write_bytes(data)
    body = links(mathematics(re.sub(r'```python\s*```\n*', '', body)), name)
    if module: body = re.sub(r'^(# .*\n)', rf'\1\n[API of rerank_nb.{module}]({"../" * name.count("/")}api/{module}.md) · [notebook]({SOURCE}nbs/{name}.ipynb)\n', body, count=1, flags=re.M)
    target.write_text(body, encoding='utf-8')
    return re.search(r'^# (.*)', body, re.M)[1]


def mathematics(body):
    "$...$ as MathML, which browsers draw without a script; in a span, so that a line which begins with one stays a paragraph."
    outside = re.split(r'(```.*?```|`[^`\n]+`)', body, flags=re.S)
    return ''.join(t if i % 2 else re.sub(r'(?<![\\$\w])\$(?=\S)([^$\n]+?)(?<=\S)\$(?!\w)', lambda m: f'<span>{convert(m[1])}</span>', t) for i, t in enumerate(outside))


def links(body, name):
    "Links between notebooks become links between pages; links to files of the project go to its source."
    here = (ROOT/'nbs'/name).parent
    def one(m):
        text, url = m[1], m[2]
        if re.match(r'(https?:|#|data:)', url) or '_files/' in url: return m[0]
        path = (here/url.split('#')[0]).resolve()
        if path.suffix == '.ipynb' and path.is_relative_to(ROOT/'nbs'): return f"{text}({Path(url.removeprefix('../nbs/')).with_suffix('.md')})"
        if path.exists() and path.is_relative_to(ROOT): return f'{text}({SOURCE}{path.relative_to(ROOT)})'
        raise SystemExit(f'{name}: a link to nowhere: {url}')
    return re.sub(r'(!?\[[^\]\n]*\])\(([^)\s]+)\)', one, re.sub(r'```.*?```', lambda m: m[0].replace('](', ']\0('), body, flags=re.S)).replace(']\0(', '](')


def describe(obj, name, level):
    "Heading, signature, meaning and parameters of a function or class."
    obj = inspect.unwrap(obj)
    file, line = Path(inspect.getsourcefile(obj)).relative_to(ROOT), inspect.getsourcelines(obj)[1]
    try: signature = re.sub(r'<[^>]*>', '...', str(inspect.signature(obj)))
    except ValueError: signature = '(...)'
    out = [f'{"#" * level} {name}', f'[source]({SOURCE}{file}#L{line})', f'```python\n{name.split(".")[-1]}{signature}\n```', inspect.getdoc(obj) or '']
    if inspect.isclass(obj) and '__init__' not in vars(obj) and not hasattr(obj, '__dataclass_fields__'): return out
    rows, help = [], {k: f.metadata.get('help') for k, f in getattr(obj, '__dataclass_fields__', {}).items()} if inspect.isclass(obj) else {}
    for k, d in docments(obj, full=True, returns=True).items():
        if k in ('self', 'cls') or not d.docment and k == 'return': continue
        kind = '' if d.anno is inspect._empty else getattr(d.anno, '__name__', str(d.anno))
        default = '' if d.default is inspect._empty or k == 'return' else f'`{re.sub("<.*>", "...", repr(d.default))}`'
        rows.append(f"| {'*returns*' if k == 'return' else f'`{k}`'} | {f'`{kind}`' if kind else ''} | {default} | {(d.docment or help.get(k) or '').replace('|', chr(92) + '|').replace(chr(10), ' ')} |")
    if rows: out.append('\n'.join(['| | type | default | |', '|---|---|---|---|', *rows]))
    return out


def api(module, out):
    "The API page of a module."
    m = importlib.import_module(f'rerank_nb.{module}')
    parts = [f'# rerank_nb.{module}', m.__doc__ or '']
    for name in m.__all__:
        obj = getattr(m, name)
        if not (inspect.isfunction(obj) or inspect.isclass(obj)):
            parts += [f'## {name}', f'```python\n{name} = {re.sub("<function ([^ ]+) [^>]*>", chr(92) + "1", repr(obj))[:600]}\n```']; continue
        if '.' in obj.__qualname__: continue   # a method that was patched in stands with its class
        parts += describe(obj, name, 2)
        if inspect.isclass(obj):
            for k, v in vars(obj).items():
                f = v.__func__ if isinstance(v, (classmethod, staticmethod)) else v
                if not k.startswith('_') and inspect.isfunction(f) and inspect.getdoc(f): parts += describe(f, f'{name}.{k}', 3)
    (out/'api').mkdir(exist_ok=True)
    (out/f'api/{module}.md').write_text('\n\n'.join(parts) + '\n', encoding='utf-8')


def main(target=ROOT/'_docs'):
    with tempfile.TemporaryDirectory() as work:
        out = Path(work)/'src'
        nav = [{part: [{page(n, out): f'{n}.md'} for n in names]} for part, names in BOOK.items()]
        modules = sorted(p.stem for p in (ROOT/'rerank_nb').glob('[!_]*.py'))
        for m in modules: api(m, out)
        for name, title in (('CONTRIBUTING', 'Contributing'), ('CHANGELOG', 'Changelog'), ('benchmarks/README', 'Benchmarks')):
            p = out/f'{Path(name).parent.name or name.lower()}.md'
            text = re.sub(r'```mermaid.*?```', lambda _: graph.svg(graph.imports()), (ROOT/f'{name}.md').read_text(encoding='utf-8'), flags=re.S)
            p.write_text(re.sub(r'\]\((?!https?:)([^)]+)\)', lambda m: f']({SOURCE}{(ROOT/name).parent.joinpath(m[1]).resolve().relative_to(ROOT)})', text), encoding='utf-8')
        nav += [{'API': [{f'rerank_nb.{m}': f'api/{m}.md'} for m in modules]}, {'Project': [{'Benchmarks': 'benchmarks.md'}, {'Changelog': 'changelog.md'}, {'Contributing': 'contributing.md'}]}]
        settings = dict(site_name=config['lib_name'], site_description=config['description'], repo_url=config['git_url'], docs_dir=str(out), site_dir=str(target), nav=nav, plugins=['search'], use_directory_urls=False,
                        theme=dict(name='material', font=False, features=['navigation.top', 'navigation.tracking', 'content.code.copy', 'toc.follow'],
                                   palette=[dict(media='(prefers-color-scheme: light)', scheme='default', primary='indigo', toggle=dict(icon='material/weather-night', name='dark')),
                                            dict(media='(prefers-color-scheme: dark)', scheme='slate', primary='indigo', toggle=dict(icon='material/weather-sunny', name='light'))]),
                        markdown_extensions=['tables', 'fenced_code', 'md_in_html', 'pymdownx.highlight', 'pymdownx.superfences', {'toc': dict(permalink=True, toc_depth=3)}],
                        extra_css=['extra.css'], validation=dict(links=dict(anchors='info')))
        (out/'extra.css').write_text('.md-typeset pre > code { white-space: pre-wrap; } .md-typeset p:has(math) { overflow-x: auto; overflow-y: hidden; } .md-typeset table:not([class]) { font-size: .7rem; } @media (max-width: 44em) { .md-typeset table:not([class]) :is(th, td) { min-width: 0; padding: .5em .6em; } .md-typeset td:first-child code { white-space: nowrap; } } @media (min-width: 76em) { .md-grid { max-width: 78rem; } }\n')
        (Path(work)/'mkdocs.yml').write_text(yaml.safe_dump(settings, allow_unicode=True, sort_keys=False), encoding='utf-8')
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run([sys.executable, '-m', 'mkdocs', 'build', '--strict', '--quiet', '-f', f'{work}/mkdocs.yml'], check=True, env={**__import__('os').environ, 'NO_MKDOCS_2_WARNING': '1'})
    print(f'{target}: {len(list(Path(target).rglob("*.html")))} pages')


if __name__ == '__main__': main(*map(Path, sys.argv[1:]))
