"""A set of labelled pairs that anyone with Debian's package lists can make: man pages and, if asked for, package
descriptions, handbooks and FAQs, English and Chinese.

    python benchmarks/debian_docs.py [--output_dir output/debian_docs] [--everything]

The one-line description of a man page is the query, the beginning of its DESCRIPTION the document that answers it; of a
package its synopsis and its long description; in a book it is a heading and the text under it. Queries without an
answer in their own words are hard for word matching, and one set of each kind asks in Chinese for the English text.
Negatives: half of them the best BM25 hits among the others, half at random; so BM25 meets the documents that it
confuses most, and the cosine does not meet its own. Train and dev share no man page, package family or chapter, in any
language, and no text at all. `apt-get download` fetches the packages, nothing is installed; the texts keep their
packages' licences.
"""
import argparse, gzip, hashlib, json, random, re, subprocess
from pathlib import Path
from bs4 import BeautifulSoup
from rerank_nb.mining import BM25

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = '''manpages manpages-dev manpages-zh coreutils util-linux git-man findutils grep sed tar gzip bash procps
psmisc passwd login apt dpkg dpkg-dev iproute2 mount adduser sudo tmux vim-common rsync curl wget'''.split()
BOOKS = {   # packages, folder of the English text, of the Chinese one
    'handbook': (['debian-handbook'], 'doc/debian-handbook/html/en-US', 'doc/debian-handbook/html/zh-CN'),
    'faq': (['debian-faq', 'debian-faq-zh-cn'], 'doc/debian/FAQ', 'doc/debian/FAQ/zh-cn'),
    'reference': (['debian-reference-en', 'debian-reference-zh-cn'], 'debian-reference', 'debian-reference')}
CHINESE = '[\u4e00-\u9fff]'
KEEP_ARGUMENTS = set('B I R BR RB IR RI BI IB SM SB Nm Fl Ar Xr Pa Em Sy Cm Dq Sq Li Op Nd Ev Va Fn'.split())
TITLES = {   # a translated title often has the original behind it
    'name': '^NAME|名称|名字|命令名|[(（]NAME',
    'description': 'DESCRIPTION|^描述|^说明|^描 述'}
SPECIAL = {'em': '-', 'en': '-', 'aq': "'", 'cq': "'", 'oq': "'", 'lq': '"', 'rq': '"', 'dq': '"', 'bu': '',
           'co': '(c)', 'ha': '^', 'ti': '~', 'ga': '`', 'rs': '\\'}
ESCAPES = '|'.join([
    r'\\f(\[[^\]]*\]|\(..|.)',                  # fonts
    r'\\s[-+]?\d+', r'\\m\[[^\]]*\]',           # sizes, colours
    r'\\[&|^/,:%c]',                            # spaces of no width
    r'\\\*(\(..|\[[^\]]*\]|.)',                 # strings
    r"\\[hvw]'[^']*'", r'\\k.', r'\\u', r'\\d'])   # moves
PARAGRAPH = r'^Package: (\S+)\n(?:Description-md5: .*\n)?Description-\w+: (.*)\n((?: .*\n)+)'
FAMILY = r'(?:lib)?[a-z0-9]*?(?=\d|\W|$)|.*'    # libfoo2 and foo-dev belong together
NO_PACKAGE = 'apt-get download fetched nothing: this needs Debian or Ubuntu, and its package lists (apt-get update)'


def plain(text):
    "roff without its escapes."
    text = re.sub(ESCAPES, '', re.sub(r'\\".*', '', text))
    text = re.sub(r'\\\((..)|\\\[(\w\w)\]', lambda m: SPECIAL.get(m[1] or m[2], ''), text)
    for escape, char in (('\\-', '-'), ('\\e', '\\'), ('\\ ', ' '), ('\\~', ' '), ('\\', '')):
        text = text.replace(escape, char)
    return text


def section(title, known):
    "Which of TITLES a heading is; None for another one, or for one that is `known` already."
    title = plain(title).strip(' "').upper()
    return next((k for k, v in TITLES.items() if k not in known and re.search(v, title)), None)


