"""English and Chinese texts under their titles, parallel where a translation exists, from Debian's packages.

    python start/texts.py [--output_dir output/start]

Stage 1 of the start: what a teacher labels later. A line of texts.jsonl is one section of a manual, help page, book,
game or package: {"kind", "group", "dev", "query": {"en", "zh"}, "doc": {"en", "zh"}}. The query is its title, heading,
one-line description or first sentence, the doc the text under it, up to 2,500 characters, without that line. A language
is in both or in neither. "dev" marks what benchmarks/debian_docs.py measures on: its man pages, package families and
chapters, in both languages, by its own rule; no other line holds the beginning of one of its dev texts.

`apt-get download` fetches the packages, nothing is installed; the texts keep their packages' licences. A second run
makes only what is missing: packages in debs/KIND (delete a folder to fetch it again), lines in texts/KIND.jsonl.
"""
import argparse, gzip, hashlib, json, os, re, subprocess, sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree
from babel.messages.mofile import read_mo
from bs4 import BeautifulSoup
sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'benchmarks'))
import debian_docs as dd

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 2500                              # characters of a document
QUERY = {'en': (3, 20), 'zh': (4, 40)}    # least and most words, characters
DOC = {'en': 80, 'zh': 30}                # least characters
SHORT = {'en': 3, 'zh': 6}                # a heading below this is named together with its page
COLON = {'en': ': ', 'zh': '：'}
END = {'en': '.', 'zh': '。'}
WINDOW = {'en': 60, 'zh': 30}             # characters by which a text of debian_docs.py's dev sets is known again
ENGLISH_ONLY = 8000                       # package descriptions without a translation
NUMBER = r'^(Chapter|Appendix) \w+\.? |^第 ?\w+ ?章[.。]? ?|^附录 ?\w\.? ?|^([\dA-Z]+(\.\d+)*\.?)\s+|\s*[¶#]$'
MARKS = ' .:,;。：，；、'
PARAGRAPHS = 'p, li, dt, dd, td, div.para'
TAGS = 'p b i u em strong tt code nl br para title ul ol li qt html body bold italic interface emphasis'.split()
MARKUP = rf'</?(?:{"|".join(TAGS)})\s*/?>'
PLACEHOLDER = r'[<>{}$|\\]|%[\d\w(]'
SENTENCE = {'en': r'(?<=[.!?])["”’)]*\s+(?=["“‘(]?[A-Z])', 'zh': r'(?<=[。！？])(?![”’」』）。！？])'}

