"""Write what an earlier commit leaves behind, for tests/test_older.py: runs and jobs that were cut off and a saved model,
packed into left.zip; in expected.json stands what that commit made of them when nothing cut them off.

    git worktree add --detach /tmp/older e9278a9
    PYTHONPATH=/tmp/older python tests/older/make.py

All names are relative, so no path of a machine is in a file. Pictures are left out.
"""
import contextlib, io, json, os, shutil, sys, tempfile, zipfile
from pathlib import Path

os.environ |= {'ACCELERATE_USE_CPU': '1', 'HF_HUB_OFFLINE': '1', 'TOKENIZERS_PARALLELISM': 'false'}
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from helpers import as_flags, binary_file, graded_file, read_jsonl, write_jsonl
from rerank_nb import mining, scoring, trainer
from rerank_nb.model import CrossEncoder
from rerank_nb.tiny import tiny_model

SMALL = dict(hidden_size=8, embedding_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
             max_len=64, hidden_dropout_prob=0., attention_probs_dropout_prob=0., initializer_range=1.)
USUAL = dict(model_name_or_path='base', dataset='train.jsonl', eval_dataset='dev.jsonl', batch_size=8, epochs=2,
             lr=1e-2, max_len=32, logging_steps=1, checkpointing_steps=3, num_max_checkpoints=1,
             mixed_precision='no', save_on_epoch_end=False)
RUNS = {   # a folder, and the settings of the run in it
    'pairs': USUAL | dict(loss_type='classfication', negatives_per_query=2),
    'lists': USUAL | dict(loss_type='ce', gradient_accumulation_steps=2, label2id='{"yes": 1, "no": 0}'),
    'grades': USUAL | dict(loss_type='regression', dataset='train.tsv', eval_dataset='dev.tsv', batch_size=16,
                           label2id='{"3": 1, "2": 0.5, "1": 0.25, "0": 0}')}
CUT = 5   # steps of each run; its checkpoint stands at step 3
FIND = dict(dataset='train.jsonl', corpus='corpus.jsonl', negatives=3, depth=8, lines_a_part=4)
JOBS = {   # a file, and the module and the flags that write it
    'scored.jsonl': ('scoring', as_flags(model='saved', dataset='train.jsonl', max_len=32, lines_a_part=4)),
    'graded.jsonl': ('scoring', as_flags(model='saved', dataset='train.tsv', max_len=32, lines_a_part=4)),
    'mined.jsonl': ('mining', [*as_flags(reranker='saved', max_len=32, margin=.5, **FIND), '--reasons']),
    'near.jsonl': ('mining', as_flags(embedding_model='saved', **FIND))}
PAIRS = [['fox', 'lazy fox'], ['list files', 'bread dough'], ['我喜欢中国', '我喜欢美国'], ['', 'dog']]


class CutOff(Exception): "What stops a run or a job in the middle."


@contextlib.contextmanager
def cut_off(module, name, here):
    "The function of this name in a module raises where `here(*args)` is true; the folder stays as it is then."
    f = getattr(module, name)
    def cut(*args, **kw):
        if here(*args): raise CutOff
        return f(*args, **kw)
    setattr(module, name, cut)
    try: yield
    except CutOff: pass
    finally: setattr(module, name, f)


def train(settings, folder): return trainer.train(trainer.TrainConfig(output_dir=str(folder), **settings))


def make_run(name, settings, whole):
    "A run that is cut off, in its folder; the records of the same run as a whole, and the scores of its model."
    history = train(settings, whole/name)
    with cut_off(trainer, 'seed_step', lambda seed, step, process: step == CUT): train(settings, name)
    model = CrossEncoder.from_pretrained(whole/name/'model')
    scores = model.compute_score(PAIRS, max_len=32, progress=False)
    return dict(flags=as_flags(**settings), history=history, scores=scores.tolist())


def make_job(name, module, words, whole):
    "A job that is cut off in its third part; the lines of the whole job."
    main = dict(scoring=scoring, mining=mining)[module].main
    main([*words, '--output', str(whole/name)])
    def is_third(path, *_): return Path(path).name == '00000002.jsonl'
    with cut_off(scoring, 'atomic_file', is_third): main([*words, '--output', name])
    return dict(module=module, words=words, lines=read_jsonl(whole/name))


def make_data():
    tiny_model('base', 'bert', **SMALL)
    rows = read_jsonl(binary_file('train.jsonl', 16))
    binary_file('dev.jsonl', 4, seed=1)
    graded_file('train.tsv', 16)
    graded_file('dev.tsv', 4, seed=1)
    texts = dict.fromkeys(d for r in rows for d in r['pos'] + r['neg'])
    write_jsonl('corpus.jsonl', [dict(text=t) for t in texts])


def pack(folder, target):
    "All files below a folder, but for locks and pictures."
    files = [p for p in sorted(folder.rglob('*')) if p.is_file() and p.name != '.lock' and p.suffix != '.png']
    with zipfile.ZipFile(target, 'w', zipfile.ZIP_DEFLATED, compresslevel=9) as z:
        for p in files: z.write(p, p.relative_to(folder))


def main():
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(io.StringIO()):
        left, whole = Path(scratch)/'left', Path(scratch)/'whole'
        left.mkdir()
        os.chdir(left)
        make_data()
        runs = {name: make_run(name, settings, whole) for name, settings in RUNS.items()}
        shutil.copytree(whole/'pairs/model', 'saved')
        jobs = {name: make_job(name, *job, whole) for name, job in JOBS.items()}
        pack(left, HERE/'left.zip')
        os.chdir(HERE)
    expected = json.dumps(dict(pairs=PAIRS, runs=runs, jobs=jobs), indent=1, ensure_ascii=False)
    (HERE/'expected.json').write_text(expected + '\n', encoding='utf-8')


if __name__ == '__main__': main()
