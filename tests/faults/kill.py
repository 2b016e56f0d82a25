"""Kill tiny runs with SIGKILL again and again, let each go on, and compare what they leave with a run never killed:
records, and the weights of every kept folder, to the last bit.

    python tests/faults/kill.py --n 200 --processes 1 2

Half of the kills come at a random time, half at a random system call of a kind drawn before (a rename, a write, ...),
which needs strace. All processes are forks of this one, which has imported everything, so that a run takes a second.
"""
import argparse, collections, os, random, re, shutil, signal, socket, subprocess, sys, tempfile, time
from pathlib import Path
sys.path[:0] = [str(Path(__file__).resolve().parents[i]) for i in (2, 1)]
import torch.distributed.fsdp
from helpers import ROOT, binary_file, flags, records, weights
from rerank_nb import trainer
from rerank_nb.engine import launch_environment
from rerank_nb.tiny import tiny_model
from rerank_nb.train_reranker import parse_args

KINDS = ('rename', 'unlink,unlinkat,rmdir', 'mkdir', 'write,pwrite64', 'openat', 'ftruncate,lseek',
         'fsync,fdatasync')
FILES = ','.join(KINDS)
LIMIT = 300   # seconds for a run


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


class Runs:
    "Tiny runs in a folder, in so many processes."
    def __init__(self, folder, processes=1, seed=0):
        self.folder, self.n, self.rng = Path(folder), processes, random.Random(seed)
        self.kills = collections.Counter()
        model, data = tiny_model(self.folder/'tiny', 'bert'), binary_file(self.folder/'t.jsonl', 20)
        dev = binary_file(self.folder/'d.jsonl', 5, seed=1)
        usual = dict(epochs=2, batch_size=16 // processes, eval_dataset=dev, eval_steps=2, logging_steps=1,
                     checkpointing_steps=2, negatives_per_query=2, metric_for_best_model='map', mixed_precision='no',
                     resume_from_checkpoint='latest', max_len=32)
        self.words = lambda out: flags(model, data, out, **usual)
        self.seconds = self.time_whole()

    def env(self, rank, port):
        alone = dict(ACCELERATE_USE_CPU='true', GLOO_SOCKET_IFNAME='lo')
        if self.n == 1: return alone
        of_group = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=self.n, LOCAL_WORLD_SIZE=self.n,
                        MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
        fsdp = launch_environment(ROOT/'config/default_fsdp.yaml', '--num_processes', str(self.n))
        return fsdp | alone | {k: str(v) for k, v in of_group.items()}

    def child(self, rank, port, out, wait=None):
        "One process of a run, which waits for a byte in a pipe if there is one; never returns."
        code = 1
        try:
            with open(self.folder/'log.txt', 'a') as log: os.dup2(log.fileno(), 1), os.dup2(log.fileno(), 2)
            os.environ.update(self.env(rank, port))
            if wait: os.read(wait, 1)
            trainer.train(parse_args(self.words(out)))
            code = 0
        except BaseException as e: print(f'{type(e).__name__}: {e}', flush=True)
        finally: os._exit(code)   # nothing that was to happen at the end of the parent

    def start(self, out, halted=None, wait=None):
        "Process ids of a run; the one of rank `halted` waits for a byte in the pipe `wait`."
        port, pids = free_port(), []
        for rank in range(self.n):
            pid = os.fork()
            if not pid: self.child(rank, port, out, wait if rank == halted else None)
            pids.append(pid)
        return pids

    def time_whole(self):
        start = time.monotonic()
        codes = self.wait(self.start(self.folder/'whole'))
        assert not any(codes), (self.folder/'log.txt').read_text()
        return time.monotonic() - start

    def wait(self, pids, seconds=LIMIT):
        "Exit codes; after so many seconds, or when one has failed, the others are killed."
        end, codes = time.monotonic() + seconds, {}
        while len(codes) < len(pids) and time.monotonic() < end and not any(codes.values()):
            for pid in {*pids} - {*codes}:
                found, status = os.waitpid(pid, os.WNOHANG)
                if found: codes[pid] = os.waitstatus_to_exitcode(status)
            time.sleep(.002)
        for pid in {*pids} - {*codes}:
            os.kill(pid, signal.SIGKILL)
            codes[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return [codes[pid] for pid in pids]

    def kill_by_time(self, out):
        "A run that is killed after some time, if it has not ended by then: its exit codes."
        codes = self.wait(self.start(out), self.rng.uniform(0, 1.2 * self.seconds))
        if any(codes): self.kills['time'] += 1
        return codes

    def traced(self, out, *options):
        "A run of which one process is traced: its exit codes, and what strace says."
        rank, (wait, go) = self.rng.randrange(self.n), os.pipe()
        pids = self.start(out, rank, wait)
        said = self.folder/'strace.txt'
        strace = subprocess.Popen(['strace', '-f', '-p', str(pids[rank]), '-o', said, *options], stderr=subprocess.PIPE)
        strace.stderr.readline()   # attached
        os.write(go, b'.')
        codes = self.wait(pids)
        for end in (wait, go): os.close(end)
        strace.communicate(timeout=60)
        return codes, said.read_text()

    def count_calls(self):
        "How many system calls of each kind the main thread of a whole run makes."
        codes, said = self.traced(self.folder/'counted', '-e', f'trace={FILES}')
        assert not any(codes), said[-1000:]
        first = said.split(maxsplit=1)[0]
        names = collections.Counter(re.findall(rf'^{first} +(\w+)\(', said, re.M))
        return {kind: sum(names[k] for k in kind.split(',')) for kind in KINDS}

    def kill_by_call(self, out):
        "A run that is killed at a system call, if it makes so many: its exit codes."
        if not hasattr(self, 'calls'): self.calls = self.count_calls()
        kind = self.rng.choice([k for k in KINDS if self.calls[k]])
        when = self.rng.randint(1, self.calls[kind])
        codes, _ = self.traced(out, '-e', f'trace={kind}', '-e', f'inject={kind}:signal=KILL:when={when}')
        if any(codes): self.kills[kind.split(',')[0]] += 1
        return codes

    def check(self, out):
        "The records and weights of a run are those of the one that was never killed, and nothing else is left."
        whole = self.folder/'whole'
        assert records(out) == records(whole), 'other records'
        for name in ('model', 'best', 'epoch_1', 'epoch_2'): assert weights(out, name) == weights(whole, name), name
        assert {p.name for p in out.iterdir()} == {p.name for p in whole.iterdir()}, sorted(out.iterdir())

    def chain(self, ways, most):
        "One run, killed at most so often, until it is done; then it is compared."
        out = self.folder/f'run_{sum(self.kills.values())}'
        while sum(self.kills.values()) < most and any(self.rng.choice(ways)(out)): pass
        codes = self.wait(self.start(out))   # once more after its end changes nothing
        assert not any(codes), (self.folder/'log.txt').read_text()[-3000:]
        self.check(out)
        shutil.rmtree(out)


def kill_often(folder, n, processes=1, seed=0):
    "So many kills: how many of each way, in how many runs, and the seconds they took."
    runs, start, chains = Runs(folder, processes, seed), time.monotonic(), 0
    ways = [runs.kill_by_time] + [runs.kill_by_call]*bool(shutil.which('strace'))
    while sum(runs.kills.values()) < n:
        runs.chain(ways, n)
        chains += 1
    return runs.kills, chains, time.monotonic() - start


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--n', type=int, default=200, help='kills')
    parser.add_argument('--processes', type=int, nargs='+', default=[1, 2])
    parser.add_argument('--seed', type=int, default=0)
    given = parser.parse_args()
    if not shutil.which('strace'): print('no strace: all kills come at a random time')
    for n in given.processes:
        share = given.n // len(given.processes)
        with tempfile.TemporaryDirectory() as folder:
            kills, chains, seconds = kill_often(folder, share, n, given.seed)
        ways = ', '.join(f'{way} {k}' for way, k in sorted(kills.items()))
        print(f'{n} processes: {sum(kills.values())} kills ({ways}) of {chains} runs in {seconds:.0f} s; all equal',
              flush=True)
