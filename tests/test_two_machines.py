"""Two machines: two network namespaces joined by a virtual cable, each with its own launcher. They share the disk, as
machines of a cluster do."""
import os, subprocess
import pytest
from helpers import ACCELERATE, ROOT, as_flags, binary_file, command, env, finished, flags, records, run, weights
from rerank_nb.tiny import tiny_model

IP = ['10.77.0.1', '10.77.0.2']


def sh(*words): subprocess.run(['ip', *words], check=True, capture_output=True, timeout=60)


@pytest.fixture
def machines():
    "The start of a command line on each machine."
    names = [f'rerank{os.getpid()}{x}' for x in 'ab']
    try:
        for n in names: sh('netns', 'add', n)
    except (OSError, subprocess.CalledProcessError) as e:
        pytest.skip(f'network namespaces cannot be made here (root and iproute2 are needed): {e}')
    try:
        sh('link', 'add', 'veth0', 'netns', names[0], 'type', 'veth', 'peer', 'name', 'veth0', 'netns', names[1])
        for n, ip in zip(names, IP):
            sh('-n', n, 'addr', 'add', f'{ip}/24', 'dev', 'veth0')
            for dev in ('lo', 'veth0'): sh('-n', n, 'link', 'set', dev, 'up')
        yield [['ip', 'netns', 'exec', n] for n in names]
    finally:
        for n in names: subprocess.run(['ip', 'netns', 'del', n], capture_output=True, timeout=60)


def launch_words(rank, restarts):
    "The launcher's command line on one machine, as the comment of config/multi_node_fsdp.yaml says."
    same = dict(config_file='config/multi_node_fsdp.yaml', fsdp_transformer_layer_cls_to_wrap='BertLayer',
                num_machines=2, num_processes=2, main_process_ip=IP[0], main_process_port=29500)
    own = dict(machine_rank=rank, rdzv_conf=f'is_host={1 - rank}', max_restarts=restarts)
    return [*ACCELERATE, *as_flags(**same, **own)]


def both(machines, words, cut=None, once=None, restarts=0):
    "Launch on both machines; return the finished processes."
    ps, accident = [], {'CUT_ONCE': str(once)} if once else {}
    for rank, (inside, ip) in enumerate(zip(machines, IP)):
        e = env(cut, GLOO_SOCKET_IFNAME='veth0', PET_LOCAL_ADDR=ip, TORCH_DISABLE_SHARE_RDZV_TCP_STORE='1', **accident)
        line = [*inside, *launch_words(rank, restarts), 'tests/cut.py', *words]
        ps.append(subprocess.Popen(line, cwd=ROOT, env=e, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    for p in ps:
        try: p.out, p.err = p.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            for q in ps: q.kill()
            raise
    return ps


@pytest.mark.slow
def test_two_machines_equal_one_and_survive_a_kill(machines, tmp_path):
    model = tiny_model(tmp_path/'tiny', 'bert')
    data, dev = binary_file(tmp_path/'t.jsonl', 41), binary_file(tmp_path/'d.jsonl', 6, seed=1)
    usual = dict(batch_size=8, epochs=3, eval_dataset=dev, logging_steps=2, checkpointing_steps=4,
                 negatives_per_query=2, mixed_precision='no', resume_from_checkpoint='latest', ddp_timeout=60)
    def words(out): return flags(model, data, out, **usual)
    one = tmp_path/'one'
    finished(run(*command(2), *words(one), env=env()), one)
    two = tmp_path/'two'
    for p in both(machines, words(two)): assert p.returncode == 0, p.out + p.err
    assert records(two) == records(one) and weights(two) == weights(one)   # the same two processes, on two machines
    hurt = tmp_path/'hurt'
    ps = both(machines, words(hurt), cut='kill:14:1', once=tmp_path/'cut', restarts=2)
    for p in ps: assert p.returncode == 0, p.out + p.err
    assert (tmp_path/'cut').exists() and any('going on from' in p.out for p in ps)
    assert records(hurt) == records(one) and weights(hurt) == weights(one)