OFFICE = 'libreoffice-help-en-us libreoffice-help-zh-cn'.split()
GIMP = 'gimp-help-en gimp-help-zh-cn'.split()
MAN = '''allegro4-doc alsa-utils ansible auditd bind9-dnsutils bind9-utils binutils-common bpftool bridge-utils brotli
bsdextrautils bsdutils btrfs-progs buildah bzr chrony cmake cmake-data corosync cryptsetup-bin cups-client cups-daemon
cvs debhelper devscripts dnsmasq-base docker.io dovecot-core dovecot-imapd e2fsprogs elinks emacs-common
erlang-manpages ethtool exim4-config ffmpeg ffmpeg-doc fio fish-common freebsd-manpages freeipmi-tools gdal-bin gdb
ghostscript gnupg gnuplot-nox gpg gpgconf graphviz grass-doc groff groff-base hostapd imagemagick-6-common inn2
ipmitool iptables irssi isc-dhcp-client krb5-doc krb5-user ldap-utils libarchive-tools libbsd-dev libcap-dev
libcap2-bin libcurl4-doc liblzma-doc libpcap-dev libseccomp-dev libssl-doc libvirt-clients libxml2-utils lintian
linux-perf lsof ltrace lvm2 lxc lynx man-db mariadb-client mdadm mercurial-common mesa-utils mksh mutt nano ncurses-doc
neomutt netcat-openbsd netcdf-bin netpbm network-manager nftables nmap nmap-common ntpsec openafs-client openssh-client
openssh-server openssl p7zip-full pacemaker-cli-utils perl-doc pipewire-bin podman policycoreutils poppler-utils
postfix postfix-doc postgresql-client-15 pulseaudio-utils python3-docutils qemu-system-common qemu-utils rrdtool
rt-tests ruby3.1-doc samba-common-bin screen selinux-utils skopeo slapd slurm-client slurm-wlm-basic-plugins smbclient
sox sqlite3 squid strace stress-ng subversion sysstat systemd systemd-container tcl-doc tcpdump tcsh texlive-binaries
tk-doc trace-cmd tshark udev unzip vim-runtime w3m weechat-curses wireshark-common wpasupplicant x11-utils
x11-xserver-utils xfsprogs xorg-docs xsltproc xz-utils zip zsh-common zstd'''.split()
GNOME = '''abiword accerciser aisleriot alacarte anjuta anjuta-common atomix atril-common baobab bijiben brasero
brasero-common caja-common cheese cheese-common dconf-editor deja-dup devhelp devhelp-common dia dia-common
engrampa-common eog eom-common epiphany-browser epiphany-browser-data evince evince-common evolution evolution-common
file-roller five-or-more four-in-a-row gbrainy gdebi geary gedit gedit-common ghex glade gnome-boxes gnome-builder
gnome-calculator gnome-calendar gnome-characters gnome-chess gnome-clocks gnome-color-manager gnome-contacts
gnome-control-center-data gnome-devel-docs gnome-dictionary gnome-disk-utility gnome-font-viewer gnome-klotski
gnome-logs gnome-mahjongg gnome-maps gnome-mines gnome-music gnome-nettool gnome-nibbles gnome-photos
gnome-power-manager gnome-robots gnome-screenshot gnome-software gnome-software-common gnome-sound-recorder
gnome-sudoku gnome-system-monitor gnome-taquin gnome-terminal gnome-terminal-data gnome-tetravex gnome-todo
gnome-tweaks gnome-usage gnome-user-docs gnome-user-share gnome-weather gnote gnucash-docs gnumeric gnumeric-doc gthumb
gthumb-data hamster-time-tracker hitori iagno inkscape-tutorials lightsoff marco-common mate-applets-common
mate-calc-common mate-control-center-common mate-media-common mate-panel-common mate-power-manager-common
mate-system-monitor-common mate-terminal-common mate-user-guide mate-utils-common meld mousepad nautilus nautilus-data
network-manager-gnome orca pitivi planner pluma-common polari quadrapassel rhythmbox rhythmbox-doc seahorse shotwell
shotwell-common simple-scan software-properties-gtk sound-juicer swell-foop synaptic sysprof tali thunar-data totem
totem-common tracker transmission-gtk vinagre vino yelp yelp-tools zenity'''.split()
GUIDES = '''installation-guide-amd64 maint-guide maint-guide-zh-cn debmake-doc debian-edu-doc-en debian-edu-doc-zh-cn
wesnoth-1.16-data stellarium-data kicad-doc-en kicad-doc-zh'''.split()
STORIES = '''cataclysm-dda-data wesnoth-1.16-data wesnoth-1.16-did wesnoth-1.16-dm wesnoth-1.16-dw wesnoth-1.16-ei
wesnoth-1.16-httt wesnoth-1.16-l wesnoth-1.16-low wesnoth-1.16-nr wesnoth-1.16-sof wesnoth-1.16-sota wesnoth-1.16-sotbe
wesnoth-1.16-thot wesnoth-1.16-trow wesnoth-1.16-tsg wesnoth-1.16-ttb wesnoth-1.16-utbs digikam-data krita-l10n
kstars-data darktable lyx-common audacity-data minetest-data kalzium-data freeciv-data kdenlive-data gnucash-common
libreoffice-l10n-zh-cn gramps inkscape kio korganizer git gimp-data subversion hugin-data aptitude-common gbrainy kmail
gettext gnupg-l10n bash step kgeography-data tellico-data homebank-data'''.split()
KERNEL = ['linux-doc-6.1']


# --- packages' files -------------------------------------------------------------------------------------------------
def unpack(deb, tree, patterns):
    "The files of a package that match one of the patterns."
    with subprocess.Popen(['dpkg-deb', '--fsys-tarfile', deb], stdout=subprocess.PIPE) as data:
        tar = ['tar', '-x', '-C', tree, '--wildcards', *patterns]
        subprocess.run(tar, stdin=data.stdout, stderr=subprocess.DEVNULL)    # fails where a pattern finds nothing


