"No test waits without a limit."
import ast
import pytest
from helpers import ROOT, until

WAITS = {'communicate', 'wait', 'wait_procs', 'urlopen', 'check_output', 'check_call'}


def endless(source):
    "Lines of calls that wait for a process or a server, and of loops that sleep, without a limit."
    found = []
    for node in ast.walk(ast.parse(source)):
        text = ast.unparse(node) if isinstance(node, (ast.Call, ast.While)) else ''
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            waits = node.func.attr in WAITS or ast.unparse(node.func) == 'subprocess.run'
            limited = any(k.arg == 'timeout' for k in node.keywords) or node.func.attr == 'wait' and node.args
            if waits and not limited: found.append(node.lineno)
        if isinstance(node, ast.While) and 'sleep(' in text and 'time.time()' not in text: found.append(node.lineno)
    return found


@pytest.mark.parametrize('path', sorted((ROOT/'tests').glob('*.py')), ids=lambda p: p.name)
def test_every_wait_in_the_tests_has_a_limit(path): assert not endless(path.read_text(encoding='utf-8'))


def test_a_wait_without_one_is_found():
    assert endless('while not f(): time.sleep(1)') == [1] == endless('p.wait()') == endless('subprocess.run(["ls"])')
    assert not endless('while time.time() < end: time.sleep(1)') and not endless('p.wait(5)\nq.communicate(timeout=3)')
    with pytest.raises(AssertionError, match='not in 0 seconds'): until(lambda: False, seconds=0)
