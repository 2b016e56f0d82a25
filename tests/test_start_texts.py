"""start/texts.py on a page of each kind: what becomes query and doc, what stays away, what ties two languages."""
import json, os, subprocess, sys
from pathlib import Path
import pytest
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT/'benchmarks'), str(ROOT/'start')]
texts = pytest.importorskip('texts')

LONG = 'Text blocks are kept in a file and put into any document later, with their pictures, tables and fields.'
LONG_ZH = '文本块保存在一个文件中，以后可以连同其中的图形、表格和字段一起插入到任何一个文档中去。'


@pytest.mark.parametrize('script', ['texts', 'everyday'])
def test_a_stage_starts_by_itself(script, tmp_path):
    "As make start calls it: what it needs of benchmarks/ it finds."
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    command = [sys.executable, ROOT/f'start/{script}.py', '--help']
    p = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, timeout=120)
    assert p.returncode == 0, p.stderr


def test_a_version_that_is_short_or_in_the_other_language_is_left_out():
    row = texts.line('x', 'g', en=('How to keep texts', [LONG]), zh=('怎样保存文本', [LONG_ZH]))
    assert row['query'] == dict(en='How to keep texts', zh='怎样保存文本') and row['doc'] == dict(en=LONG, zh=LONG_ZH)
    english = 'How to keep texts', [LONG]
    assert list(texts.line('x', 'g', en=english, zh=english)['doc']) == ['en']
    assert list(texts.line('x', 'g', en=('Texts', [LONG]), zh=('怎样保存文本', [LONG_ZH]))['query']) == ['zh']
    assert texts.line('x', 'g', en=('How to keep texts', ['Short.'])) is None


def test_the_doc_does_not_begin_with_its_query():
    for before in ('How to keep texts. ', '. how to keep texts: ', 'How to keep texts: How to keep texts. '):
        assert texts.fit('How to keep texts', [before + LONG], 'en')[1] == LONG


def test_a_heading_of_points_alone_is_no_query():
    "The tab stops of LibreOffice's help have one; taking '' away from a text's beginning has no end."
    assert texts.fit('.......', [LONG_ZH], 'zh') is None and texts.strip_query('', LONG) == LONG


def test_paragraphs_left_in_english_go_and_more_than_half_take_the_version_with_them():
    assert texts.fit('怎样保存文本', [LONG_ZH, LONG], 'zh') == ('怎样保存文本', LONG_ZH)
    assert texts.fit('怎样保存文本', [LONG_ZH, LONG, LONG], 'zh') is None


def test_items_of_a_list_stay_apart():
    assert texts.running(['One: ', 'two', 'Three!'], 'en') == 'One: two. Three!'
    assert texts.running(['甲', '乙'], 'zh') == '甲。乙。'


OFFICE = '''<body><p>LibreOffice 7</p><div id="DisplayArea"><h1 id="hd_1">{title}</h1>
<div class="howtoget"><p>Menu</p></div><p id="par_1">{text}</p><h2 id="hd_2">{head}</h2>
<ol><li><p>{text}</p></li></ol><div class="relatedtopics"><p>See also</p></div></div></body>'''


def test_sections_of_office_help_meet_by_id():
    en = texts.office_page(OFFICE.format(title='Using text blocks', head='Creating', text=LONG), 'en')
    zh = texts.office_page(OFFICE.format(title='使用文本块的方法', head='创建文本', text=LONG_ZH), 'zh')
    assert list(en) == list(zh) == ['hd_1', 'hd_2']
    rows = texts.pair('office', 'text/blocks', en, zh)
    assert [r['query'] for r in rows] == [dict(en='Using text blocks', zh='使用文本块的方法'),
                                          dict(en='Using text blocks: Creating', zh='使用文本块的方法：创建文本')]
    assert rows[1]['doc'] == dict(en=LONG, zh=LONG_ZH)


def test_pages_with_different_numbers_of_headings_are_not_paired():
    heads, zh = [(None, 'How to keep texts', [LONG])], [(None, '怎样保存文本', [LONG_ZH])]
    en = texts.headed(heads, 'en')
    def languages(zh): return [[*r['doc']] for r in texts.pair('x', 'g', en, texts.headed(zh, 'zh'))]
    assert languages(zh) == [['en', 'zh']] and languages(zh * 2) == [['en'], ['zh'], ['zh']]


def test_a_title_of_a_word_takes_its_first_sentence():
    assert texts.named('Blocks', 'Blocks', ['Inserts a block.', LONG], 'en') == ('Blocks: Inserts a block.', [LONG])