def fetch(folder, packages, *patterns):
    "dd.fetch for big packages of which few files are read; a package that is there is not fetched again."
    tree, part = folder/'tree', folder/'tree.tmp'
    if tree.exists(): return tree/'usr/share'
    part.mkdir(parents=True, exist_ok=True)
    for name in packages:
        if not list(folder.glob(name + '_*.deb')):
            subprocess.run(['apt-get', 'download', '-q', name], cwd=folder, capture_output=True)
    debs = sorted(folder.glob('*.deb'))
    if not debs: raise SystemExit(dd.NO_PACKAGE)
    for deb in debs: unpack(deb, part, patterns)
    part.rename(tree)
    return tree/'usr/share'


# --- text -------------------------------------------------------------------------------------------------------------
def words(text): return re.findall('[A-Za-z]+', text)


def chinese_share(text):
    "Chinese characters among them and the Latin words, 0 to 1."
    zh = len(re.findall(dd.CHINESE, text))
    return zh/max(1, zh + len(words(text)))


def untranslated(text):
    "Whether a paragraph of a translation was left in English; a name or a command of a few words was not."
    return chinese_share(text) < .3 and len(words(text)) > 3


def translated(paragraphs):
    "The paragraphs without those left in English; [] where these are more than half."
    kept = [p for p in paragraphs if not untranslated(p)]
    return kept if 2*len(kept) >= len(paragraphs) else []


def running(paragraphs, language):
    "One text; a paragraph without punctuation at its end, such as an item of a list, gets a full stop."
    ended = (p if re.search(r'[^\w)）」”]$', p) else p + END[language] for p in map(dd.one_line, paragraphs) if p)
    return dd.one_line(' '.join(ended))


def strip_query(query, doc):
    "The document without the query, or the rest of its line's punctuation, at its beginning."
    doc = doc.lstrip(MARKS)
    while query and doc.lower().startswith(query.lower()): doc = doc[len(query):].lstrip(MARKS)
    return doc


def fit(query, paragraphs, language):
    "(query, doc) of one language, or None where one of them is too short, too long or not in that language."
    if language == 'zh': paragraphs = translated(paragraphs)
    query = dd.one_line(query).rstrip('.。:： ')
    doc = dd.shorten(strip_query(query, running(paragraphs, language)), LIMIT)
    least, most = QUERY[language]
    size = len(query) if language == 'zh' else len(query.split())
    shares = chinese_share(query), chinese_share(doc)
    right = min(shares) >= .5 if language == 'zh' else max(shares) < .05
    return (query, doc) if least <= size <= most and len(doc) >= DOC[language] and right else None


def line(kind, group, dev=False, **versions):
    "A line of {language: (query, paragraphs)}, with the languages that fit; None where none does."
    found = {k: fit(*v, k) for k, v in versions.items() if v}
    query, doc = ({k: v[i] for k, v in found.items() if v} for i in (0, 1))
    return dict(kind=kind, group=group, dev=dev, query=query, doc=doc) if doc else None


def pair(kind, group, en, zh, dev=False):
    "Lines of the two versions of a page, {id: (heading, paragraphs)} each; the same id is the same section."
    rows = (line(kind, group, dev, en=en.get(k), zh=zh.get(k)) for k in [*en, *(k for k in zh if k not in en)])
    return [r for r in rows if r]


def named(title, heading, paragraphs, language):
    "A heading of a word or two says little without the page's title, a title of a word or two without a sentence."
    size = len(heading) if language == 'zh' else len(heading.split())
    if size >= SHORT[language]: return heading, paragraphs
    if heading != title: return title + COLON[language] + heading, paragraphs
    return title + COLON[language] + ''.join(paragraphs[:1]), paragraphs[1:]


def headed(heads, language):
    "{(number of headings, its own number): (heading, paragraphs)}; ids that agree where a translation has them all."
    return {(len(heads), i): named(heads[0][1], head, text, language) for i, (_, head, text) in enumerate(heads)}


