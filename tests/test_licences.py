"What an installation of this package brings along may be used and passed on by anyone, and has no known vulnerability."
import configparser, json, re, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, distribution, version
from threading import Thread
import pytest
from packaging.requirements import Requirement
from helpers import ROOT, own_environment, run

FREE = re.compile(r'MIT|BSD|Apache|ISC|PSF|Python Software Foundation|MPL[- ]2|HPND|Zlib|CC0|Unlicense', re.I)


def licence(about):
    "What a package says of its licence: an expression, a classifier, or a text's first line."
    kinds = [c.split('::')[-1].strip() for c in about.get_all('Classifier', []) if c.startswith('License')]
    return about.get('License-Expression') or '; '.join(kinds) or (about.get('License') or '').split('\n')[0]


def brought_along(todo):
    "Licences by package, of some packages and of all that they require here; what is not installed is left out."
    found = {}
    while todo:
        name = todo.pop()
        if name.lower().replace('_', '-') in found: continue
        try: d = distribution(name)
        except PackageNotFoundError: continue
        found[name.lower().replace('_', '-')] = licence(d.metadata)
        needs = map(Requirement, d.requires or [])
        todo += [r.name for r in needs if not r.marker or r.marker.evaluate({'extra': ''})]
    return found


def required(*keys):
    "What `settings.ini` requires under these keys."
    cfg = configparser.ConfigParser(delimiters=['='])
    cfg.read(ROOT/'settings.ini', encoding='utf-8')
    return [Requirement(r).name for key in keys for r in cfg['DEFAULT'][key].split()]


def test_all_licences_are_free():
    found = brought_along(required('requirements'))
    assert {'torch', 'transformers', 'numpy', 'tokenizers'} <= {*found} and len(found) > 20
    # drivers that torch brings along for GPUs have licences of their own
    others = {k: v for k, v in found.items() if not k.startswith(('nvidia-', 'cuda-'))}
    odd = {k: v for k, v in others.items() if not FREE.search(v) or 'GPL' in v}
    assert not odd, odd


@pytest.mark.parametrize('text', ['GPL-3.0', 'Proprietary', ''])
def test_another_licence_would_be_seen(text): assert not FREE.search(text)


# ---------- vulnerabilities ----------

OSV = 'https://api.osv.dev/v1/query'   # of open source packages, https://osv.dev


def audit(folder, url):
    "pip-audit on all that an installation with `dev` has here."
    locked = folder/'locked.txt'
    found = brought_along(required('requirements', 'dev_requirements'))
    locked.write_text(''.join(f"{name}=={version(name).split('+')[0]}\n" for name in sorted(found)))
    python = own_environment('pip-audit', 'pip-audit==2.*')
    asks = '--no-deps', '--disable-pip', '-s', 'osv', '--osv-url', url, '--cache-dir', folder/'cache'
    says = '--progress-spinner', 'off', '--format', 'json'
    return run(python, '-m', 'pip_audit', '-r', locked, *asks, *says, timeout=600)


@pytest.mark.slow
def test_no_vulnerability_is_known(tmp_path):
    try: urllib.request.urlopen(OSV.removesuffix('/v1/query'), timeout=10)
    except urllib.error.HTTPError: pass   # it answers
    except OSError as e: pytest.skip(f'{OSV} does not answer: {e}')
    p = audit(tmp_path, OSV)
    assert p.returncode == 0, p.stdout + p.stderr


class StandIn(BaseHTTPRequestHandler):
    "A database in which one package has a vulnerability."
    def log_message(self, *_): pass

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers['Content-Length'])))['package']['name']
        self.server.asked.append(asked)
        affected = [dict(package=dict(name='tqdm', ecosystem='PyPI'), ranges=[])]
        bad = dict(id='OSV-1', summary='bad', modified='2026-01-01T00:00:00Z', affected=affected)
        body = json.dumps({'vulns': [bad]} if asked == 'tqdm' else {}).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.mark.slow
def test_a_vulnerability_would_be_seen(tmp_path):
    server = ThreadingHTTPServer(('127.0.0.1', 0), StandIn)
    server.asked = []
    Thread(target=server.serve_forever, daemon=True).start()
    try: p = audit(tmp_path, f'http://127.0.0.1:{server.server_port}/v1/query')
    finally: server.shutdown()
    found = {d['name']: [v['id'] for v in d['vulns']] for d in json.loads(p.stdout)['dependencies']}
    assert p.returncode == 1 and {name for name, ids in found.items() if ids} == {'tqdm'}, p.stderr
    assert {'torch', 'transformers', 'nbdev', 'tqdm'} <= {*server.asked} and len(found) > 100