def test_mallard_and_docbook():
    page = '''<page xmlns="http://projectmallard.org/1.0/" id="x"><info><desc>no</desc></info>
    <title>Back up files</title><p>Copy <link xref="disk"/> first.</p><section id="where"><title>Where</title>
    <steps><item><p>Here.</p></item></steps></section></page>'''
    assert texts.help_page(page, {'disk': 'the disk'}) == {'': ('Back up files', ['Copy the disk first.']),
                                                           'where': ('Where', ['Here.'])}
    book = '''<article><title>The &app; manual</title>
    <sect1 id="a"><title>Start</title><para>Run it.</para></sect1></article>'''
    assert texts.help_page(book) == {'': ('The app manual', []), 'a': ('Start', ['Run it.'])}


def test_messages_of_a_catalogue_become_first_sentence_and_rest(tmp_path):
    en = ('The old mill stands by the river. Nobody has lived in it for years, and its <b>wheel</b> turns no more '
          'under its roof. Shall we go in?')
    zh = '老磨坊矗立在河边。那里多年无人居住了，它的<b>水车</b>也早已不再转动，门窗也都破了。要进去吗？'
    messages = Catalog(locale='zh_CN')
    messages.add(en, zh)
    messages.add('Open %s now. ' + en, zh)
    with open(tmp_path/'mill.mo', 'wb') as f: write_mo(f, messages)
    rows = [texts.story_line('mill', *m) for m in texts.catalogue(tmp_path/'mill.mo').items()]
    found, = (r for r in rows if r)    # the other one has a variable
    assert found['query'] == dict(en='The old mill stands by the river', zh='老磨坊矗立在河边')
    assert found['doc']['zh'] == '那里多年无人居住了，它的水车也早已不再转动，门窗也都破了。要进去吗？'
    assert len(rows) == 2
    assert texts.catalogue(tmp_path/'none.mo') == {}


def test_a_package_keeps_all_its_paragraphs():
    apt = 'Package: mill\nDescription-md5: 1\nDescription-en: grinds text files\n It grinds.\n .\n All day\n long.\n\n'
    assert texts.package_texts(apt) == {'mill': ('grinds text files', [' It grinds.', ' All day\n long.\n'])}


def test_a_man_page_gives_its_description_and_its_subsections():
    source = '.SH NAME\nmill \\- grind text\n.SH DESCRIPTION\nIt grinds.\n'
    source += '.SS "Which stones are used"\nTwo\n.nf\ncode\n.fi\n'
    found = texts.man_page(source)
    assert found[''] == ('grind text', ['It grinds.']) and found[3, 2] == ('Which stones are used', ['Two'])
    assert (3, 1) not in found
    assert [not texts.common(h) for h in ('选项 options', '怎样检测流的状态', 'License of it', 'Which stones')] == \
        [False, True, False, True]


def test_restructured_text():
    source = ':Author: A\n\n=====\nTitle\n=====\n\nSee ``x`` and :ref:`the page <y>`::\n\n'
    source += '  code\n\n2. Part\n-------\ntext\n'
    assert texts.rst_page(source) == [(None, 'Title', ['See x and the page:']), (None, 'Part', ['text'])]


def test_settings_and_metainfo():
    schema = '''<schemalist><schema><key name="a"><summary>Grind</summary>
    <description>a\n b</description></key></schema></schemalist>'''
    assert texts.settings_in(schema) == [('Grind', 'a b')]
    info = '''<component><summary>Grind text</summary><summary xml:lang="zh_CN">研磨文本</summary>
    <description><p>It grinds.</p><p xml:lang="zh_CN">它研磨。</p>
    <p xml:lang="de">Es mahlt.</p></description></component>'''
    assert texts.app(info) == dict(en=('Grind text', ['It grinds.']), zh=('研磨文本', ['它研磨。']))


def test_dev_texts_examples_and_repetitions_stay_out_of_train(tmp_path, monkeypatch):
    dev = 'What nobody may learn stands at the beginning of a text that is measured, in sixty letters and more.'
    rows = [dict(kind='man', group=g, dev=d, query=dict(en=q), doc=dict(en=doc)) for g, d, q, doc in (
        ('a', False, 'a fine query', LONG), ('b', False, 'another query', LONG),
        ('c', False, 'third', LONG + ' ' + dev), ('d', True, 'fourth', dev),
        ('e', False, 'asked in dev', 'e'), ('f', False, 'of the examples', 'f'))]
    texts.write(tmp_path/'texts/man.jsonl', rows)
    monkeypatch.setattr(texts, 'dev_texts', lambda out: {dev, 'asked in dev'})
    monkeypatch.setattr(texts, 'example_texts', lambda: {'of the examples'})
    assert [r['group'] for r in texts.join(tmp_path)] == ['a', 'd']
    assert [json.loads(l)['group'] for l in (tmp_path/'texts.jsonl').open()] == ['a', 'd']


def test_all_texts_of_example_data_are_known():
    found = texts.example_texts()
    row = json.loads((ROOT/'example_data/binary_dev.jsonl').read_text().split('\n')[0])
    assert {row['query'], *row['pos'], *row['neg']} <= found