# --- html -------------------------------------------------------------------------------------------------------------
def outline(html, root='body', skip='nav', paragraphs=PARAGRAPHS):
    "[(id, heading, paragraphs)] of a page; of nested paragraphs the innermost are taken."
    soup, out = BeautifulSoup(html, 'html.parser'), []
    soup = soup.select_one(root) or soup
    for tag in soup.select('script, pre, .toc, .navheader, .navfooter, ' + skip): tag.decompose()
    for tag in soup.select('h1, h2, h3, h4, h5, h6, ' + paragraphs):
        text = dd.one_line(tag.get_text())
        if re.fullmatch(r'h\d', tag.name): out.append((tag.get('id'), re.sub(NUMBER, '', text), []))
        elif out and text and not tag.select_one(paragraphs): out[-1][2].append(text)
    return out


def page(path, language, skip='nav'):
    "The sections of an html file by position; {} where there is none."
    return headed(outline(path.read_text(encoding='utf-8'), skip=skip), language) if path.exists() else {}


def html_pairs(kind, files, skip='nav'):
    "Lines of (group, English file, Chinese file)."
    for group, en, zh in files: yield from pair(kind, group, page(en, 'en', skip), page(zh, 'zh', skip))


def office_page(html, language):
    "{id: (heading, paragraphs)} of a page of LibreOffice's help; ids are equal in all languages."
    skip = '.relatedtopics, .related, p.embedded, .howtoget, .noteicon, .noprint, .icontable'
    heads = outline(html, '#DisplayArea', skip, 'p')
    title = heads[0][1] if heads else ''
    return {key or i: named(title, head, text, language) for i, (key, head, text) in enumerate(heads)}


def office(out):
    share = dd.fetch(out/'debs/office', OFFICE)/'libreoffice/help'
    for p in sorted((share/'en-US/text').rglob('*.html')):
        if p.stem == 'main': continue    # links only
        name = p.relative_to(share/'en-US')
        en, zh = (share/folder/name for folder in ('en-US', 'zh-CN'))
        other = office_page(zh.read_text(encoding='utf-8'), 'zh') if zh.exists() else {}
        yield from pair('office', str(name.with_suffix('')), office_page(en.read_text(encoding='utf-8'), 'en'), other)


def gimp(out):
    share = dd.fetch(out/'debs/gimp', GIMP)/'gimp/2.0/help'
    files = ((p.stem, p, share/'zh_CN'/p.name) for p in sorted((share/'en').glob('*.html')))
    files = (f for f in files if not re.match('legal|biblio|gfdl|.*index|key-ref', f[0]))
    return html_pairs('gimp', files, '.figure, .informalfigure')


def suffixed(folder, en='.en.html', zh='.zh-cn.html', other=None):
    "(name, English file, Chinese file) of a folder whose names end in the language, or in two folders."
    for p in sorted(folder.glob('*' + en)):
        name = p.name.removesuffix(en)
        yield name, p, (other or folder)/(name + zh)


def guide_files(share):
    "(group, English file, Chinese file) of the guides."
    doc = share/'doc'
    manual = doc/'installation-guide-amd64'
    parts = dict(
        installation=suffixed(manual/'en', '.html', '.html', manual/'zh_CN'),
        maintainer=suffixed(doc/'maint-guide/html', other=doc/'maint-guide-zh-cn/html'),
        debmake=suffixed(doc/'debmake-doc/html'),
        edu=suffixed(doc/'debian-edu-doc-en', '.html', '.html', doc/'debian-edu-doc-zh-cn'),
        wesnoth=suffixed(doc/'wesnoth-1.16-data', '.en.html', '.zh_CN.html'),
        kicad=suffixed(doc/'kicad/help/en', '.html', '.html', doc/'kicad/help/zh'))
    for name, files in parts.items(): yield from ((f'{name}/{stem}', en, zh) for stem, en, zh in files)
    for en in sorted((share/'stellarium').glob('*/*/description.en.utf8')):
        yield f'stellarium/{en.parent.name}', en, en.with_name('description.zh_CN.utf8')


def guides(out):
    share = fetch(out/'debs/guide', GUIDES, '*.html', '*.utf8')
    return html_pairs('guide', guide_files(share))


