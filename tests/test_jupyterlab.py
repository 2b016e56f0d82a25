"""The notebooks in a real JupyterLab, in a real browser: Run All, and what a person then looks for.

Needs Chromium (Debian: apt-get install chromium). Pictures are left in output/browser/.
"""
import json, os, re, shutil, signal, subprocess, sys, time, urllib.request
import pytest
from helpers import ROOT

pytestmark = pytest.mark.slow
PICTURES = ROOT/'output/browser'
OFFLINE = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
           '--disable-component-update', '--disable-sync']


def settings_in(folder):
    "What a person's settings say: no window over long notebooks, no news."
    plugins = {
        'notebook-extension/tracker': '{"windowingMode": "none"}',
        'apputils-extension/notification': '{"fetchNews": "false", "checkForUpdates": false}',
    }
    for plugin, text in plugins.items():
        p = folder/f'@jupyterlab/{plugin}.jupyterlab-settings'
        p.parent.mkdir(parents=True, exist_ok=True)
        p.write_text(text)


def address(p, log, seconds=240):
    "Where the server listens, once it answers; its log is the message if it ends, or does not for so long."
    end, why = time.time() + seconds, 'no address'
    while time.time() < end:
        assert p.poll() is None, log.read_text()
        time.sleep(.5)
        if not (m := re.search(r'http://127\.0\.0\.1:\d+/', log.read_text())): continue
        try: urllib.request.urlopen(f'{m[0]}api/status', timeout=30).read()
        except OSError as e: why = f'{m[0]}: {e}'
        else: return m[0]
    raise AssertionError(f'no server in {seconds} seconds: {why}\n{log.read_text()}')


def sessions(lab, path):
    "The server's kernels of one notebook."
    with urllib.request.urlopen(f'{lab}api/sessions', timeout=30) as f: known = json.load(f)
    return [s for s in known if s['path'] == path]


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "JupyterLab on loopback over a copy of the notebooks, as on a machine where it never ran; yields its address."
    root = tmp_path_factory.mktemp('lab')
    shutil.copytree(ROOT/'nbs', root/'nbs', ignore=shutil.ignore_patterns('.ipynb_checkpoints'))
    for name in ('config', 'example_data', 'models', 'benchmarks'): (root/name).symlink_to(ROOT/name)
    settings_in(root/'LAB_SETTINGS')
    own = ('_CONFIG', '_DATA', '_RUNTIME', 'LAB_WORKSPACES', 'LAB_SETTINGS')
    env = {**os.environ, 'HF_HUB_OFFLINE': '1', **{f'JUPYTER{k}_DIR': str(root/k) for k in own}}
    command = [sys.executable, '-m', 'jupyter', 'lab', '--no-browser', '--allow-root', '--ip', '127.0.0.1',
               '--port', '0', '--IdentityProvider.token=', '--ServerApp.root_dir', root,
               '--LabApp.expose_app_in_browser=True']
    log = root/'lab.log'
    with log.open('w') as f:
        p = subprocess.Popen(command, stdout=f, stderr=subprocess.STDOUT, start_new_session=True, env=env)
    try:
        yield address(p, log)
    finally:
        os.killpg(p.pid, signal.SIGTERM)   # it ends its kernels
        try: p.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(p.pid, signal.SIGKILL)
            p.wait(30)


@pytest.fixture(scope='module')
def browser():
    from playwright.sync_api import sync_playwright
    chromium = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    assert chromium, 'no Chromium found: apt-get install chromium'
    PICTURES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=chromium, args=OFFLINE)
        yield b
        b.close()


# What JupyterLab knows of a notebook's kernel. The mark beside the kernel's name says idle before there is one, and
# cells that are run then are lost, or start a second kernel.
KERNEL = """() => {
    const session = window.jupyterapp?.shell.currentWidget?.sessionContext?.session
    return session ? `${session.path}: ${session.kernel?.connectionStatus} ${session.kernel?.status}` : 'no session'
}"""
PROMPTS = '.jp-CodeCell .jp-InputPrompt'


