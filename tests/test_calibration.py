"Calibrated scores are the same wherever the folder is read, for every kind of head."
import json
import numpy as np, pytest, torch
from helpers import as_flags, binary_file, graded_file
from rerank_nb.calibration import calibrate, main, measure
from rerank_nb.data import open_pairs
from rerank_nb.model import CrossEncoder, scoring_layer
from rerank_nb.tiny import tiny_model

PAIRS = [['列出文件', 'ls lists files'], ['fox', 'a lazy dog jumps'], ['泰山', '坐索道上山']]


@pytest.mark.parametrize('kind', ['bert', 'xlm-roberta', 'modernbert'])
def test_every_head_gives_calibrated_logits(kind, tmp_path):
    data, folder = binary_file(tmp_path/'dev.jsonl', 12), tiny_model(tmp_path/kind, kind)
    model = CrossEncoder.from_pretrained(folder)
    before = model.compute_score(PAIRS, max_len=64)
    found = calibrate(model, measure(model, open_pairs(data), max_len=64))
    assert found['bias']
    saved = CrossEncoder.from_pretrained(model.save_pretrained(tmp_path/'saved'))
    wanted = before / found['temperature'] + found['bias']
    assert torch.allclose(saved.compute_score(PAIRS, max_len=64), wanted, atol=1e-6, rtol=1e-5)
    record = json.loads((tmp_path/'saved/config.json').read_text())['rerank_nb']['calibrated']
    assert record['temperature'] == found['temperature'] and record['bias'] == found['bias']


def test_where_the_layer_has_no_bias_the_temperature_alone_is_fitted(tmp_path, tiny):
    "As in decoders."
    model = CrossEncoder.from_pretrained(tiny['bert'])
    scoring_layer(model.model).bias = None
    m = measure(model, open_pairs(binary_file(tmp_path/'dev.jsonl', 12)), max_len=64)
    found = calibrate(model, m)
    after = measure(model, open_pairs(tmp_path/'dev.jsonl'), max_len=64).logits
    assert found['bias'] == 0 and found['temperature'] != 1
    assert np.allclose(after, m.logits / found['temperature'], atol=1e-6)


def test_sentence_transformers_gives_the_probabilities(tmp_path, tiny):
    from sentence_transformers import CrossEncoder as Theirs
    data = graded_file(tmp_path/'dev.tsv', 12)
    main(as_flags(model=tiny['bert'], dataset=data, output_dir=tmp_path/'out', max_len=64, precision=.5))
    theirs = Theirs(str(tmp_path/'out/model'), device='cpu', max_length=64).predict(PAIRS)
    ours = CrossEncoder.from_pretrained(tmp_path/'out/model').compute_score(PAIRS, max_len=64, probabilities=True)
    assert np.abs(theirs - ours.numpy()).max() < 1e-5
    untouched = CrossEncoder.from_pretrained(tiny['bert']).compute_score(PAIRS, max_len=64, probabilities=True)
    assert (untouched - ours).abs().max() > 1e-3
    told = json.loads((tmp_path/'out/calibration.json').read_text())
    assert told['ece_after'] < told['ece_before'] and told['pairs'] == 48


def test_an_output_that_cannot_be_is_refused_before_a_model_is_looked_for(tmp_path, binary):
    (tmp_path/'file').touch()
    with pytest.raises(SystemExit, match='is no folder'):
        main(as_flags(model='no/model', dataset=binary[1], output_dir=tmp_path/'file/x'))


def test_labels_may_be_any_numbers(tmp_path):
    "Lines with a number for each document; a grade's target is where it lies between the lowest and the highest."
    folder, data, labels = tiny_model(tmp_path/'m', 'bert'), tmp_path/'dev.jsonl', (0, 4, 2)
    lines = [dict(query=q, content=d, label=y) for q in 'abcd' for d, y in zip(('ls', 'fox', 'bread'), labels)]
    data.write_text(''.join(json.dumps(l) + '\n' for l in lines))
    main(as_flags(model=folder, dataset=data, output_dir=tmp_path/'out', max_label=4, max_len=64))
    told = json.loads((tmp_path/'out/calibration.json').read_text())
    probs = CrossEncoder.from_pretrained(tmp_path/'out/model').compute_score(
        [[l['query'], l['content']] for l in lines], max_len=64).sigmoid()
    assert told['pairs'] == 12 and probs.mean() == pytest.approx(np.mean(labels)/4, abs=.02)
