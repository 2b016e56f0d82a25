"""A set of labelled pairs that anyone with Debian's package lists can make: man pages and, if asked for, package descriptions, handbooks and FAQs, English and Chinese.

    python benchmarks/debian_docs.py [--output_dir output/debian_docs] [--everything]

The one-line description of a man page is the query, the beginning of its DESCRIPTION the document that answers it; of a package its synopsis and its long description; in a book it is a heading and the text under it. Queries without an answer in their own words are hard for word matching, and one set of
each kind asks in Chinese for the English text. Negatives: half of them the best BM25 hits among the others, half at random; so BM25 meets the documents that it confuses most, and the cosine does not meet its own. Train and dev share no man page, package family or chapter, in any language, and no text at all. `apt-get
download` fetches the packages, nothing is installed; the texts keep their packages' licences.
"""
import argparse, gzip, hashlib, json, random, re, subprocess
from pathlib import Path
from bs4 import BeautifulSoup
from rerank_nb.mining import BM25

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = 'manpages manpages-dev manpages-zh coreutils util-linux git-man findutils grep sed tar gzip bash procps psmisc passwd login apt dpkg dpkg-dev iproute2 mount adduser sudo tmux vim-common rsync curl wget'.split()
BOOKS = {'handbook': (['debian-handbook'], 'doc/debian-handbook/html/en-US', 'doc/debian-handbook/html/zh-CN'), 'faq': (['debian-faq', 'debian-faq-zh-cn'], 'doc/debian/FAQ', 'doc/debian/FAQ/zh-cn'),
         'reference': (['debian-reference-en', 'debian-reference-zh-cn'], 'debian-reference', 'debian-reference')}
CHINESE = '[\u4e00-\u9fff]'
KEEP_ARGUMENTS = set('B I R BR RB IR RI BI IB SM SB Nm Fl Ar Xr Pa Em Sy Cm Dq Sq Li Op Nd Ev Va Fn'.split())
TITLES = {'name': '^NAME|名称|名字|命令名|[(（]NAME', 'description': 'DESCRIPTION|^描述|^说明|^描 述'}      # a translated title often has the original behind it
SPECIAL = {'em': '-', 'en': '-', 'aq': "'", 'cq': "'", 'oq': "'", 'lq': '"', 'rq': '"', 'dq': '"', 'bu': '', 'co': '(c)', 'ha': '^', 'ti': '~', 'ga': '`', 'rs': '\\'}


def plain(text):
    "roff without its escapes."
    text = re.sub(r'\\".*', '', text)
    text = re.sub(r'\\f(\[[^\]]*\]|\(..|.)|\\s[-+]?\d+|\\m\[[^\]]*\]|\\[&|^/,:%c]|\\\*(\(..|\[[^\]]*\]|.)|\\[hvw]\'[^\']*\'|\\k.|\\u|\\d', '', text)
    text = re.sub(r'\\\((..)|\\\[(\w\w)\]', lambda m: SPECIAL.get(m[1] or m[2], ''), text)
    return text.replace('\\-', '-').replace('\\e', '\\').replace('\\ ', ' ').replace('\\~', ' ').replace('\\', '')


def sections(source):
    "The NAME and DESCRIPTION of a page as running text."
    out, here, table = {}, None, False
    for line in source.splitlines():
        if m := re.match(r"[.']\s*(\w+)\s*(.*)", line):
            macro, rest = m[1], m[2]
            if macro in ('SH', 'Sh'): title = plain(rest).strip(' "').upper(); here = next((k for k, v in TITLES.items() if k not in out and re.search(v, title)), None); continue
            if macro in ('TS', 'EQ', 'nf'): table = True
            if macro in ('TE', 'EN', 'fi'): table = False
            if macro in ('SS', 'Ss') and here == 'description' and out.get(here): here = None
            if here and macro == 'Nd': rest = '- ' + rest
            if here and not table and macro in KEEP_ARGUMENTS: out.setdefault(here, []).append(plain(rest.replace('"', '')))
        elif here and not table: out.setdefault(here, []).append(plain(line))
    return {k: one_line(' '.join(v)) for k, v in out.items()}


