from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from labkit.checks import heads
from labkit.speculative.speculator import Speculator, SpeculatorConfig
from labkit.training.batches import cut_runs, from_rows, make_batch
from labkit.training.losses import hard_loss, soft_loss


def norm(x, head, eps=1e-6, axis=-1):
    x = x * torch.rsqrt(x.pow(2).mean(axis, keepdim=True) + eps)
    return x * head["scale"] + head["shift"]


def step(state, embedded, head, a, b):
    mixed = a * state @ head["proj"].T + b * embedded @ head["token"].T
    return functional.gelu(norm(mixed, head))


def layer(state, embedded, head, a, b):
    mixed = a * state @ head["proj"].T + b * embedded @ head["token"].T
    return functional.gelu(norm(mixed - mixed.mean(-1, keepdim=True), head))


def inside(state, embedded, head, a, b):
    return a * state @ head["proj"].T + b * embedded @ head["token"].T


STEPS = {
    "a and b are exchanged": lambda s, e, h, a, b: step(s, e, h, b, a),
    "the token is missing": lambda s, e, h, a, b: step(s, e, h, a, 0),
    "a and b are missing": lambda s, e, h, a, b: step(s, e, h, 1, 1),
    "gelu is missing": lambda *x: norm(inside(*x), x[2]),
    "relu instead of gelu": lambda *x: norm(inside(*x), x[2]).relu(),
    "scale and shift are missing": lambda s, e, h, a, b: step(
        s, e, {**h, "scale": 1.0, "shift": 0.0}, a, b
    ),
    "the norm is missing": lambda *x: functional.gelu(inside(*x) * x[2]["scale"] + x[2]["shift"]),
    "norm, scale and shift are missing": lambda *x: functional.gelu(inside(*x)),
    "divides by the length": lambda *x: functional.gelu(
        inside(*x) / inside(*x).norm(dim=-1, keepdim=True) * x[2]["scale"] + x[2]["shift"]
    ),
    "as a layer norm does": layer,
    "over the places of the text": lambda *x: functional.gelu(norm(inside(*x), x[2], axis=1)),
    "gelu comes before": lambda *x: (
        functional.gelu(norm(inside(*x), {"scale": 1.0, "shift": 0.0})) * x[2]["scale"]
        + x[2]["shift"]
    ),
    "term by term": lambda *x: 2 * step(*x),
    "one state for each place, is needed": lambda *x: step(*x)[0],
    "returns nothing": lambda *x: None,
}


@pytest.mark.parametrize("says", STEPS)
def test_each_wrong_state_is_named(says):
    assert heads.head_state(step, seed=4, width=5, inner=7).right
    finding = heads.head_state(STEPS[says])
    assert not finding.right
    assert says in finding.text


MISFITS = {
    "a matrix from the left": lambda s, e, h, a, b: a * h["proj"] @ s + b * h["token"] @ e,
    "a matrix that is not turned": lambda s, e, h, a, b: s @ h["proj"],
    "a sum of two widths": lambda s, e, h, a, b: a * s @ h["proj"].T + b * e,
}


@pytest.mark.parametrize("mistake", MISFITS)
def test_shapes_that_do_not_fit_are_told_in_a_sentence(mistake):
    finding = heads.head_state(MISFITS[mistake])
    assert not finding.right
    assert "a matrix W is applied as x @ W.T" in finding.text
    assert "proj (8, 6)" in finding.text


def test_an_error_of_another_kind_is_left_to_say_itself():
    with pytest.raises(RuntimeError, match="grad"):
        heads.head_state(lambda s, *rest: s.sum().backward())


def forward(hidden, tokens, table, given, shift=1, again=False, start=True, same=False):
    many, inner = len(given), len(given[0]["proj"])
    a = 0.5 ** (0.5 / many)
    b = math.sqrt((1 - a**2) * inner / 2)
    state = hidden
    if start:
        state = hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + 1e-6) / 2**0.5
    first, out, places = state, [], hidden.shape[1]
    for i, head in enumerate(given):
        at = shift + (0 if same else i)
        state = step(first if again else state, table[tokens[:, at : at + places]], head, a, b)
        out.append(state @ head["out"].T @ table.T)
    return torch.stack(out)


def last_wrong(hidden, tokens, table, given):
    return torch.cat([forward(hidden, tokens, table, given)[:-1], torch.zeros(1, 2, 5, 11)])


FORWARDS = {
    "one token too early": lambda *x: forward(*x, shift=0),
    "every head begins from z again": lambda *x: forward(*x, again=True),
    "start is not normalised": lambda *x: forward(*x, start=False),
    "given the same token": lambda *x: forward(*x, same=True),
    "reverse order": lambda *x: forward(*x).flip(0),
    "head 3 is the first": last_wrong,
    "head 1 differs already": lambda *x: forward(*x) + 1,
    "heads, rows, places, vocabulary, is needed": lambda *x: forward(*x)[0],
}


