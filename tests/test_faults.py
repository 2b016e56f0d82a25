"""Disks, folders and files that change under a command: it ends in one clear line or goes on, no half of a file stands
under a final name, and nothing older is lost."""
import errno, json, multiprocessing, os, shutil, signal, subprocess, sys, threading, time
from pathlib import Path
import psutil, pytest
from helpers import as_flags, binary_file, flags, no_file_larger_than, read_jsonl, records, until, weights, write_jsonl
from rerank_nb import evaluation, mining, records as reports, scoring, trainer
from rerank_nb.data import PairDataset
from rerank_nb.engine import Stopped
from rerank_nb.files import UserError, locked
from rerank_nb.model import CrossEncoder
from rerank_nb.tiny import tiny_model
from rerank_nb.train_reranker import main as train_main, parse_args

COMMANDS = dict(training=train_main, scoring=scoring.main, mining=mining.main, evaluation=evaluation.main)


@pytest.fixture
def place(tmp_path, monkeypatch):
    "A folder with a model, queries and a corpus, as working directory."
    monkeypatch.chdir(tmp_path)
    tiny_model('tiny', 'bert')
    binary_file('t.jsonl', 12)
    texts = sorted({d for r in read_jsonl('t.jsonl') for d in r['pos'] + r['neg']})
    write_jsonl('corpus.jsonl', [dict(text=t) for t in texts])
    return tmp_path


def words(name):
    "A small call of a command that writes into out/."
    many = dict(logging_steps=1, checkpointing_steps=2, eval_dataset='t.jsonl', metric_for_best_model='map')
    return dict(
        training=flags('tiny', 't.jsonl', 'out', **many),
        scoring=as_flags(model='tiny', dataset='t.jsonl', output='out/scored.jsonl', lines_a_part=4, max_len=32),
        mining=as_flags(dataset='t.jsonl', corpus='corpus.jsonl', embedding_model='tiny', reranker='tiny',
                        output='out/mined.jsonl', lines_a_part=4, max_len=32),
        evaluation=as_flags(model='tiny', dataset='t.jsonl', output_dir='out', baseline='tiny', max_len=32))[name]


def ends(name, *more):
    "What a command says at its end; None if all went well. Anything but its own line fails the test."
    try: COMMANDS[name]([*words(name), *more])
    except SystemExit as e:
        said = str(e.code)
        assert said.startswith('error: ') and 'Traceback' not in said and '\n' not in said, said
        return said


def whole(folder):
    "Is every file under a final name what it should be? The others have names that nobody reads."
    def hidden(name): return name.startswith('.') or name.endswith('.parts')
    for p in folder.rglob('*'):
        if p.is_dir() or any(map(hidden, p.relative_to(folder).parts)): continue
        if p.name == 'metrics.jsonl': continue   # written on to, and written anew when there is space
        if p.suffix == '.json': json.loads(p.read_text())
        if p.suffix == '.jsonl': assert p.read_text().endswith('\n') and read_jsonl(p)
        if p.suffix == '.png': assert p.read_bytes().endswith(b'IEND\xaeB`\x82'), p
        if p.name == 'model.safetensors': CrossEncoder.from_pretrained(p.parent)


@pytest.mark.parametrize('name', COMMANDS)
def test_a_limit_on_files(name, place):
    "From nothing to just too little for the largest file; then the same command finishes."
    said = []
    for size in (0, 100, 1000, 5000):
        with no_file_larger_than(size): said.append(ends(name))
        if Path('out').exists(): whole(place/'out')
        shutil.rmtree('out', ignore_errors=True)
    assert said[0] and 'could not be written: file too large' in said[0], said
    assert ends(name) is None
    whole(place/'out')


renamed = []   # while there is one, a function that hears of each rename; a hook cannot be taken away
sys.addaudithook(lambda event, args: [hears(*args[:2]) for hears in renamed] if event == 'os.rename' else None)