def one_line(text):
    "Running text, without the spaces that a line's end leaves between Chinese characters."
    return re.sub(r'(?<=[\u3000-\u9fff，。]) (?=[\u3000-\u9fff，。])', '', re.sub(r'\s+', ' ', text)).strip()


def shorten(text, limit):
    "The first sentences, about `limit` characters."
    if len(text) <= limit: return text
    cut = max(text.rfind(s, limit // 2, limit) for s in '.。;；')
    return text[:cut + 1] if cut > 0 else text[:limit]


def usable(query, doc):
    "(query, the document's beginning), or None where one is too short or the query too long."
    query, doc = query.strip().rstrip('.'), shorten(doc, 150 if re.search(CHINESE, doc) else 300)
    chinese = bool(re.search(CHINESE, query))
    if len(doc) >= (30 if chinese else 80) and (6 <= len(query) <= 40 if chinese else 3 <= len(query.split()) <= 16): return query, doc


def pages(folder):
    "{(name, section): (query, document)} of a folder of man pages."
    out = {}
    for p in sorted(folder.glob('man[1-8]/*.gz')):
        try: text = gzip.decompress(p.read_bytes()).decode('utf-8')
        except (UnicodeDecodeError, OSError): continue
        got = sections(text)
        query = re.split(r' -+ | — ', got.get('name', ''), maxsplit=1)
        name, section = p.name.removesuffix('.gz').rsplit('.', 1)
        if len(query) == 2 and (found := usable(query[1], got.get('description', ''))): out[name, section[:1]] = found
    return out


def chapters(share, chinese):
    "{(chapter, headings in it, number of the heading): (query, document)} of the books in one language."
    out = {}
    for book, (_, *folders) in BOOKS.items():
        suffix = '.html' if book == 'handbook' else '.zh-cn.html' if chinese else '.en.html'
        for p in sorted((share/folders[chinese]).glob('*' + suffix)):
            heads = []
            for tag in BeautifulSoup(p.read_text(encoding='utf-8'), 'html.parser').select('h1, h2, h3, h4, p, div.para'):
                text = one_line(tag.get_text())
                if tag.name[0] == 'h': heads.append([re.sub(r'^[\dA-Z]+(\.\d+)*\.?\s+|¶$', '', text), ''])
                elif heads and not tag.find_parent(['table', 'li']) and not tag.find_parent(class_='sidebar'): heads[-1][1] += ' ' + text
            for i, (query, doc) in enumerate(heads):
                if found := usable(query, doc.strip()): out[f'{book}/{p.name.removesuffix(suffix)}', len(heads), i] = found
    return out


def descriptions(folder):
    "{(family, package): (query, document)} in English and in Chinese, of the packages whose description is translated."
    lists, out = folder.resolve()/'lists', []
    (lists/'partial').mkdir(parents=True, exist_ok=True)
    if not list(lists.glob('*Translation-zh*')): subprocess.run(['apt-get', 'update', '-q', '-o', f'Dir::State::Lists={lists}', '-o', 'Acquire::Languages=en,zh_CN'], capture_output=True)
    for language in ('zh%5fCN', 'en'):
        found = {}
        for p in sorted(lists.glob(f'*_main_i18n_Translation-{language}*')):
            text = subprocess.run(['/usr/lib/apt/apt-helper', 'cat-file', p], capture_output=True, check=True).stdout.decode()
            for name, synopsis, long in re.findall(r'^Package: (\S+)\n(?:Description-md5: .*\n)?Description-\w+: (.*)\n((?: .*\n)+)', text, re.M):
                if out and name not in translated: continue
                if got := usable(synopsis, one_line(long.split('\n .\n')[0])): found[re.match(r'(?:lib)?[a-z0-9]*?(?=\d|\W|$)|.*', name)[0], name] = got
        out.append(found); translated = {name for _, name in found}
    return out[1], out[0]


def fetch(folder, packages):
    "Download and unpack the packages; returns their /usr/share."
    folder = folder.resolve()
    tree = folder/'tree'
    if not tree.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in packages: subprocess.run(['apt-get', 'download', '-q', name], cwd=folder, capture_output=True)
        debs = sorted(folder.glob('*.deb'))
        if not debs: raise SystemExit('apt-get download fetched nothing: this needs Debian or Ubuntu, and its package lists (apt-get update)')
        for d in debs: subprocess.run(['dpkg-deb', '-x', d, tree], check=True)
    return tree/'usr/share'


def build(out, everything=False, train_queries=60, dev_queries=60, train_negatives=5, dev_negatives=9, seed=0):
    "Write train.jsonl and dev_en, dev_zh, dev_zhen, with everything also dev_book_en, dev_package_en and so on; returns how many queries each has."
    share = fetch(out, PACKAGES + [p for names, *_ in BOOKS.values() for p in names] * everything)
    sources, sets, english = {'': (pages(share/'man'), pages(share/'man/zh_CN'))}, {}, {}
    if everything: sources |= {'book_': (chapters(share, 0), chapters(share, 1)), 'package_': descriptions(out)}
    for prefix, (en, zh) in sources.items():
        zh = {k: v for k, v in zh.items() if all(re.search(CHINESE, t) for t in v)}
        sets |= {prefix + 'en': {k: en[k] for k in sorted(en)}, prefix + 'zh': {k: zh[k] for k in sorted(zh)}, prefix + 'zhen': {k: (zh[k][0], en[k][1]) for k in sorted(set(zh) & set(en))}}
        english |= en
    is_dev = lambda key: hashlib.md5(key[0].encode()).digest()[0] < 100      # by page name or chapter, so that a translation stays with its page
    of_dev = {t for rows in sets.values() for k in rows if is_dev(k) for t in rows[k]}
    counts, training = {}, []
    for name, rows in sets.items():
        for part, want, negatives in ((False, train_queries, train_negatives), (True, dev_queries, dev_negatives)):
            keys, seen = [], set() if part else set(of_dev)
            for k in rows:      # each text once: many pages share a line
                if is_dev(k) == part and not {rows[k][0], rows[k][1]} & seen: keys.append(k); seen |= {*rows[k]}
            docs = [rows[k][1] for k in keys]
            find, rng = BM25(docs), random.Random(f'{seed}{name}{part}')
            lines = []
            for i in sorted(rng.sample(range(len(keys)), min(want, len(keys)))):
                asked = english[keys[i]][0] if name.endswith('zhen') else rows[keys[i]][0]     # word matching needs one language
                hard = [j for j in find(asked, 30) if j != i][:negatives // 2]
                easy = rng.sample([j for j in range(len(keys)) if j != i and j not in hard], negatives - len(hard))
                lines.append(json.dumps(dict(query=rows[keys[i]][0], pos=[docs[i]], neg=[docs[j] for j in hard + easy]), ensure_ascii=False))
            counts[f"{name} {'dev' if part else 'train'}"] = f'{len(lines)} of {len(keys)}'
            if part: (out/f'dev_{name}.jsonl').write_text('\n'.join(lines) + '\n', encoding='utf-8')
            else: training += lines
    assert not of_dev & {t for l in map(json.loads, training) for t in (l['query'], *l['pos'], *l['neg'])}
    (out/'train.jsonl').write_text('\n'.join(training) + '\n', encoding='utf-8')
    return counts


if __name__ == '__main__':
    p = argparse.ArgumentParser(); p.add_argument('--output_dir', type=Path, default=ROOT/'output/debian_docs'); p.add_argument('--everything', action='store_true', help='package descriptions, handbooks and FAQs too')
    a = p.parse_args()
    for k, v in build(a.output_dir, a.everything).items(): print(f'{k}: {v}')
