"""Walk the built site: every link inside it leads somewhere, every picture is there, every page has text.

    python docs/check.py [SITE]
"""
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse
from bs4 import BeautifulSoup


def problems(site):
    "What is wrong, a line each."
    pages = {p: BeautifulSoup(p.read_text(encoding='utf-8'), 'html.parser') for p in sorted(site.rglob('*.html'))}
    ids = {p: {t['id'] for t in s.find_all(id=True)} | {t['name'] for t in s.find_all('a', attrs={'name': True})} for p, s in pages.items()}
    out = [] if pages else [f'{site}: no pages']
    for p, soup in pages.items():
        name = p.relative_to(site)
        text = soup.find('article')
        if p.name != '404.html' and (text is None or len(text.get_text(strip=True)) < 200): out.append(f'{name}: hardly any text')
        for tag, key in (('a', 'href'), ('img', 'src'), ('script', 'src'), ('link', 'href')):
            for t in soup.find_all(tag, attrs={key: True}):
                url = urlparse(t[key])
                if url.scheme or url.netloc or not (url.path or url.fragment): continue
                to = p if not url.path else (site/url.path.lstrip('/') if url.path.startswith('/') else p.parent/unquote(url.path)).resolve()
                if to.is_dir(): to = to/'index.html'
                if p.name == '404.html': continue   # its links are for the server's root
                if not to.is_file(): out.append(f'{name}: <{tag} {key}="{t[key]}"> leads nowhere')
                elif url.fragment and to in ids and unquote(url.fragment) not in ids[to] and not url.fragment.startswith('__'): out.append(f'{name}: no anchor {t[key]}')
    return out


if __name__ == '__main__':
    found = problems(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent/'_docs').resolve())
    print('\n'.join(found) or 'every link leads somewhere')
    sys.exit(bool(found))