def debian(out):
    "/usr/share of the packages of debian_docs.py."
    return dd.fetch(out/'debs/debian', dd.PACKAGES + [p for names, *_ in dd.BOOKS.values() for p in names])


def books(out):
    share = debian(out)
    for book, (_, *folders) in dd.BOOKS.items():
        ends = ('.html', '.html') if book == 'handbook' else ('.en.html', '.zh-cn.html')
        for stem, en, zh in suffixed(share/folders[0], *ends, share/folders[1]):
            chapter = f'{book}/{stem}'
            yield from pair('book', chapter, page(en, 'en'), page(zh, 'zh'), dd.is_dev((chapter,)))


# --- packages, man pages, the kernel's documents ----------------------------------------------------------------------
def package_texts(text):
    "{package: (synopsis, paragraphs)} of a file of apt."
    found = re.findall(dd.PARAGRAPH, text, re.M)
    return {name: (synopsis, long.split('\n .\n')) for name, synopsis, long in found}


def package_lists(out, language):
    "The same of the lists of one language, which dd.descriptions fetched."
    found = {}
    for p in sorted((out/'debs/package/lists').glob(f'*_main_i18n_Translation-{language}*')):
        p = subprocess.run(['/usr/lib/apt/apt-helper', 'cat-file', p], capture_output=True, check=True)
        found.update(package_texts(p.stdout.decode()))
    return found


def packages(out):
    "All that are translated, and of the others, outside dev, those whose name has the smallest hash."
    dd.descriptions(out/'debs/package')
    en, zh = package_lists(out, 'en'), package_lists(out, 'zh%5fCN')
    family = {name: re.match(dd.FAMILY, name)[0] for name in en | zh}
    plain = [name for name in en if name not in zh and not dd.is_dev((family[name],))]
    plain.sort(key=lambda name: hashlib.md5(name.encode()).digest())
    for name in sorted(zh) + plain[:ENGLISH_ONLY]:
        row = line('package', family[name], dd.is_dev((family[name],)), en=en.get(name), zh=zh.get(name))
        if row: yield row


def man_headings(source):
    "[(heading, [text])] of a man page, its subsections too."
    heads, table = [], False
    for text in source.splitlines():
        m = re.match(r"[.']\s*(\w+)\s*(.*)", text)
        macro, rest = m.groups() if m else (None, text)
        if macro in ('TS', 'EQ', 'nf', 'EX'): table = True
        elif macro in ('TE', 'EN', 'fi', 'EE'): table = False
        elif macro in ('SH', 'Sh', 'SS', 'Ss'): heads.append((dd.one_line(dd.plain(rest).strip(' "')), []))
        elif heads and not table and (macro is None or macro in dd.KEEP_ARGUMENTS):
            heads[-1][1].append(dd.plain(rest if macro is None else rest.replace('"', '')))
    return [(h.capitalize() if h.isupper() else h, [' '.join(text)]) for h, text in heads]


def common(heading):
    "Whether a heading says nothing of its page: options, files, parameters in Chinese, the licence and the like."
    few = dd.is_chinese(heading) and len(re.findall(dd.CHINESE, heading)) < SHORT['zh']
    return few or re.search('copyright|licen[sc]e|author|disclaimer|see also', heading, re.I)


def man_page(source):
    "{'': (one-line description, [DESCRIPTION]), (headings, number): (heading, [text])}."
    got, heads = dd.sections(source), man_headings(source)
    title = re.split(r' -+ | — ', got.get('name', ''), maxsplit=1)
    found = {'': (title[1], [got.get('description', '')])} if len(title) == 2 else {}
    told = {(len(heads), i): h for i, h in enumerate(heads) if not dd.section(h[0], ()) and not common(h[0])}
    return found | told


def man_pages(folder):
    "{(name, section): man_page} of a folder."
    found = {}
    for p in sorted(folder.glob('man[1-8]/*.gz')):
        name, number = p.name.removesuffix('.gz').rsplit('.', 1)
        try: found[name, number[:1]] = man_page(gzip.decompress(p.read_bytes()).decode('utf-8'))
        except (UnicodeDecodeError, OSError): pass
    return found