@pytest.mark.parametrize("says", FORWARDS)
def test_each_wrong_forward_pass_is_named(says):
    assert heads.forward(forward, seed=9, heads=2, width=6).right
    finding = heads.forward(FORWARDS[says])
    assert not finding.right
    assert says in finding.text


def test_the_right_forward_pass_is_the_labs_own():
    case = heads.random_case(3, heads=3, width=8, inner=8)
    config = SpeculatorConfig(base="test", vocab_size=11, emb_dim=8, inner_dim=8, n_predict=3)
    ours = Speculator(config, case.table)
    for i, head in enumerate(case.heads):
        ours.proj[i].weight.data = head["proj"]
        ours.token[i].weight.data = head["token"]
        ours.out[i].weight.data = head["out"]
        ours.norm[i].weight.data, ours.norm[i].bias.data = head["scale"], head["shift"]
    states = ours.states(case.hidden, case.tokens[:, 1:])
    logits = torch.stack([ours.logits(i, state) for i, state in enumerate(states)])
    assert torch.allclose(logits, heads.all_logits(case), atol=1e-4)


def pick(tokens, head, places):
    return tokens[:, 2 + head : 2 + head + places]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda t, h, p: pick(t, h - 1, p), "one too early"),
        (lambda t, h, p: pick(t, h - 2, p), "two too early"),
        (lambda t, h, p: pick(functional.pad(t, (0, 1)), h + 1, p), "one too late"),
        (lambda t, h, p: pick(t, 0, p), "the same for every head"),
        (lambda t, h, p: pick(t, h, p) * (h != 2), "head 3 should predict x_{t+4}"),
        (lambda t, h, p: t, "a token a row and place"),
    ],
)
def test_each_wrong_target_is_named(wrong, says):
    assert heads.targets(pick, seed=6, heads=4, places=3).right
    finding = heads.targets(wrong)
    assert not finding.right
    assert says in finding.text


def hard(logits, targets, counted, axis=-1):
    return -logits.log_softmax(axis).gather(-1, targets[..., None])[..., 0][counted].mean()


def whole(logits, targets, counted):
    return hard(logits, targets, torch.ones_like(counted))


HARD = {
    "over the places": lambda *x: hard(*x, axis=1),
    "over the rows": lambda *x: hard(*x, axis=0),
    "do not count are in the mean": whole,
    "divided by all places": lambda z, t, c: hard(z, t, c) * c.sum() / c.numel(),
    "this is a sum": lambda z, t, c: hard(z, t, c) * c.sum(),
    "the sign is missing": lambda *x: -hard(*x),
    "in bits": lambda *x: hard(*x) / math.log(2),
    "mean probability": lambda z, t, c: z.softmax(-1).gather(-1, t[..., None])[..., 0][c].mean(),
    "a log-softmax comes first": lambda z, t, c: -z.gather(-1, t[..., None])[..., 0][c].mean(),
    "the answer is": lambda *x: 1.0,
    "one number is needed": lambda z, t, c: z,
}


@pytest.mark.parametrize("says", HARD)
def test_each_wrong_hard_loss_is_named(says):
    assert heads.hard_loss(hard, seed=8, places=6).right
    finding = heads.hard_loss(HARD[says])
    assert not finding.right
    assert says in finding.text


def soft(logits, base, counted, axis=-1):
    return -(base.softmax(axis) * logits.log_softmax(axis)).sum(-1)[counted].mean()


def entropy(base, counted):
    return soft(base, base, counted)


SOFT = {
    "are exchanged": lambda z, b, c: soft(b, z, c),
    "over the places": lambda *x: soft(*x, axis=1),
    "do not count are in the mean": lambda z, b, c: soft(z, b, torch.ones_like(c)),
    "this is a sum over places": lambda z, b, c: soft(z, b, c) * c.sum(),
    "the mean over the vocabulary": lambda z, b, c: soft(z, b, c) / 7,
    "Kullback-Leibler": lambda z, b, c: soft(z, b, c) - entropy(b, c),
    "batchmean": lambda z, b, c: functional.kl_div(
        z.log_softmax(-1), b.softmax(-1), reduction="batchmean"
    ),
    "the head is not in it": lambda z, b, c: entropy(b, c),
    "most probable token": lambda z, b, c: hard(z, b.argmax(-1), c),
    "the sign is missing": lambda *x: -soft(*x),
    "the answer is": lambda *x: 1.0,
}


@pytest.mark.parametrize("says", SOFT)
def test_each_wrong_soft_loss_is_named(says):
    assert heads.soft_loss(soft, seed=8, places=6).right
    finding = heads.soft_loss(SOFT[says])
    assert not finding.right
    assert says in finding.text


