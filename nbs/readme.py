"""Write README.md from nbs/index.ipynb: python nbs/readme.py [TARGET]

Markdown cells as they are, code cells as Python blocks, text outputs below them. Pictures are left out: GitHub shows the notebook for those.
"""
import json, re, sys
from pathlib import Path

here = Path(__file__).parent


def output(o):
    "One output as plain text."
    text = ''.join(o.get('text', '') or o.get('data', {}).get('text/plain', ''))
    lines = [re.split('\r', l)[-1] for l in text.split('\n')]   # a progress bar shows its last state
    return '' if o.get('name') == 'stderr' or text.startswith(('<Figure', 'training:', 'scoring:')) else '\n'.join(lines).strip('\n')


def markdown(nb):
    "The notebook as Markdown."
    parts = ['<!-- Made from nbs/index.ipynb by `make readme`: edit there. -->']
    for c in nb['cells']:
        source = ''.join(c['source']).strip('\n')
        if c['cell_type'] == 'markdown': parts.append(re.sub(r'\]\(\.\./', '](', source))
        elif not re.search(r'^#\s*\|\s*hide', source):
            parts.append(f'```python\n{source}\n```')
            shown = '\n'.join(filter(None, map(output, c['outputs'])))
            if shown: parts.append(f'```text\n{shown}\n```')
    return '\n\n'.join(parts) + '\n'


if __name__ == '__main__':
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else here.parent/'README.md'
    target.write_text(markdown(json.loads((here/'index.ipynb').read_text(encoding='utf-8'))), encoding='utf-8')