def man(out):
    shares = dd.fetch(out/'debs/man', MAN), debian(out)
    en, zh = ({k: v for s in shares for k, v in man_pages(s/folder).items()} for folder in ('man', 'man/zh_CN'))
    for key in sorted(en.keys() | zh.keys()):
        yield from pair('man', key[0], en.get(key, {}), zh.get(key, {}), dd.is_dev(key))


def rst_text(block):
    "Running text of a paragraph of reStructuredText; '' of a directive, a field or a literal block."
    if re.match(r'\.\.|:\w+:|\s|[-=~^"*+#]{3,}|\+--', block) or '|' in block: return ''
    block = re.sub(r':[\w:]+:`', '`', block)
    block = re.sub(r'`+([^`<]*?)\s*(?:<[^`]*>)?`+_*', r'\1', block)
    block = re.sub(r'\*\*?([^*]+)\*\*?', r'\1', block)
    return re.sub(r'::\s*$', ':', re.sub(r'\s::\s*$', '', block))


def rst_page(text):
    "[(None, heading, paragraphs)] of a reStructuredText file."
    heads, rule = [], re.compile(r'([-=~^"*+#.])\1{2,}\s*$')
    for block in re.split(r'\n\s*\n', text):
        lines = [l for l in block.split('\n') if l.strip()]
        if lines and rule.match(lines[0]): lines = lines[1:]
        if len(lines) > 1 and rule.match(lines[1]):
            heads.append((None, re.sub(NUMBER, '', rst_text(lines[0]).strip()), []))
            lines = lines[2:]
        body = rst_text('\n'.join(lines))
        if heads and body: heads[-1][2].append(body)
    return heads


def kernel(out):
    "Linux's documents; a translation names its original."
    share = fetch(out/'debs/kernel', KERNEL, '*/Documentation/*.rst.gz')/'doc'/KERNEL[0]
    for p in sorted((share/'Documentation/translations/zh_CN').rglob('*.rst.gz')):
        text = gzip.decompress(p.read_bytes()).decode('utf-8')
        m = re.search(r':Original:\s*(?::\w+:)?`?(Documentation/[\w/.-]+\.rst)', text)
        original = m[1] if m else 'Documentation/' + str(p.relative_to(share/'Documentation/translations/zh_CN'))[:-3]
        en = share/(original + '.gz')
        english = rst_page(gzip.decompress(en.read_bytes()).decode('utf-8')) if en.exists() else []
        group = original.removeprefix('Documentation/').removesuffix('.rst')
        yield from pair('kernel', group, headed(english, 'en'), headed(rst_page(text), 'zh'))


# --- GNOME's help -----------------------------------------------------------------------------------------------------
def tag_name(e): return e.tag.rsplit('}', 1)[-1] if isinstance(e.tag, str) else ''


def inline(e, titles):
    "Running text of an element; an empty link reads as the title of its page."
    text = e.text or ''
    if tag_name(e) == 'link' and not text.strip() and not len(e): text = titles.get(e.get('xref'), '')
    return text + ''.join(inline(c, titles)*(tag_name(c) not in ('media', 'indexterm')) + (c.tail or '') for c in e)


def help_page(xml, titles={}):
    "{id: (title, paragraphs)} of a page of Mallard or DocBook and of its sections."
    found = {}
    def read(e, key):
        for i, child in enumerate(e):
            name = tag_name(child)
            if re.fullmatch(r'section|sect\d|chapter|appendix', name): read(child, child.get('id') or f'{key}/{i}')
            elif name == 'title' and re.fullmatch(r'page|section|sect\d|chapter|appendix|article', tag_name(e)):
                found[key] = dd.one_line(inline(child, titles)), []
            elif name in ('p', 'para') and key in found: found[key][1].append(dd.one_line(inline(child, titles)))
            elif not re.fullmatch(r'\w*info|code|screen|links|programlisting', name): read(child, key)
    read(ElementTree.fromstring(re.sub(r'&(?!amp|lt|gt|quot|apos|#)(\w+);', r'\1', xml)), '')
    return found


def help_file(path, titles={}):
    "help_page of a file; {} where it is missing or breaks."
    try: return help_page(path.read_text(encoding='utf-8'), titles) if path.exists() else {}
    except ElementTree.ParseError: return {}


