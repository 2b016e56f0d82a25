"""The graph of modules in CONTRIBUTING.md, drawn from the imports in the code: python docs/graph.py [TARGET]"""
import ast, re, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def imports():
    "{module: the modules of ours that it imports}"
    out = {}
    for p in sorted((ROOT/'rerank_nb').glob('[!_]*.py')):
        tree = ast.parse(p.read_text(encoding='utf-8'))
        names = [('.' if n.level else '') + (n.module or '') for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)] + [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
        out[p.stem] = {n.removeprefix('rerank_nb').split('.')[1] for n in names if n.startswith(('.', 'rerank_nb.'))}
    return out


def reach(graph, a):
    "All that `a` imports, directly or not; a circle is an error."
    out, todo = set(), list(graph[a])
    while todo:
        b = todo.pop()
        if b == a: raise SystemExit(f'{a} imports itself, by way of others')
        if b not in out: out.add(b); todo += graph[b]
    return out


def mermaid(graph):
    "Arrows from a module to those it imports; an arrow that a longer way implies is left out."
    edges = [(a, b) for a in graph for b in sorted(graph[a]) if not any(b in reach(graph, c) for c in graph[a])]
    alone = [m for m in graph if m not in {x for e in edges for x in e}]
    return '\n'.join(['```mermaid', 'graph LR', *(f'    {a} --> {b}' for a, b in edges), *(f'    {m}' for m in alone), '```'])


if __name__ == '__main__':
    source = ROOT/'CONTRIBUTING.md'
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else source
    target.write_text(re.sub(r'```mermaid.*?```', lambda _: mermaid(imports()), source.read_text(encoding='utf-8'), flags=re.S), encoding='utf-8')
