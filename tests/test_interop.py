"A saved folder in other hands: sentence-transformers gives the same logits."
import pytest, torch
from rerank_nb.model import CrossEncoder

PAIRS = [['我喜欢中国', '我喜欢中国'], ['我喜欢美国', '我一点都不喜欢美国'], ['how do i list files', 'use the command ls ' * 60], ['', '']]


@pytest.mark.parametrize('kind', ['bert', 'xlm-roberta'])
def test_sentence_transformers(kind, tiny, tmp_path):
    from sentence_transformers import CrossEncoder as Theirs
    ours = CrossEncoder.from_pretrained(tiny[kind])
    theirs = Theirs(ours.save_pretrained(tmp_path/'saved'), device='cpu')
    assert theirs.max_length in (None, 128) and theirs.tokenizer.model_max_length == 128
    logits = torch.as_tensor(theirs.predict(PAIRS, activation_fn=torch.nn.Identity()))
    assert torch.allclose(logits, ours.compute_score(PAIRS, max_len=128), atol=1e-5), (logits, ours.compute_score(PAIRS))
    docs = [d for _, d in PAIRS]
    a, b = theirs.rank('list', docs), ours.rank('list', docs)
    assert [r['corpus_id'] for r in a] == [r['corpus_id'] for r in b]
    assert b[0]['score'] == pytest.approx(float(a[0]['score']), abs=1e-5)


def test_a_folder_saved_by_sentence_transformers_loads_here(tiny, tmp_path):
    from sentence_transformers import CrossEncoder as Theirs
    theirs = Theirs(tiny['bert'], num_labels=1, device='cpu')
    theirs.save_pretrained(str(tmp_path/'st'))
    logits = torch.as_tensor(theirs.predict(PAIRS, activation_fn=torch.nn.Identity()))
    assert torch.allclose(logits, CrossEncoder.from_pretrained(tmp_path/'st').compute_score(PAIRS, max_len=128), atol=1e-5)
