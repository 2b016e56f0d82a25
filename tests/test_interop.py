"A saved folder in other hands: sentence-transformers gives the same logits."
import pytest, torch
from rerank_nb.losses import bce, get_loss, logit_mse, margin_mse
from rerank_nb.model import CrossEncoder

PAIRS = [['我喜欢中国', '我喜欢中国'], ['我喜欢美国', '我一点都不喜欢美国'],
         ['how do i list files', 'use the command ls ' * 60], ['', '']]


def their_logits(model, pairs, **kw): return model.predict(pairs, activation_fn=torch.nn.Identity(), **kw)


def their_model(folder):
    from sentence_transformers.cross_encoder import CrossEncoder as Theirs
    return Theirs(folder, num_labels=1, max_length=64, device='cpu').eval()


@pytest.mark.parametrize('kind', ['bert', 'xlm-roberta'])
def test_sentence_transformers(kind, tiny, tmp_path):
    from sentence_transformers import CrossEncoder as Theirs
    ours = CrossEncoder.from_pretrained(tiny[kind])
    theirs = Theirs(ours.save_pretrained(tmp_path/'saved'), device='cpu')
    assert theirs.max_length in (None, 128) and theirs.tokenizer.model_max_length == 128
    logits, scores = torch.as_tensor(their_logits(theirs, PAIRS)), ours.compute_score(PAIRS, max_len=128)
    assert torch.allclose(logits, scores, atol=1e-5), (logits, scores)
    docs = [d for _, d in PAIRS]
    a, b = theirs.rank('list', docs), ours.rank('list', docs)
    assert [r['corpus_id'] for r in a] == [r['corpus_id'] for r in b]
    assert b[0]['score'] == pytest.approx(float(a[0]['score']), abs=1e-5)


def test_a_folder_saved_by_sentence_transformers_loads_here(tiny, tmp_path):
    from sentence_transformers import CrossEncoder as Theirs
    theirs = Theirs(tiny['bert'], num_labels=1, device='cpu')
    theirs.save_pretrained(str(tmp_path/'st'))
    logits = torch.as_tensor(their_logits(theirs, PAIRS))
    scores = CrossEncoder.from_pretrained(tmp_path/'st').compute_score(PAIRS, max_len=128)
    assert torch.allclose(logits, scores, atol=1e-5)


@pytest.mark.parametrize('name,theirs', [
    ('listnet', 'ListNetLoss'), ('listmle', 'ListMLELoss'), ('ranknet', 'RankNetLoss'), ('lambda', 'LambdaLoss')])
def test_losses_are_those_of_sentence_transformers(name, theirs, tiny):
    """One query a call, since their losses average over the pairs of a batch; grades without ties, since theirs lets
    the input order decide on ties."""
    from sentence_transformers.cross_encoder import losses
    model = their_model(tiny['bert'])
    kw = dict(respect_input_order=False) if name == 'listmle' else {}
    loss = getattr(losses, theirs)(model, **kw)
    docs = ['the fox', 'bread dough', 'list files', 'the lazy dog jumps']
    for query, grades in (('fox', [.25, 1., .5, .75]), ('list', [.75, .25, 1., .5])):
        logits = their_logits(model, [(query, d) for d in docs], convert_to_tensor=True)
        with torch.no_grad(): expected = loss([[query], [docs]], [torch.tensor(grades)])
        got = get_loss(name)(logits, torch.tensor(grades), torch.zeros(4, dtype=torch.long))
        assert torch.allclose(got, expected, rtol=1e-4, atol=1e-5), (name, got, expected)


def test_pointwise_and_teacher_losses_are_theirs(tiny):
    "Binary cross-entropy and squared error over pairs, and margin MSE with one negative, where both mean the same."
    from sentence_transformers.cross_encoder import losses
    model = their_model(tiny['bert'])
    queries, good, bad = ['fox', 'list'], ['the fox', 'list files'], ['bread dough', 'the lazy dog']
    x, y = (their_logits(model, list(zip(queries, docs)), convert_to_tensor=True) for docs in (good, bad))
    labels = torch.tensor([1., 0.])
    teacher = torch.tensor([4., -1.])   # of the good one above the bad one
    with torch.no_grad():
        pointwise = losses.BinaryCrossEntropyLoss(model)([queries, good], labels)
        squares = losses.MSELoss(model)([queries, good], teacher)
        margins = losses.MarginMSELoss(model)([queries, good, bad], teacher)
    assert torch.allclose(bce(x, labels, torch.arange(2)).mean(), pointwise, atol=1e-6)
    assert torch.allclose(logit_mse(x, teacher).mean(), squares, atol=1e-5)
    lists = torch.tensor([0, 1, 0, 1])
    got = margin_mse(torch.cat([x, y]), torch.cat([teacher, torch.zeros(2)]), lists).mean()
    assert torch.allclose(got, margins, atol=1e-5)