@pytest.mark.parametrize('name', COMMANDS)
def test_bytes_are_on_the_disk_before_they_get_their_name(name, place, monkeypatch):
    "What a loss of power needs in order to leave half of a file under a final name."
    fsync, written, seen, late = os.fsync, {}, [], []
    def synced(fd):
        fsync(fd)
        written[os.fstat(fd).st_ino] = os.fstat(fd).st_mtime_ns
    def hears(path, name):
        if '.tmp' in str(name): return   # no final name
        for p in (Path(path), *Path(path).rglob('*')):
            seen.append(p)
            if not p.is_dir() and written.get(p.stat().st_ino) != p.stat().st_mtime_ns: late.append(str(p))
    monkeypatch.setattr(os, 'fsync', synced)
    renamed.append(hears)
    try: assert ends(name) is None
    finally: renamed.clear()
    assert len(seen) > 3 and not late, late


@pytest.mark.skipif(os.geteuid() != 0, reason='mounting a small disk needs root')
@pytest.mark.slow
@pytest.mark.parametrize('name', COMMANDS)
def test_a_full_disk_at_every_size(name, place):
    "A disk of its own, from a page to one that is large enough; what one call left is there for the next."
    out = place/'out'
    out.mkdir()
    mount = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=4k', 'tmpfs', out], timeout=60)
    if mount.returncode: pytest.skip('no mount')
    try:
        for kilobytes in (4, 8, 16, 32, 64, 128, 192, 256, 384, 512, 768, 1024, 2048, 8192):
            grow = ['mount', '-o', f'remount,size={kilobytes}k', out]
            subprocess.run(grow, check=True, timeout=60)
            again = ['--overwrite_output_dir', '1'] if name == 'training' else []
            last = ends(name, *again)
            whole(out)
            if last is None and name != 'evaluation': break
        assert last is None, last
    finally: subprocess.run(['umount', '-l', out], check=True, timeout=60)


@pytest.mark.parametrize('name', COMMANDS)
def test_an_output_that_cannot_be_written(name, place):
    "Under /proc not even root can make a file, as on a disk that is mounted to be read."
    given = [str(w) for w in words(name)]
    with pytest.raises(SystemExit) as e: COMMANDS[name](['/proc/' + w if w.startswith('out') else w for w in given])
    assert 'error: ' in str(e.value) and '/proc' in str(e.value), e.value


# ---------- the folder of a run ----------

@pytest.fixture
def begin(place, monkeypatch):
    "A function that trains with something happening before a step."
    seed_step = trainer.seed_step
    def run(at=None, step=2, out='out', **kw):
        def seeds(seed, now, process):
            if at and now == step: at()
            seed_step(seed, now, process)
        monkeypatch.setattr(trainer, 'seed_step', seeds)
        usual = dict(logging_steps=1, checkpointing_steps=1, batch_size=8, save_on_epoch_end=1) | kw
        given = {k: v for k, v in usual.items() if v is not None}
        return trainer.train(parse_args(flags('tiny', 't.jsonl', out, **given)))
    return run


def die(): os.kill(os.getpid(), signal.SIGKILL)


def exit_code(f):
    "That of a fork which calls `f`; nobody hears what it prints."
    pid = os.fork()
    if not pid:
        with open(os.devnull, 'w') as nowhere: os.dup2(nowhere.fileno(), 1), os.dup2(nowhere.fileno(), 2)
        try: f()
        finally: os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_folder_that_is_removed_is_made_again(begin, place):
    history = begin(lambda: shutil.rmtree('out'))
    whole(place/'out')
    assert len(history) == history[-1]['step'] > 5
    CrossEncoder.from_pretrained('out/model')