def titles_of(folder):
    "{page: its title}, for links without a text."
    pages = {p.stem: help_file(p) for p in folder.glob('*.page')}
    return {name: v[''][0] for name, v in pages.items() if '' in v}


def with_titles(found, language):
    "The sections of a page, named."
    title = next(iter(found.values()))[0] if found else ''
    return {k: named(title, *v, language) for k, v in found.items()}


def gnome_files(out):
    "/usr/share of GNOME's packages: help pages, settings, catalogues and metainfo."
    parts = '*/help/C/*', '*/help/zh_CN/*', '*.gschema.xml', '*/zh_CN/*.mo', '*/metainfo/*.xml', '*/appdata/*.xml'
    return fetch(out/'debs/gnome', GNOME, *parts)


def gnome(out):
    share = gnome_files(out)/'help'
    for folder in sorted((share/'C').iterdir()):
        other = share/'zh_CN'/folder.name
        titles, zh_titles = titles_of(folder), titles_of(other)
        for p in sorted(p for p in folder.iterdir() if p.suffix in ('.page', '.docbook', '.xml')):
            en, zh = help_file(p, titles), help_file(other/p.name, zh_titles)
            yield from pair('gnome', f'{folder.name}/{p.stem}', with_titles(en, 'en'), with_titles(zh, 'zh'))


# --- catalogues of translations ---------------------------------------------------------------------------------------
def catalogue(path):
    "{English: Chinese} of a .mo file; {} where it breaks."
    try:
        with open(path, 'rb') as f: messages = list(read_mo(f))
    except (ValueError, OSError, LookupError): return {}
    plain = (m for m in messages if isinstance(m.id, str) and isinstance(m.string, str))
    return {m.id: m.string for m in plain if m.id and m.string}


def catalogues(tree):
    "The .mo files of a tree in Simplified Chinese."
    return (p for p in sorted(tree.rglob('*.mo')) if {'zh_CN', 'zh_Hans'} & set(p.parts))


def prose(text):
    "A message without its markup; '' where variables are left in it."
    text = re.sub(r"<(\w+)>(?:dst='[^']*' )?text='([^']*)'</\1>", r'\2', text)
    text = dd.one_line(re.sub(MARKUP, ' ', text))
    return '' if re.search(PLACEHOLDER, text) else text


def first_or_last(text, language):
    "(first sentence, the rest) and (last sentence, the rest), of a text of two sentences or more."
    parts = [s.strip() for s in re.split(SENTENCE[language], text) if s.strip()]
    return [(parts[0], [' '.join(parts[1:])]), (parts[-1], [' '.join(parts[:-1])])] if len(parts) > 1 else [None, None]


def story_line(group, en, zh):
    "A line whose query is the first sentence, or the last one where that fits more languages; None with variables."
    en, zh = prose(en), prose(zh)
    if not en or not zh: return None
    choices = zip(first_or_last(en, 'en'), first_or_last(zh, 'zh'))
    rows = [line('story', group, en=a, zh=b) for a, b in choices]
    return max(rows, key=lambda row: len(row['doc']) if row else 0)


def stories(out):
    tree = fetch(out/'debs/story', STORIES, '*/zh_CN/*.mo').parent
    for p in catalogues(tree):
        rows = (story_line(p.stem, en, zh) for en, zh in catalogue(p).items() if len(en) >= 100)
        yield from (r for r in rows if r)


def settings_in(xml):
    "[(summary, description)] of a GSettings schema."
    keys = [{c.tag: dd.one_line(c.text or '') for c in key} for key in ElementTree.fromstring(xml).iter('key')]
    return [(k['summary'], k['description']) for k in keys if k.get('summary') and k.get('description')]


def settings(out):
    "Keys of GNOME's settings, translated by the catalogues of all packages at once."
    share = gnome_files(out)
    known = {dd.one_line(en): zh for p in catalogues(share.parent) for en, zh in catalogue(p).items()}
    for p in sorted((share/'glib-2.0/schemas').glob('*.gschema.xml')):
        for summary, text in settings_in(p.read_text(encoding='utf-8')):
            zh = (known[summary], [known[text]]) if summary in known and text in known else None
            row = line('setting', p.name.removesuffix('.gschema.xml'), en=(summary, [text]), zh=zh)
            if row: yield row


