"""Write README.md from nbs/index.ipynb: python nbs/readme.py [TARGET]

Markdown cells as they are, code cells as Python blocks, text outputs below them. The picture of a cell that starts with
`#| picture: FILE` is written to that file, which the text shows where it likes; other pictures are left out.
"""
import base64, json, re, sys
from pathlib import Path

here = Path(__file__).parent


def output(o):
    "One output as plain text."
    text = ''.join(o.get('text', '') or o.get('data', {}).get('text/plain', ''))
    if o.get('name') == 'stderr' or text.startswith(('<Figure', 'training:', 'scoring:')): return ''
    return '\n'.join(l.split('\r')[-1] for l in text.split('\n')).strip('\n')   # a progress bar shows its last state


def picture(cell, path):
    "Write the cell's picture to `path`."
    path.parent.mkdir(parents=True, exist_ok=True)
    data = next(o['data']['image/png'] for o in cell['outputs'] if 'image/png' in o.get('data', {}))
    path.write_bytes(base64.b64decode(data))


def markdown(nb, root):
    "The notebook as Markdown; its picture is written under `root`."
    parts = ['<!-- Made from nbs/index.ipynb by `make readme`: edit there. -->']
    for c in nb['cells']:
        source = ''.join(c['source']).strip('\n')
        if c['cell_type'] == 'markdown': parts.append(re.sub(r'\]\(\.\./', '](', source))
        elif m := re.match(r'#\|\s*picture:\s*(\S+)', source): picture(c, root/m[1])
        elif not re.search(r'^#\s*\|\s*hide', source):
            parts.append(f'```python\n{source}\n```')
            shown = '\n'.join(filter(None, map(output, c['outputs'])))
            if shown: parts.append(f'```text\n{shown}\n```')
    return '\n\n'.join(parts) + '\n'


if __name__ == '__main__':
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else here.parent/'README.md'
    nb = json.loads((here/'index.ipynb').read_text(encoding='utf-8'))
    target.write_text(markdown(nb, target.parent), encoding='utf-8')