@pytest.mark.parametrize('every', [1, 100])
def test_a_folder_that_another_run_takes_is_left_to_it(every, begin, place):
    "Seen at the next record, or where nothing but the last model is left to be written."
    held = locked(place/'out')
    def replace():
        Path('out').rename('moved')
        held.__enter__()
    kw = dict(logging_steps=every, checkpointing_steps=every, save_on_epoch_end=int(every == 1))
    with pytest.raises(UserError, match='was moved away, and another run is in the one of this name'):
        begin(replace, **kw)
    assert [p.name for p in Path('out').iterdir()] == ['.lock']
    held.__exit__(None, None, None)
    if every > 1: return
    assert sorted(p.name for p in Path('moved').glob('checkpoint_*')) == ['checkpoint_1', 'checkpoint_2']
    begin(out='moved', resume_from_checkpoint='latest')
    assert read_jsonl('moved/metrics.jsonl')[-1]['step'] > 5


def test_a_run_that_died_keeps_no_folder(begin, place):
    "Killed with its lock; the next one goes on."
    assert exit_code(lambda: begin(die, 3)) == -signal.SIGKILL and Path('out/.lock').exists()
    begin(resume_from_checkpoint='latest')
    assert not Path('out/.lock').exists() and not list(Path('out').glob('.*.tmp'))


@pytest.mark.parametrize('every', [2, None])
def test_a_run_that_died_before_its_first_checkpoint(every, begin, place, monkeypatch):
    "Its best model stands there already: with checkpoints it is made again, without them it may be all there is."
    kw = dict(eval_dataset='t.jsonl', eval_steps=1, metric_for_best_model='map', checkpointing_steps=every)
    with monkeypatch.context() as m:
        m.setattr(trainer.Run, 'checkpoint', lambda self: die())
        code = exit_code(lambda: begin(die, 2, **kw))
    assert code == -signal.SIGKILL and Path('out/best').exists()
    with pytest.raises(UserError, match='already holds a run .best.'):   # with other settings
        begin(resume_from_checkpoint='latest', **kw | dict(lr=.5))
    if every: begin(resume_from_checkpoint='latest', **kw)
    else:
        with pytest.raises(UserError, match='already holds a run .best.'): begin(resume_from_checkpoint='latest', **kw)
    assert Path('out/best').exists() and Path('out/model').exists() == bool(every)


# ---------- the data under a run ----------

OTHER = '{"query": "q", "pos": ["a"], "neg": ["b", "c", "d", "e", "f", "g", "h", "i"]}\n'


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('how', ['shorter', 'other'])
def test_data_that_changes_is_named(how, workers, begin, place):
    def change(): Path('t.jsonl').write_text('' if how == 'shorter' else OTHER*12)
    with pytest.raises(UserError, match='has the file been changed since') as e:
        begin(change, dataloader_num_workers=workers, epochs=3)
    said = str(e.value)
    assert said.startswith('t.jsonl:') and 'Traceback' not in said and '\n' not in said, said
    assert not multiprocessing.active_children()   # though `e` keeps the run's frames


@pytest.mark.parametrize('now', ['"pos": ["a"], "neg": ["bbbbb"]', '"pos": ["a","c"], "neg": ["b"]'])
@pytest.mark.parametrize('drawn', [None, 2])
def test_a_line_of_the_same_length_with_other_documents_is_named(now, drawn, tmp_path):
    "Every line still begins where it did; only how many documents there are, or how many are relevant, is another."
    was, path = '"pos": ["a"], "neg": ["b","c"]', tmp_path/'t.jsonl'
    assert len(was) == len(now)
    path.write_text(f'{{"query": "q", {was}}}\n' * 3)
    ds = PairDataset(path, negatives_per_query=drawn)
    assert len(ds[4]) == 4
    path.write_text(f'{{"query": "q", {now}}}\n' * 3)
    with pytest.raises(UserError, match='t.jsonl:2: line: found .* documents, expected those of the start'): ds[4]


def test_data_that_is_removed_is_still_read(begin, place):
    begin(lambda: os.remove('t.jsonl'))
    CrossEncoder.from_pretrained('out/model')