def test_the_right_losses_are_the_labs_own():
    logits, targets = torch.randn(4, 7), torch.arange(4)
    counted = torch.ones(1, 4, dtype=torch.bool)
    assert torch.allclose(
        hard_loss(logits, targets).mean(), hard(logits[None], targets[None], counted)
    )
    base = torch.randn(4, 7)
    assert torch.allclose(soft_loss(logits, base).mean(), soft(logits[None], base[None], counted))


def mark(given, lengths, places, head, first=-1, last=-2, each=1):
    at = torch.arange(places)
    begin = torch.tensor(given)[:, None] + first
    end = torch.tensor(lengths)[:, None] + last - each * head
    return (at >= begin) & (at < end)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda *x: mark(*x, first=0), "begins one too late: at the prompt's"),
        (lambda *x: mark(*x, first=-2), "begins too early"),
        (lambda *x: mark(*x, first=-9), "the whole prompt"),
        (lambda *x: mark(*x, last=-1), "ends one too late: x_{t+1+i}"),
        (lambda *x: mark(*x, last=0), "ends two too late"),
        (lambda *x: mark(*x, each=0), "the same for every head"),
        (lambda *x: mark(*x, first=0, last=-1), "begins one too late and ends one too late"),
        (lambda *x: mark(*x, first=0, last=0), "these are the answer's tokens"),
        (lambda *x: mark(*x, first=0, last=0, each=0), "for every head alike"),
        (lambda *x: ~mark(*x), "the other way round"),
        (lambda *x: mark(*x, last=-3), "for head 1, places"),
        (lambda *x: mark(*x)[:, 1:], "prompts, places, is needed"),
    ],
)
def test_each_wrong_mark_is_named(wrong, says):
    assert heads.answer_places(mark, seed=5, rows=6).right
    finding = heads.answer_places(wrong)
    assert not finding.right
    assert says in finding.text


def test_the_places_that_count_are_the_labs_own():
    sequences = from_rows([range(9), range(6)], given=[3, 2])
    batch = make_batch(sequences.tokens, cut_runs(sequences, 100), 8, heads=2)
    for head in range(2):
        marked = mark([3, 2], [9, 6], 9, head)
        for row, start in enumerate((2, 1)):
            count = int(batch.counted(head)[row].sum())
            assert torch.nonzero(marked[row])[:, 0].tolist() == list(range(start, start + count))


def phase1(hidden, tokens, table, given_heads, mean=False, each=1, shift=0):
    places = hidden.shape[1] - len(given_heads)
    logits = forward(hidden[:, :places], tokens, table, given_heads)
    everywhere = torch.ones(len(hidden), places, dtype=torch.bool)
    parts = [
        hard(logits[i], pick(tokens, each * i + shift, places), everywhere)
        for i in range(len(given_heads))
    ]
    return sum(parts) / (len(parts) if mean else 1)


def phase2(hidden, tokens, table, given_heads, given, lengths, shift=1, each=1, marked=True):
    places = hidden.shape[1] - len(given_heads)
    logits = forward(hidden[:, :places], tokens, table, given_heads)
    base, total = hidden @ table.T, 0
    for i, row in enumerate(logits):
        counted = mark(given, lengths, places, i) if marked else torch.ones(row.shape[:2]) > 0
        by = shift + each * i
        total = total + soft(row, base[:, by : by + places], counted)
    return total


def hard_phase2(hidden, tokens, table, given_heads, given, lengths):
    places = hidden.shape[1] - len(given_heads)
    logits = forward(hidden[:, :places], tokens, table, given_heads)
    return sum(
        hard(row, pick(tokens, i, places), mark(given, lengths, places, i))
        for i, row in enumerate(logits)
    )


@pytest.mark.parametrize(
    ("phase", "wrong", "says"),
    [
        (1, lambda *x: phase1(*x, mean=True), "the mean over the heads"),
        (1, lambda *x: phase1(*x, each=0), "the targets of head 1"),
        (1, lambda *x: phase1(*x, shift=-1), "one place too early"),
        (1, lambda *x: 1.0, "the answer is"),
        (2, lambda *x: phase2(*x) / 3, "the mean over the heads"),
        (2, lambda *x: phase2(*x, each=0), "the targets of head 1"),
        (2, lambda *x: phase2(*x, shift=0), "is at z_{t+i}"),
        (2, lambda *x: phase2(*x, marked=False), "all places count"),
        (2, hard_phase2, "this is the hard loss"),
        (2, lambda *x: None, "returns nothing"),
    ],
)
def test_each_wrong_loss_of_a_phase_is_named(phase, wrong, says):
    assert heads.phase_loss(phase1, 1, seed=3, heads=2).right
    assert heads.phase_loss(phase2, 2, seed=3, heads=2).right
    finding = heads.phase_loss(wrong, phase)
    assert not finding.right
    assert says in finding.text
