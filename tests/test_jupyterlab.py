"""The notebooks in a real JupyterLab, in a real browser: Run All, and what a person then looks for.

Needs Chromium (Debian: apt-get install chromium). Pictures are left in output/browser/.
"""
import os, re, shutil, signal, subprocess, sys, time, urllib.request
import pytest
from conftest import ROOT

pytestmark = pytest.mark.slow
PICTURES = ROOT/'output/browser'
OFFLINE = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "JupyterLab on loopback over a copy of the notebooks; yields its address."
    root = tmp_path_factory.mktemp('lab')
    shutil.copytree(ROOT/'nbs', root/'nbs', ignore=shutil.ignore_patterns('.ipynb_checkpoints'))
    for name in ('config', 'example_data', 'models', 'benchmarks'): (root/name).symlink_to(ROOT/name)
    settings = root/'settings/@jupyterlab'
    for plugin, text in {'notebook-extension/tracker': '{"windowingMode": "none"}', 'apputils-extension/notification': '{"fetchNews": "false", "checkForUpdates": false}'}.items():
        p = settings/f'{plugin}.jupyterlab-settings'; p.parent.mkdir(parents=True, exist_ok=True); p.write_text(text)
    log = open(root/'lab.log', 'w+')
    p = subprocess.Popen([sys.executable, '-m', 'jupyter', 'lab', '--no-browser', '--ip', '127.0.0.1', '--port', '0', '--IdentityProvider.token=', '--ServerApp.root_dir', root, '--allow-root'],
                         stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env={**os.environ, 'JUPYTERLAB_SETTINGS_DIR': str(root/'settings'), 'HF_HUB_OFFLINE': '1', 'JUPYTER_CONFIG_DIR': str(root/'config_dir')})
    try:
        for _ in range(240):
            if m := re.search(r'http://127\.0\.0\.1:\d+/', (root/'lab.log').read_text()): break
            assert p.poll() is None, (root/'lab.log').read_text()
            time.sleep(.5)
        urllib.request.urlopen(m[0] + 'api/status').read()
        yield m[0]
    finally:
        os.killpg(p.pid, signal.SIGTERM); p.wait(30)


@pytest.fixture(scope='module')
def browser():
    from playwright.sync_api import sync_playwright
    chromium = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    assert chromium, 'no Chromium found: apt-get install chromium'
    PICTURES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=chromium, args=OFFLINE)
        yield b
        b.close()


class Notebook:
    "A notebook open in JupyterLab."
    def __init__(self, browser, lab, path):
        self.name, self.page = path.split('/')[-1].removesuffix('.ipynb'), browser.new_page(viewport=dict(width=1300, height=1000))
        self.page.goto(f'{lab}lab/tree/{path}?reset')
        self.page.wait_for_selector('.jp-Notebook .jp-CodeCell', timeout=120_000)
        self.page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', state='attached', timeout=120_000)
        self.widths, self.plots = set(), set()

    def clear(self):
        self.menu('Edit', 'Clear Outputs of All Cells')
        self.page.wait_for_function("!document.querySelector('.jp-OutputArea-output')")

    def menu(self, *words):
        for w in words: self.page.locator('.lm-MenuBar-item, .lm-Menu-item', has=self.page.get_by_text(w, exact=True)).last.click()

    def run_all(self, minutes):
        "Run > Run All Cells; meanwhile watch bars and live plots; then every code cell has a number and none is red."
        self.menu('Run', 'Run All Cells')
        end = time.time() + 60 * minutes
        while time.time() < end:
            self.widths |= set(self.page.eval_on_selector_all('.jupyter-widgets .progress-bar', 'bars => bars.map(b => b.style.width)'))
            self.plots |= set(self.page.eval_on_selector_all('.jp-RenderedImage img', 'pictures => pictures.map(p => p.src.length + p.src.slice(-400))'))
            prompts = self.page.eval_on_selector_all('.jp-CodeCell .jp-InputPrompt', 'p => p.map(x => x.textContent)')
            if self.red(): self.picture('red'); raise AssertionError(self.red())
            if all(re.fullmatch(r'\[\d+\]:', t) for t in prompts): break
            time.sleep(.2)
        assert prompts and all(re.fullmatch(r'\[\d+\]:', t) for t in prompts), prompts
        time.sleep(1)
        assert not self.red()

    def red(self): return self.page.locator('.jp-OutputArea-output', has_text='Traceback (most recent call last)').all_inner_texts()
    def text(self): return '\n'.join(self.page.locator('.jp-OutputArea-output').all_inner_texts())
    def picture(self, name, element=None):
        (element or self.page).screenshot(path=PICTURES/f'{self.name}_{name}.png')
    def pictures(self):
        "The whole notebook, a screen at a time."
        box = self.page.locator('.jp-WindowedPanel-outer').first
        height, i = box.evaluate('b => b.scrollHeight'), 0
        for i, top in enumerate(range(0, height, 900)):
            box.evaluate('(b, top) => b.scrollTo(0, top)', top); time.sleep(.2); self.picture(f'{i:02d}')