def app(xml):
    "{language: (summary, paragraphs)} of an application's metainfo."
    root, found = ElementTree.fromstring(xml), {}
    lang = '{http://www.w3.org/XML/1998/namespace}lang'
    for key, code in (('en', None), ('zh', 'zh_CN')):
        summary = [dd.one_line(''.join(e.itertext())) for e in root.iter('summary') if e.get(lang) == code]
        inside = [e for d in root.findall('description') for e in d.iter()]
        blocks = [e for e in inside if e.tag in ('p', 'li') and e.get(lang) == code]
        if summary and blocks: found[key] = summary[0], [dd.one_line(''.join(e.itertext())) for e in blocks]
    return found


def apps(out):
    "The metainfo of GNOME's packages."
    for p in sorted(gnome_files(out).glob('*/*.xml')):
        if p.parent.name not in ('metainfo', 'appdata'): continue
        row = line('app', p.name.removesuffix('.xml'), **app(p.read_text(encoding='utf-8')))
        if row: yield row


# --- the whole --------------------------------------------------------------------------------------------------------
SOURCES = dict(office=office, story=stories, package=packages, man=man, book=books, gnome=gnome, guide=guides,
               kernel=kernel, gimp=gimp, setting=settings, app=apps)


def read(path): return [json.loads(l) for l in path.read_text(encoding='utf-8').split('\n') if l]


def write(path, rows):
    "Whole or not at all."
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + '.tmp')
    part.write_text(''.join(json.dumps(r, ensure_ascii=False) + '\n' for r in rows), encoding='utf-8')
    os.replace(part, path)


def window(text): return WINDOW['zh' if dd.is_chinese(text) else 'en']


def dev_texts(out):
    "The texts of debian_docs.py's dev sets, kept in a file."
    path = out/'texts/dev_texts.json'
    if not path.exists():
        debian(out)
        sets, _ = dd.gather(out/'debs/debian', True)
        write(path, {t for rows in sets.values() for k, texts in rows.items() if dd.is_dev(k) for t in texts})
    return set(read(path))


def leaks(row, whole, begun):
    "Whether a train line has a text of `whole`, or anywhere in its documents one of the beginnings `begun`."
    if whole & {*row['query'].values(), *row['doc'].values()}: return True
    return any(doc[i:i + window(doc)] in begun for doc in row['doc'].values() for i in range(len(doc)))


def example_texts(root=ROOT/'example_data'):
    "Every text of example_data."
    cells = (re.split(r'[\t\n]', p.read_text(encoding='utf-8')) for p in root.rglob('*.tsv'))
    values = (v for p in root.rglob('*.jsonl') for row in read(p) for v in row.values())
    lists = [v if isinstance(v, list) else [v] for v in values]
    return {t for texts in [*cells, *lists] for t in texts if isinstance(t, str)}


def join(out):
    "texts.jsonl of all sources: no doc twice, no train line that leaks, none of example_data."
    rows = [r for k in SOURCES if (p := out/f'texts/{k}.jsonl').exists() for r in read(p)]
    dev, examples = dev_texts(out), example_texts()
    begun = {t[:window(t)] for t in dev if len(t) >= window(t)}
    kept, seen = [], set(examples)
    for r in sorted(rows, key=lambda r: r['dev']):
        docs = set(r['doc'].values())
        if docs & seen or examples & set(r['query'].values()): continue
        if not r['dev'] and leaks(r, dev, begun): continue
        seen |= docs
        kept.append(r)
    write(out/'texts.jsonl', kept)
    return kept


def counts(rows):
    "{(kind, part, languages): lines}"
    return Counter((r['kind'], 'dev' if r['dev'] else 'train', '+'.join(r['doc'])) for r in rows)


if __name__ == '__main__':
    p = argparse.ArgumentParser()
    p.add_argument('--output_dir', type=Path, default=ROOT/'output/start')
    out = p.parse_args().output_dir.resolve()
    for kind, source in SOURCES.items():
        if not (path := out/f'texts/{kind}.jsonl').exists(): write(path, source(out))
        print(kind, len(read(path)), flush=True)
    for key, n in sorted(counts(join(out)).items()): print(*key, n)
