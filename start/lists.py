"""Stage 2 of `make start`: a list of documents for every query, hard ones among them.

    python start/lists.py        # output/start/texts/*.jsonl -> rows.jsonl, english.jsonl, chinese.jsonl, vectors/

A list has the query's own document and seven others: two sections of its page, two of the forty nearest by the base's
cosine, one of BM25's best, the rest at random. So some are easy, some nearly right, and the teachers' scores say how
nearly. Texts with a translation meet only texts with a translation, so that one list serves both languages. Documents
are cut at a sentence to one of three lengths, a tenth of them near 300 tokens.
"""
import hashlib, json, random
from collections import defaultdict
from pathlib import Path
import numpy as np
from rerank_nb.base import make_base
from rerank_nb.files import atomic_file
from rerank_nb.mining import BM25, Embedding

ROOT = Path(__file__).resolve().parent.parent
OUT, BASE = ROOT/'output/start', ROOT/'models/me5-small-zh-en'
SIZE, NEAR, WORDS = 8, 40, 12                       # documents a list; places to draw near ones from, and BM25's
LENGTHS = ((.6, 160, 65), (.9, 400, 170), (1., 1100, 450))    # up to this share: characters of English, of Chinese
MOST = dict(both=1100, en=200, zh=250)              # lessons of one kind in a pool
MOST_DEV = 60
ENDS = ('. ', '。', ';', '；', '! ', '！', '？', '? ')
LANGUAGES, SIDES = ('en', 'zh'), {'query': 'query: ', 'doc': 'passage: '}


def read_jsonl(path): return [json.loads(line) for line in path.open(encoding='utf-8')]


def write_jsonl(path, lines):
    with atomic_file(path) as f: f.writelines(json.dumps(x, ensure_ascii=False) + '\n' for x in lines)


def is_newer(path, *sources):
    "Is a stage's file there, and younger than what it was made from?"
    return path.exists() and path.stat().st_mtime > max(s.stat().st_mtime for s in sources)


def share(*key):
    "A number in [0, 1) that depends on the key alone."
    return int.from_bytes(hashlib.md5('|'.join(key).encode()).digest()[:4], 'little') / 2**32


def shortened(text, limit):
    "The first sentences, about `limit` characters."
    if len(text) <= limit: return text
    at = max(text.rfind(s, limit // 2, limit) for s in ENDS)
    return text[:at + 1].strip() if at > 0 else text[:limit]


def with_length(row):
    "A row with its documents cut to a length of its own."
    u = share(row['kind'], row['group'], *row['query'].values())
    _, en, zh = next(l for l in LENGTHS if u < l[0])
    return row | dict(doc={k: shortened(v, en if k == 'en' else zh) for k, v in row['doc'].items()})


def pool_of(row): return 'both' if len(row['doc']) == 2 else next(iter(row['doc']))


def choose_rows(rng, dev=False):
    "Sections of one side, at most so many of a kind."
    kinds = defaultdict(list)
    for path in sorted((OUT/'texts').glob('*.jsonl')):
        for row in read_jsonl(path):
            if row['dev'] == dev: kinds[row['kind'], pool_of(row)].append(row)
    rows = []
    for (kind, pool), found in sorted(kinds.items()):
        some = rng.sample(found, min(MOST_DEV if dev else MOST[pool], len(found)))
        print(f'{kind}, {pool}: {len(some):,} of {len(found):,}', flush=True)
        rows += map(with_length, some)
    return rows


def vectors_of(rows, language, side):
    "(rows, width) the base's vectors, 0 where a row has no such text; kept on disk."
    has = [i for i, r in enumerate(rows) if language in r['doc']]
    texts = [rows[i][side][language] for i in has]
    mark = hashlib.md5('\n'.join(texts).encode()).hexdigest()[:8]
    e = Embedding.from_pretrained(BASE, passage_prefix=SIDES[side], mixed_precision='bf16', max_len=400)
    e.build(texts, OUT/f'vectors/{language}_{side}_{mark}', texts_a_file=1024)
    found = np.concatenate(list(e.vectors))
    out = np.zeros((len(rows), found.shape[1]), np.float32)
    out[has] = found
    return out


def all_vectors(rows):
    return {(l, s): vectors_of(rows, l, s) for l in LANGUAGES for s in SIDES}


class Pool:
    "Texts that may meet in a list."
    def __init__(self, rows, members, languages, vectors, rng):
        self.rows, self.members, self.languages, self.vectors, self.rng = rows, members, languages, vectors, rng
        self.words = BM25().build([self.text(i) for i in members])
        self.pages = defaultdict(list)
        for i in members: self.pages[rows[i]['kind'], rows[i]['group']].append(i)

    def text(self, i, side='doc'): return self.rows[i][side][self.languages[0]]
    def drawn(self, found): return self.rng.sample(found, len(found))

    def near(self, queries):
        "For each query the nearest documents, by the mean of the languages."
        at = np.array(self.members)
        cosines = sum(self.vectors[l, 'query'][queries] @ self.vectors[l, 'doc'][at].T for l in self.languages)
        return at[np.argpartition(-cosines, min(NEAR, len(at) - 1), axis=1)[:, :NEAR]].tolist()

    def list_of(self, i, near):
        "The query's own row first, then others, no text twice."
        row = self.rows[i]
        page = [j for j in self.pages[row['kind'], row['group']] if j != i]
        words = [self.members[k] for k in self.words(self.text(i, 'query'), WORDS)]
        chosen, texts = [i], {self.text(i)}
        for found, most in ((page, 2), (near, 2), (words, 1), (self.rng.sample(self.members, 3 * SIZE), SIZE)):
            new = [j for j in self.drawn(found) if self.text(j) not in texts]
            new = list({self.text(j): j for j in new}.values())[:min(most, SIZE - len(chosen))]
            chosen, texts = chosen + new, texts | {self.text(j) for j in new}
        return chosen

    def lists(self, queries):
        for s in range(0, len(queries), 512):
            some = queries[s:s + 512]
            yield from (self.list_of(i, near) for i, near in zip(some, self.near(some)))


def as_data(rows, chosen, asks, answers):
    "A line of binary data that keeps the numbers of its rows; query in one language, documents in another or the same."
    own, *others = [rows[j]['doc'][answers] for j in chosen]
    return dict(query=rows[chosen[0]]['query'][asks], pos=[own], neg=others, rows=chosen)


def main():
    if is_newer(OUT/'rows.jsonl', *(OUT/'texts').glob('*.jsonl')): return
    make_base(BASE, reranker=False)
    rng = random.Random(0)
    rows = choose_rows(rng)
    vectors, pools = all_vectors(rows), [pool_of(r) for r in rows]
    lines = dict(english=[], chinese=[])
    for pool, others, languages in (('both', (), LANGUAGES), ('en', ('both',), ('en',)), ('zh', ('both',), ('zh',))):
        queries = [i for i, p in enumerate(pools) if p == pool]
        members = queries + [i for i, p in enumerate(pools) if p in others]
        found = Pool(rows, members, languages, vectors, rng).lists(queries)
        kept = 'chinese' if pool == 'zh' else 'english'
        lines[kept] += [as_data(rows, chosen, languages[0], languages[0]) for chosen in found]
        print(f'{pool}: {len(queries):,} lists', flush=True)
    for name, found in lines.items(): write_jsonl(OUT/f'{name}.jsonl', rng.sample(found, len(found)))
    write_jsonl(OUT/'rows.jsonl', rows)


if __name__ == '__main__': main()
