"""Walk the built site: every link inside it leads somewhere, every picture is there, every page has text.

    python docs/check.py [SITE]
"""
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse
from bs4 import BeautifulSoup

LINKS = (('a', 'href'), ('img', 'src'), ('script', 'src'), ('link', 'href'))


def anchors(soup):
    "What a #fragment of the page can name."
    named = soup.find_all('a', attrs={'name': True})
    return {t['id'] for t in soup.find_all(id=True)} | {t['name'] for t in named}


def target(url, page, site):
    "The file that a link of `page` leads to."
    if not url.path: return page
    inside = site/url.path.lstrip('/') if url.path.startswith('/') else page.parent/unquote(url.path)
    path = inside.resolve()
    return path/'index.html' if path.is_dir() else path


def problems(site):
    "What is wrong, a line each."
    pages = {p: BeautifulSoup(p.read_text(encoding='utf-8'), 'html.parser') for p in sorted(site.rglob('*.html'))}
    ids = {p: anchors(soup) for p, soup in pages.items()}
    out = [] if pages else [f'{site}: no pages']
    for p, soup in pages.items():
        if p.name == '404.html': continue   # it has no text, and its links are for the server's root
        name, text = p.relative_to(site), soup.find('article')
        if text is None or len(text.get_text(strip=True)) < 200: out.append(f'{name}: hardly any text')
        for tag, key in LINKS:
            for t in soup.find_all(tag, attrs={key: True}):
                url = urlparse(t[key])
                if url.scheme or url.netloc or not (url.path or url.fragment): continue
                to, anchor = target(url, p, site), unquote(url.fragment)
                if not to.is_file(): out.append(f'{name}: <{tag} {key}="{t[key]}"> leads nowhere')
                elif anchor and not anchor.startswith('__') and to in ids and anchor not in ids[to]:
                    out.append(f'{name}: no anchor {t[key]}')
    return out


if __name__ == '__main__':
    found = problems(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent/'_docs').resolve())
    print('\n'.join(found) or 'every link leads somewhere')
    sys.exit(bool(found))