def sections(source):
    "The NAME and DESCRIPTION of a page as running text."
    out, here, table = {}, None, False
    def keep(text):
        if here and not table: out.setdefault(here, []).append(plain(text))
    for line in source.splitlines():
        m = re.match(r"[.']\s*(\w+)\s*(.*)", line)
        macro, rest = m.groups() if m else (None, '')
        if macro in ('SH', 'Sh'): here = section(rest, out)
        elif macro in ('TS', 'EQ', 'nf'): table = True
        elif macro in ('TE', 'EN', 'fi'): table = False
        elif macro in ('SS', 'Ss') and here == 'description' and out.get(here): here = None
        elif macro is None: keep(line)
        elif macro in KEEP_ARGUMENTS: keep(('- ' if macro == 'Nd' else '') + rest.replace('"', ''))
    return {k: one_line(' '.join(v)) for k, v in out.items()}


def one_line(text):
    "Running text, without the spaces that a line's end leaves between Chinese characters."
    text = re.sub(r'\s+', ' ', text)
    return re.sub(r'(?<=[\u3000-\u9fff，。]) (?=[\u3000-\u9fff，。])', '', text).strip()


def shorten(text, limit):
    "The first sentences, about `limit` characters."
    if len(text) <= limit: return text
    cut = max(text.rfind(s, limit // 2, limit) for s in '.。;；')
    return text[:cut + 1] if cut > 0 else text[:limit]


def is_chinese(text): return bool(re.search(CHINESE, text))


def usable(query, doc):
    "(query, the document's beginning), or None where one is too short or the query too long."
    query, doc = query.strip().rstrip('.'), shorten(doc, 150 if is_chinese(doc) else 300)
    if is_chinese(query): fits = len(doc) >= 30 and 6 <= len(query) <= 40
    else: fits = len(doc) >= 80 and 3 <= len(query.split()) <= 16
    return (query, doc) if fits else None


def pages(folder):
    "{(name, section): (query, document)} of a folder of man pages."
    out = {}
    for p in sorted(folder.glob('man[1-8]/*.gz')):
        try: text = gzip.decompress(p.read_bytes()).decode('utf-8')
        except (UnicodeDecodeError, OSError): continue
        got = sections(text)
        title = re.split(r' -+ | — ', got.get('name', ''), maxsplit=1)
        found = usable(title[1], got.get('description', '')) if len(title) == 2 else None
        name, number = p.name.removesuffix('.gz').rsplit('.', 1)
        if found: out[name, number[:1]] = found
    return out


def headings(html):
    "[[heading, the text under it]] of a page of a book, without its tables, lists and sidebars."
    heads = []
    for tag in BeautifulSoup(html, 'html.parser').select('h1, h2, h3, h4, p, div.para'):
        text = one_line(tag.get_text())
        if tag.name[0] == 'h': heads.append([re.sub(r'^[\dA-Z]+(\.\d+)*\.?\s+|¶$', '', text), ''])
        elif heads and not tag.find_parent(['table', 'li']) and not tag.find_parent(class_='sidebar'):
            heads[-1][1] += ' ' + text
    return heads


def chapters(share, chinese):
    "{(chapter, headings in it, number of the heading): (query, document)} of the books in one language."
    out = {}
    for book, (_, *folders) in BOOKS.items():
        language = '.zh-cn' if chinese else '.en'
        suffix = '.html' if book == 'handbook' else language + '.html'
        for p in sorted((share/folders[chinese]).glob('*' + suffix)):
            heads = headings(p.read_text(encoding='utf-8'))
            chapter = f'{book}/{p.name.removesuffix(suffix)}'
            for i, (query, doc) in enumerate(heads):
                if found := usable(query, doc.strip()): out[chapter, len(heads), i] = found
    return out


def descriptions_in(text):
    "{(family, package): (query, document)} of a file of apt."
    out = {}
    for name, synopsis, long in re.findall(PARAGRAPH, text, re.M):
        found = usable(synopsis, one_line(long.split('\n .\n')[0]))
        if found: out[re.match(FAMILY, name)[0], name] = found
    return out


def descriptions(folder):
    "The same in English and in Chinese, of the packages whose description is translated."
    lists, out = folder.resolve()/'lists', {'en': {}, 'zh%5fCN': {}}
    (lists/'partial').mkdir(parents=True, exist_ok=True)
    if not list(lists.glob('*Translation-zh*')):
        options = [f'Dir::State::Lists={lists}', 'Acquire::Languages=en,zh_CN']
        words = [word for o in options for word in ('-o', o)]
        subprocess.run(['apt-get', 'update', '-q', *words], capture_output=True)
    for language, found in out.items():
        for p in sorted(lists.glob(f'*_main_i18n_Translation-{language}*')):
            p = subprocess.run(['/usr/lib/apt/apt-helper', 'cat-file', p], capture_output=True, check=True)
            found.update(descriptions_in(p.stdout.decode()))
    en, zh = out.values()
    translated = {name for _, name in zh}
    return {key: v for key, v in en.items() if key[1] in translated}, zh


def fetch(folder, packages):
    "Download and unpack the packages; returns their /usr/share."
    folder = folder.resolve()
    tree = folder/'tree'
    if not tree.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in packages: subprocess.run(['apt-get', 'download', '-q', name], cwd=folder, capture_output=True)
        debs = sorted(folder.glob('*.deb'))
        if not debs: raise SystemExit(NO_PACKAGE)
        for d in debs: subprocess.run(['dpkg-deb', '-x', d, tree], check=True)
    return tree/'usr/share'


def gather(out, everything):
    "{set: {key: (query, document)}}, and of each set the queries in the documents' own language, for word matching."
    books = [p for names, *_ in BOOKS.values() for p in names]
    share = fetch(out, PACKAGES + (books if everything else []))
    sources = {'': (pages(share/'man'), pages(share/'man/zh_CN'))}
    if everything: sources |= {'book_': (chapters(share, 0), chapters(share, 1)), 'package_': descriptions(out)}
    sets, asked = {}, {}
    for prefix, (en, zh) in sources.items():
        zh = {k: v for k, v in zh.items() if all(map(is_chinese, v))}
        across = {k: (zh[k][0], en[k][1]) for k in zh if k in en}
        for name, rows in (('en', en), ('zh', zh), ('zhen', across)):
            sets[prefix + name] = {k: rows[k] for k in sorted(rows)}
            asked[prefix + name] = {k: (en if name == 'zhen' else rows)[k][0] for k in rows}
    return sets, asked


def is_dev(key):
    "By page name or chapter, so that a translation stays with its page."
    return hashlib.md5(key[0].encode()).digest()[0] < 100


def once(rows, dev, taken):
    "Keys of one part, each text once (many pages share a line) and none of the texts in `taken`."
    keys, seen = [], set(taken)
    for k, texts in rows.items():
        if is_dev(k) == dev and not seen & set(texts):
            keys.append(k)
            seen |= set(texts)
    return keys


def lines_of(rows, keys, asked, want, negatives, rng):
    "`want` lines of a data file: of the negatives half the best hits of BM25 for `asked`, the others at random."
    docs = [rows[k][1] for k in keys]
    find, lines = BM25().build(docs), []
    for i in sorted(rng.sample(range(len(keys)), min(want, len(keys)))):
        hard = [j for j in find(asked[keys[i]], 30) if j != i][:negatives // 2]
        others = [j for j in range(len(keys)) if j != i and j not in hard]
        easy = rng.sample(others, negatives - len(hard))
        line = dict(query=rows[keys[i]][0], pos=[docs[i]], neg=[docs[j] for j in hard + easy])
        lines.append(json.dumps(line, ensure_ascii=False))
    return lines


def write_lines(path, lines): path.write_text('\n'.join(lines) + '\n', encoding='utf-8')


def build(out, everything=False, train_queries=60, dev_queries=60, train_negatives=5, dev_negatives=9, seed=0):
    """Write train.jsonl and dev_en, dev_zh, dev_zhen, with everything also dev_book_en, dev_package_en and so on;
    returns how many queries each has."""
    sets, asked = gather(out, everything)
    of_dev = {t for rows in sets.values() for k, texts in rows.items() if is_dev(k) for t in texts}
    counts, training = {}, []
    for name, rows in sets.items():
        for dev, want, negatives in ((False, train_queries, train_negatives), (True, dev_queries, dev_negatives)):
            keys = once(rows, dev, () if dev else of_dev)
            lines = lines_of(rows, keys, asked[name], want, negatives, random.Random(f'{seed}{name}{dev}'))
            counts[f"{name} {'dev' if dev else 'train'}"] = f'{len(lines)} of {len(keys)}'
            if dev: write_lines(out/f'dev_{name}.jsonl', lines)
            else: training += lines
    assert not of_dev & {t for l in map(json.loads, training) for t in (l['query'], *l['pos'], *l['neg'])}
    write_lines(out/'train.jsonl', training)
    return counts


if __name__ == '__main__':
    p = argparse.ArgumentParser()
    p.add_argument('--output_dir', type=Path, default=ROOT/'output/debian_docs')
    p.add_argument('--everything', action='store_true', help='package descriptions, handbooks and FAQs too')
    a = p.parse_args()
    for k, v in build(a.output_dir, a.everything).items(): print(f'{k}: {v}')