class Notebook:
    "A notebook open in JupyterLab, its kernel ready."
    def __init__(self, browser, lab, path, slow=0):
        self.lab, self.path, self.name = lab, path, path.split('/')[-1].removesuffix('.ipynb')
        self.page = browser.new_page(viewport=dict(width=1300, height=1000))
        self.page.set_default_timeout(60_000)
        if slow: self.page.route('**/api/sessions*', lambda r: self._later(r, slow))
        self.widths, self.plots = set(), set()
        self.page.goto(f'{lab}lab/tree/{path}?reset', timeout=120_000)
        self.page.wait_for_selector('.jp-Notebook .jp-CodeCell', timeout=120_000)
        self.until_ready(120)

    def _later(self, route, seconds):
        "A kernel that is slow to come, as on a machine where none ran before."
        if route.request.method == 'POST': self.page.wait_for_timeout(1000 * seconds)
        route.continue_()

    def until_ready(self, seconds):
        "Wait until the page talks to its kernel."
        end, state = time.time() + seconds, ''
        while time.time() < end:
            if (state := self.page.evaluate(KERNEL)) == f'{self.path}: connected idle': break
            time.sleep(.2)
        else: self.fail(f'no kernel in {seconds} seconds: {state}')
        assert len(known := sessions(self.lab, self.path)) == 1, known

    def fail(self, message):
        "What is wrong, what JupyterLab says of the kernels, and a picture."
        self.picture('failed')
        dialogs = self.page.locator('.jp-Dialog').all_inner_texts()
        seen = f'page: {self.page.evaluate(KERNEL)}, dialogs: {dialogs}, server: {sessions(self.lab, self.path)}'
        raise AssertionError(f'{self.name}: {message}\n{seen}\n{self.prompts()}')

    def clear(self):
        self.menu('Edit', 'Clear Outputs of All Cells')
        self.page.wait_for_function("!document.querySelector('.jp-OutputArea-output')")

    def menu(self, *words):
        for w in words:
            self.page.locator('.lm-MenuBar-item, .lm-Menu-item', has=self.page.get_by_text(w, exact=True)).last.click()

    def prompts(self): return self.page.eval_on_selector_all(PROMPTS, 'p => p.map(x => x.textContent)')

    def watch(self):
        "Note how far bars and live plots are."
        def each(selector, value): return set(self.page.eval_on_selector_all(selector, f'all => all.map(x => {value})'))
        self.widths |= each('.jupyter-widgets .progress-bar', 'x.style.width')
        self.plots |= each('.jp-RenderedImage img', 'x.src.length + x.src.slice(-400)')

    def run_all(self, minutes, still=5):
        "Run > Run All Cells; meanwhile watch; then every code cell has a number and none is red."
        self.menu('Run', 'Run All Cells')
        end, moved, was = time.time() + 60 * minutes, time.time(), self.prompts()
        while time.time() < end:
            self.watch()
            prompts = self.prompts()
            if self.red():
                self.picture('red')
                raise AssertionError(self.red())
            if all(re.fullmatch(r'\[\d+\]:', t) for t in prompts): break
            if prompts != was: moved, was = time.time(), prompts
            begun, quiet = any(re.search(r'[\d*]', t) for t in prompts), time.time() - moved
            if not begun and quiet > 60: self.fail('no cell began in a minute')
            if quiet > 60 * still: self.fail(f'no cell ended in {still} minutes')
            time.sleep(.2)
        else: self.fail(f'not done in {minutes} minutes')
        assert prompts and len(sessions(self.lab, self.path)) == 1
        time.sleep(1)
        assert not self.red()

    def red(self):
        errors = self.page.locator('.jp-OutputArea-output', has_text='Traceback (most recent call last)')
        return errors.all_inner_texts()
    def text(self): return '\n'.join(self.page.locator('.jp-OutputArea-output').all_inner_texts())
    def picture(self, name, element=None):
        (element or self.page).screenshot(path=PICTURES/f'{self.name}_{name}.png')
    def pictures(self):
        "The whole notebook, a screen at a time."
        box = self.page.locator('.jp-WindowedPanel-outer').first
        height, i = box.evaluate('b => b.scrollHeight'), 0
        for i, top in enumerate(range(0, height, 900)):
            box.evaluate('(b, top) => b.scrollTo(0, top)', top)
            time.sleep(.2)
            self.picture(f'{i:02d}')


@pytest.fixture
def open_notebook(browser, lab):
    opened = []
    def start(path, **kw):
        opened.append(Notebook(browser, lab, path, **kw))
        opened[-1].clear()
        return opened[-1]
    yield start
    for n in opened: n.page.close()


def test_index(open_notebook):
    nb = open_notebook('nbs/index.ipynb')
    nb.run_all(15)
    nb.pictures()
    assert len(nb.widths) >= 5, nb.widths          # bars moved
    assert re.search(r'0\.\d\d Swallow, yawn or chew gum', nb.text())   # the ranked list


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
    before = lists.all_inner_texts()
    nb.page.locator('.widget-slider .noUi-handle').last.focus()
    for _ in range(20): nb.page.keyboard.press('ArrowUp')
    above = "document.querySelectorAll('.rr-list')[0].innerText.includes('above 0.70')"
    nb.page.wait_for_function(above)      # the kernel answers each step
    assert lists.nth(0).inner_text() != before[0]
    nb.page.locator('.widget-textarea textarea').last.fill('一份新的文档\n<img src=x onerror="document.title=1">')
    nb.page.get_by_role('button', name='rank', exact=True).click()
    two = "document.querySelectorAll('.rr-list')[0].querySelectorAll('.rr-row').length == 2"
    nb.page.wait_for_function(two)
    second = lists.nth(1).inner_text()
    assert '一份新的文档' in second and '<img src=x' in second and lists.locator('img').count() == 0
    nb.picture('playground', nb.page.locator('.widget-vbox', has=nb.page.locator('.rr-list')).last)


def test_launch(open_notebook):
    nb = open_notebook('nbs/tutorials/02_launch.ipynb')
    nb.run_all(15)
    nb.pictures()
    text = nb.text()
    assert 'largest difference of a loss' in text and 'FSDP' in text and 'all bytes:' in text
    assert len(nb.widths | nb.plots) >= 5


def test_a_broken_cell_is_seen_and_a_slow_first_start_waited_for(open_notebook):
    nb = open_notebook('nbs/tutorials/03_speed.ipynb', slow=5)
    editor = nb.page.locator('.jp-CodeCell .cm-content').first
    editor.click()
    nb.page.keyboard.press('Control+A')
    nb.page.keyboard.type('1/0')
    with pytest.raises(AssertionError, match='ZeroDivisionError'): nb.run_all(2)
