"""The graph of modules in CONTRIBUTING.md, drawn from the imports in the code: python docs/graph.py [TARGET]"""
import ast, re, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STYLE = ('.modules { width: 100%; color: inherit } '
         '.modules path, .modules rect { fill: none; stroke: currentColor; opacity: .6 } '
         '.modules text { fill: currentColor; font: 13px sans-serif; text-anchor: middle }')
TIP = ('<marker id="tip" markerWidth="7" markerHeight="7" refX="5" refY="3.5" orient="auto">'
       '<path d="M0 0L6 3.5L0 7" stroke="currentColor"/></marker>')


def imported(source):
    "Names of the modules that a Python text imports, relative ones with a dot."
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom): yield ('.' if node.level else '') + (node.module or '')
        if isinstance(node, ast.Import): yield from (a.name for a in node.names)


def imports():
    "{module: the modules of ours that it imports}"
    out = {}
    for p in sorted((ROOT/'rerank_nb').glob('[!_]*.py')):
        ours = [n for n in imported(p.read_text(encoding='utf-8')) if n.startswith(('.', 'rerank_nb.'))]
        out[p.stem] = {n.removeprefix('rerank_nb').split('.')[1] for n in ours}
    return out


def reach(graph, a):
    "All that `a` imports, directly or not; a circle is an error."
    out, todo = set(), list(graph[a])
    while todo:
        b = todo.pop()
        if b == a: raise SystemExit(f'{a} imports itself, by way of others')
        if b not in out:
            out.add(b)
            todo += graph[b]
    return out


def arrows(graph):
    "(a, b) where a imports b; an arrow that a longer way implies is left out."
    return [(a, b) for a in graph for b in sorted(graph[a]) if not any(b in reach(graph, c) for c in graph[a])]


def mermaid(graph):
    "The graph as GitHub draws it."
    edges = arrows(graph)
    alone = [m for m in graph if m not in {x for e in edges for x in e}]
    lines = [f'    {a} --> {b}' for a, b in edges] + [f'    {m}' for m in alone]
    return '\n'.join(['```mermaid', 'graph LR', *lines, '```'])


def depths(graph):
    "{module: length of the longest way down from it}"
    out = {}
    def depth(m):
        if m not in out: out[m] = 1 + max((depth(b) for b in graph[m]), default=-1)
        return out[m]
    return {m: depth(m) for m in graph}


def places(graph):
    "{module: (x, y) of its box}: a column for each depth; in a column the order of the boxes that point at them."
    depth, edges, out = depths(graph), arrows(graph), {}
    def mean_above(m):
        above = [out[a][1] for a, b in edges if b == m] or [1e9]
        return sum(above)/len(above)
    top = max(depth.values())
    for d in range(top, -1, -1):
        column = sorted((m for m in sorted(graph) if depth[m] == d), key=mean_above)
        for i, m in enumerate(column): out[m] = 170*(top - d), 44*i + 22*(len(column) < 3)
    return out


def curve(start, end):
    "An arrow from the right of one box to the left of another."
    (x1, y1), (x2, y2) = start, end
    bend = f'C{x1 + 155} {y1 + 15} {x2 - 30} {y2 + 15}'
    return f'<path d="M{x1 + 130} {y1 + 15} {bend} {x2 - 4} {y2 + 15}" marker-end="url(#tip)"/>'


def box(module, x, y):
    name = f'<text x="65" y="20">{module}</text>'
    return f'<g transform="translate({x} {y})"><rect width="130" height="30" rx="5"/>{name}</g>'


def svg(graph):
    "The graph as the site shows it, without a script: a column for each length of the longest way down."
    place = places(graph)
    width, height = max(x for x, _ in place.values()) + 134, max(y for _, y in place.values()) + 40
    head = f'class="modules" viewBox="-2 -2 {width} {height}" role="img" aria-label="Which module imports which"'
    drawn = [curve(place[a], place[b]) for a, b in arrows(graph)] + [box(m, x, y) for m, (x, y) in place.items()]
    return f'<svg {head}><style>{STYLE}</style><defs>{TIP}</defs>{"".join(drawn)}</svg>'


if __name__ == '__main__':
    source = ROOT/'CONTRIBUTING.md'
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else source
    text = source.read_text(encoding='utf-8')
    drawn = mermaid(imports())
    target.write_text(re.sub(r'```mermaid.*?```', lambda _: drawn, text, flags=re.S), encoding='utf-8')