@pytest.fixture
def open_notebook(browser, lab):
    opened = []
    def start(path):
        opened.append(Notebook(browser, lab, path)); opened[-1].clear()
        return opened[-1]
    yield start
    for n in opened: n.page.close()


def test_index(open_notebook):
    nb = open_notebook('nbs/index.ipynb')
    nb.run_all(15)
    nb.pictures()
    assert len(nb.widths) >= 5, nb.widths          # bars moved
    assert re.search(r'NDCG@10 untrained 0\.\d+, trained 0\.\d+', nb.text())


def test_quickstart_and_its_playground(open_notebook):
    nb = open_notebook('nbs/tutorials/01_quickstart.ipynb')
    nb.run_all(15)
    nb.pictures()
    assert len(nb.widths) >= 5, nb.widths
    shown = nb.page.locator('.jp-RenderedImage img').count()
    assert len(nb.plots) > shown >= 3, (len(nb.plots), shown)      # the live loss plot was drawn anew
    assert re.search(r'NDCG@10: fresh head 0\.\d+.*trained 0\.\d+', nb.text())
    lists = nb.page.locator('.rr-list')
    assert lists.count() == 2
    before, rows = lists.all_inner_texts(), lists.nth(0).locator('.rr-row').count()
    nb.page.locator('.widget-slider .noUi-handle').last.focus()
    for _ in range(20): nb.page.keyboard.press('ArrowUp')
    nb.page.wait_for_function("document.querySelectorAll('.rr-list')[0].innerText.includes('above 0.70')")      # the kernel answers each step
    assert lists.nth(0).inner_text() != before[0]
    nb.page.locator('.widget-textarea textarea').last.fill('一份新的文档\n<img src=x onerror="document.title=1">')
    nb.page.get_by_role('button', name='rank', exact=True).click()
    nb.page.wait_for_function("rows => document.querySelectorAll('.rr-list')[0].querySelectorAll('.rr-row').length == 2", arg=rows)
    assert '一份新的文档' in lists.nth(1).inner_text() and '<img src=x' in lists.nth(1).inner_text() and lists.locator('img').count() == 0
    nb.picture('playground', nb.page.locator('.widget-vbox', has=nb.page.locator('.rr-list')).last)


def test_launch(open_notebook):
    nb = open_notebook('nbs/tutorials/02_launch.ipynb')
    nb.run_all(15)
    nb.pictures()
    text = nb.text()
    assert 'largest difference of a loss' in text and 'FSDP' in text and 'all bytes:' in text
    assert len(nb.widths | nb.plots) >= 5


def test_a_broken_cell_is_seen(open_notebook, lab, browser):
    nb = open_notebook('nbs/tutorials/03_speed.ipynb')
    editor = nb.page.locator('.jp-CodeCell .cm-content').first
    editor.click(); nb.page.keyboard.press('Control+A'); nb.page.keyboard.type('1/0')
    with pytest.raises(AssertionError, match='ZeroDivisionError'): nb.run_all(2)