def test_a_worker_that_is_killed_is_named(begin, place):
    def kill():
        for p in psutil.Process().children(): p.kill()
        time.sleep(1)
    binary_file('t.jsonl', 200)
    def run():      # in a fork: torch goes on complaining of a killed worker in the process that had it
        with pytest.raises(UserError, match='a process that tokenizes ahead has been killed'):
            begin(kill, dataloader_num_workers=1)
        os._exit(0)
    assert exit_code(run) == 0 and Path('out/checkpoint_2').exists()


# ---------- bytes that turn over ----------

def test_a_byte_of_a_checkpoint(begin, place):
    "One byte of each file, at the beginning, in the middle and at the end, and each file missing."
    from rerank_nb.checkpoint import read_checkpoint
    begin()
    folder = max(Path('out').glob('checkpoint_*'))
    read_checkpoint(folder)
    for p in sorted(folder.iterdir()):
        content, tried = p.read_bytes(), 0
        for at in {0, len(content)//3, len(content)//2, len(content) - 1}:
            p.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1:])
            with pytest.raises(UserError, match='is damaged'): read_checkpoint(folder)
            tried += 1
        p.unlink()
        with pytest.raises(UserError, match='is damaged|is no checkpoint'): read_checkpoint(folder)
        p.write_bytes(content)
        assert tried
    read_checkpoint(folder)


