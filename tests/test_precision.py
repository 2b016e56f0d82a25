"bf16 under FSDP: the layers compute in it; scores, and sums of gradients, are float32."
import json, re
from helpers import ACCELERATE, as_flags, env, run


def test_as_many_scores_as_documents(tiny):
    launch = as_flags(config_file='config/cpu_fsdp.yaml', num_processes=2)
    p = run(*ACCELERATE, *launch, 'tests/precision.py', tiny['bert'], env=env())
    said = [json.loads(s) for s in re.findall(r'said (\{.*?\})', p.stdout)]   # two processes may share a line
    assert len(said) == 2, p.stdout + p.stderr
    for s in said:
        assert s['engine'].endswith('FSDP') and s['layers'] == ['torch.bfloat16']   # what was asked for
        assert s['logits'] == 'torch.float32' and s['summed'] == s['gradients'] == ['torch.float32']
        assert s['distinct'] == 1000   # in bf16 they were 635
    main = max(said, key=lambda s: s['exact'])   # in others there may be no weights before they are shared out
    assert main['exact'] == 1000 and main['off'] < .15 * main['spread']
