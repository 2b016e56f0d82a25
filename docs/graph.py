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


def arrows(graph):
    "(a, b) where a imports b; an arrow that a longer way implies is left out."
    return [(a, b) for a in graph for b in sorted(graph[a]) if not any(b in reach(graph, c) for c in graph[a])]


def mermaid(graph):
    "The graph as GitHub draws it."
    edges = arrows(graph)
    alone = [m for m in graph if m not in {x for e in edges for x in e}]
    return '\n'.join(['```mermaid', 'graph LR', *(f'    {a} --> {b}' for a, b in edges), *(f'    {m}' for m in alone), '```'])


def svg(graph):
    "The graph as the site shows it, without a script: a column for each length of the longest way down."
    edges, depth = arrows(graph), {}
    def deep(m): depth[m] = depth[m] if m in depth else 1 + max((deep(b) for b in graph[m]), default=-1); return depth[m]
    columns = {}
    for m in sorted(graph, key=lambda m: (-deep(m), m)): columns.setdefault(depth[m], []).append(m)
    top, place = max(columns), {}
    for d, names in columns.items():
        above = lambda m: [place[a][1] for a, b in edges if b == m] or [1e9]
        for i, m in enumerate(sorted(names, key=lambda m: sum(above(m))/len(above(m)))): place[m] = 170*(top - d), 44*i + 22*(len(names) < 3)
    height = max(y for _, y in place.values()) + 40
    lines = [f'<path d="M{place[a][0] + 130} {place[a][1] + 15} C{place[a][0] + 155} {place[a][1] + 15} {place[b][0] - 30} {place[b][1] + 15} {place[b][0] - 4} {place[b][1] + 15}" marker-end="url(#tip)"/>' for a, b in edges]
    boxes = [f'<g transform="translate({x} {y})"><rect width="130" height="30" rx="5"/><text x="65" y="20">{m}</text></g>' for m, (x, y) in place.items()]
    return (f'<svg class="modules" viewBox="-2 -2 {170*top + 134} {height}" role="img" aria-label="Which module imports which"><style>.modules {{ width: 100%; color: inherit }} .modules path, .modules rect {{ fill: none; stroke: currentColor; opacity: .6 }} '
            '.modules text { fill: currentColor; font: 13px sans-serif; text-anchor: middle }</style><defs><marker id="tip" markerWidth="7" markerHeight="7" refX="5" refY="3.5" orient="auto"><path d="M0 0L6 3.5L0 7" stroke="currentColor"/></marker></defs>'
            + ''.join(lines + boxes) + '</svg>')


if __name__ == '__main__':
    source = ROOT/'CONTRIBUTING.md'
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else source
    target.write_text(re.sub(r'```mermaid.*?```', lambda _: mermaid(imports()), source.read_text(encoding='utf-8'), flags=re.S), encoding='utf-8')