def test_a_model_with_bytes_or_shards_missing(place):
    from transformers import AutoModelForSequenceClassification
    AutoModelForSequenceClassification.from_pretrained('tiny').save_pretrained('shards', max_shard_size='20kB')
    for p in Path('tiny').glob('*token*'): shutil.copy(p, 'shards')
    shards = sorted(Path('shards').glob('*.safetensors'))
    assert len(shards) > 1
    CrossEncoder.from_pretrained('shards')
    for folder, p in (('shards', shards[1]), ('tiny', Path('tiny/model.safetensors'))):
        content = p.read_bytes()
        cut = [None, b'', content[:-1], content[:len(content)//2]]
        broken = [*cut, b'\xff' + content[1:], content[:9] + b'\xff' + content[10:]]
        for bad in broken:
            p.unlink(missing_ok=True)
            if bad is not None: p.write_bytes(bad)
            with pytest.raises(UserError, match=folder): CrossEncoder.from_pretrained(folder)
        p.write_bytes(content)


def test_a_bit_of_the_weights_turns_over(place):
    "The checksum in the file's header tells; a file that another program has written has none, and loads."
    from safetensors.torch import load_file, save_file
    reranker = CrossEncoder.from_pretrained('tiny')
    reranker.save_pretrained('saved')
    path = Path('saved/model.safetensors')
    content, start = path.read_bytes(), 8 + int.from_bytes(path.read_bytes()[:8], 'little')
    assert start % 8 == 0
    modes = {oct(p.stat().st_mode) for p in Path('saved').iterdir() if p.is_file()}
    assert len(modes) == 1, modes
    for at in (start, (start + len(content))//2, len(content) - 1):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1:])
        with pytest.raises(UserError, match='saved/model.safetensors.*checksum'): CrossEncoder.from_pretrained('saved')
    path.write_bytes(content)
    weights = load_file(path)
    for name, w in CrossEncoder.from_pretrained('saved').model.state_dict().items(): assert weights[name].equal(w)
    save_file({k: w + 1 for k, w in weights.items()}, path, {'format': 'pt'})
    CrossEncoder.from_pretrained('saved')


# ---------- signals, clocks, trackers ----------

def test_a_terminal_that_closes(begin, place):
    "SIGHUP writes a checkpoint; behind nohup it means nothing."
    was = signal.signal(signal.SIGHUP, signal.SIG_DFL)      # these tests may run behind nohup themselves
    with pytest.raises(Stopped) as e: begin(lambda: signal.raise_signal(signal.SIGHUP))
    assert e.value.code == 129 and Path('out/checkpoint_3').exists() and not Path('out/model').exists()
    begin(resume_from_checkpoint='latest')
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try: begin(lambda: signal.raise_signal(signal.SIGHUP), out='nohup')
    finally: signal.signal(signal.SIGHUP, was)
    assert weights(Path('nohup')) == weights(Path('out')) and records(Path('nohup')) == records(Path('out'))


def test_sigterm_twice(begin, place):
    def twice():
        for _ in range(2): signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Stopped) as e: begin(twice)
    assert e.value.code == 143 and Path('out/checkpoint_3').exists()


class Gone:
    "A stream whose reader has ended."
    encoding = 'utf-8'
    def write(self, text): raise BrokenPipeError(errno.EPIPE, 'Broken pipe')
    def flush(self): raise BrokenPipeError(errno.EPIPE, 'Broken pipe')
    def isatty(self): return False


@pytest.mark.parametrize('name', COMMANDS)
def test_a_broken_pipe_costs_nothing(name, place, monkeypatch):
    for stream in ('sys.stdout', 'sys.stderr'): monkeypatch.setattr(stream, Gone())
    assert ends(name) is None
    whole(place/'out')
    result = dict(training='model/config.json', scoring='scored.jsonl', mining='mined.jsonl', evaluation='metrics.json')
    assert (place/'out'/result[name]).exists()


def test_a_parent_that_dies(begin, place):
    "Its run goes on, with nobody who reads what it prints."
    read, write = os.pipe()
    parent = os.fork()
    if not parent:
        os.close(read)
        if os.fork(): signal.pause()
        os.dup2(write, 1), os.dup2(write, 2)
        try:
            begin(lambda: os.kill(os.getppid(), signal.SIGKILL))
            Path('done').touch()
        finally: os._exit(0)
    os.close(write)
    assert os.waitstatus_to_exitcode(os.waitpid(parent, 0)[1]) == -signal.SIGKILL
    os.close(read)
    until(Path('done').exists)
    CrossEncoder.from_pretrained('out/model')


def test_a_clock_that_is_set_back(begin, place, monkeypatch):
    now = time.time
    def back():
        monkeypatch.setattr(time, 'time', lambda: now() - 10**6)
    rates = [r['pairs_per_second'] for r in begin(back) if 'loss' in r]
    assert all(0 < r < 1e6 for r in rates), rates


class Tracker:
    "One that fails, or does not come back, from its second record on."
    name = 'far_away'
    def __init__(self, fails): self.fails, self.seen = fails, []
    def log(self, values, step):
        self.seen.append(step)
        if len(self.seen) < 2: return
        if self.fails: raise ConnectionError('no route to host')
        threading.Event().wait(600)
    def finish(self): raise AssertionError('it is left out')


@pytest.mark.parametrize('fails', [True, False])
def test_a_tracker_that_fails_or_hangs(fails, begin, place, monkeypatch, capsys):
    tracker = Tracker(fails)
    monkeypatch.setattr(reports, 'PATIENCE', .2)
    def start(accelerator, *_): accelerator.trackers = [tracker]
    monkeypatch.setattr(trainer, '_start_trackers', start)
    history = begin()
    said = capsys.readouterr().out
    assert tracker.seen == [1, 2] and said.count('--log_with far_away: ') == 1, said
    assert read_jsonl('out/metrics.jsonl') == history and len(history) > 5


def test_a_tracker_that_cannot_start(begin, place, monkeypatch):
    def fails(*_, **kw): raise OSError(errno.ECONNREFUSED, 'Connection refused')
    monkeypatch.setattr(trainer.Accelerator, 'init_trackers', fails)
    with pytest.raises(UserError, match='--log_with tensorboard: could not be started: .*Connection refused'):
        begin(log_with='tensorboard')
    assert not Path('out').exists()
