"""The checks of the exercises on training: the right answer passes, each mistake is named."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from labkit.checks import measures as exercises
from labkit.training.batches import learning_rate_at
from labkit.training.losses import chain_tokens_per_step
from labkit.training.recipe import Schedule

np.seterr(over="raise")


def softmax(logits):
    weights = np.exp(logits)
    return weights / weights.sum()


def log_softmax(logits):
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda tokens, i: tokens[1 + i :], "Right"),
        (lambda tokens, i: np.array(tokens)[1 + i :], "Right"),
        (lambda tokens, i: [tokens[t + 1 + i] for t in range(len(tokens) - 1 - i)], "Right"),
        (lambda tokens, i: tokens[i:], "one place too early"),
        (lambda tokens, i: tokens[2 + i :], "one place too far"),
        (lambda tokens, i: [tokens[t + 1 + i] for t in range(len(tokens) - 4)], "as many places"),
        (lambda tokens, i: tokens[2:], "the same targets"),
        (lambda tokens, i: tokens[: -1 - i], "tokens at the places"),
        (lambda tokens, i: tokens[::-1], "should get"),
        (
            lambda tokens, i: tokens[1 + i :] + [None] * (1 + i),
            "head 1 gets None where there",
        ),
        (lambda tokens, i: 3, "a list is needed"),
        (lambda tokens, i: ..., "returns nothing"),
    ],
)
def test_targets(answer, says):
    found = exercises.head_targets(answer)
    assert says in repr(found)
    assert found.right == (says == "Right")


def ours(step, steps, peak, warm, last):
    plan = Schedule(
        steps=steps,
        rows=1,
        window=1,
        learning_rate=peak,
        warmup_share=warm,
        final_share=last,
    )
    return learning_rate_at(step, plan)


def half_cosine(done):
    return (1 + math.cos(math.pi * done)) / 2


def few_steps(first):
    """A schedule that takes the share of the warm-up for a number of steps."""

    def rate(step, steps, peak, warmup, last):
        if step < warmup:
            return peak * (step + first) / warmup
        done = (step - warmup) / (steps - warmup)
        return peak * (last + (1 - last) * half_cosine(done))

    return rate


def in_rates(step, steps, peak, warmup, last):
    """A schedule that takes the last share of the peak for a rate."""
    return changed(floor=last / peak)(step, steps, peak, warmup, last)


def changed(floor=None, warm=None, shape=half_cosine, whole=False):
    def rate(step, steps, peak, warm_share, last):
        start = round((warm_share if warm is None else warm) * steps)
        least = last if floor is None else floor
        if step < start and not whole:
            return peak * (step + 1) / start
        done = step / steps if whole else (step - start) / (steps - start)
        rise = min(1, (step + 1) / start) if whole else 1
        return peak * rise * (least + (1 - least) * shape(done))

    return rate


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (ours, "Right"),
        (changed(), "Right"),
        (changed(floor=0.0), "falls to 0"),
        (changed(warm=0.0), "warm up first"),
        (changed(shape=lambda done: 1 - done), "straight line: take"),
        (changed(shape=lambda done: 1 - half_cosine(done)), "upside down"),
        (changed(shape=lambda done: 2 * half_cosine(done)), "half is forgotten"),
        (few_steps(0), "`warmup` is taken as a number of steps"),
        (few_steps(1), "`warmup` is taken as a number of steps"),
        (in_rates, "`last` is taken as a rate"),
        (changed(whole=True), "begins where the warm-up ends"),
        (lambda step, steps, peak, *rest: ours(step, steps, 1.0, *rest), "peak is left out"),
        (lambda step, steps, peak, warm, last: peak, "step 0 has 2, and should have 0.1"),
        (lambda *given: "fast", "a number is needed"),
        (lambda *given: None, "returns nothing"),
    ],
)
def test_the_learning_rate(answer, says):
    found = exercises.learning_rate(answer)
    assert says in repr(found)
    assert found.right == (says == "Right")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda p, logits: -(p * log_softmax(logits)).sum(), "Right"),
        (lambda p, logits: (p * log_softmax(logits)).sum(), "sign"),
        (lambda p, logits: -(p * log_softmax(logits)).mean(), "mean over the vocabulary"),
        (lambda p, logits: -log_softmax(logits)[p.argmax()], "hard label"),
        (lambda p, logits: -(softmax(logits - logits.max()) * np.log(p)).sum(), "are exchanged"),
        (lambda p, logits: (p * (np.log(p) - log_softmax(logits))).sum(), "divergence"),
        (lambda p, logits: -(p * logits).sum(), "no logarithms"),
        (lambda p, logits: -(p * log_softmax(logits)).sum() / math.log(2), "in bits"),
        (lambda p, logits: -(p * softmax(logits - logits.max())).sum(), "logarithm is forgotten"),
        (lambda p, logits: -p * log_softmax(logits), "one number is needed"),
        (lambda p, logits: 0.0, "the answer is"),
        (lambda p, logits: ..., "returns nothing"),
    ],
)
def test_soft_labels(answer, says):
    found = exercises.soft_labels(answer)
    assert says in repr(found)
    assert found.right == (says == "Right")


def test_an_overflow_of_large_logits_is_seen():
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        found = exercises.soft_labels(lambda p, logits: -(p * np.log(softmax(logits))).sum())
    assert not found.right
    assert "subtract the greatest logit" in found.text


def walk(right):
    place = steps = 0
    while place < len(right):
        leading = 0
        while leading < right.shape[1] and right[place, leading]:
            leading += 1
        place, steps = place + 1 + leading, steps + 1
    return place / steps


def walk_all(right):
    place = steps = 0
    while place < len(right):
        place, steps = place + 1 + right[place].sum(), steps + 1
    return place / steps


def leading(right):
    return right.cumprod(axis=1).sum(axis=1)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (walk, "Right"),
        (walk_all, "after a wrong one is counted"),
        (lambda right: 1 + leading(right).mean(), "as if a step began there: a step"),
        (lambda right: 1 + right.sum(axis=1).mean(), "as well"),
        (lambda right: walk(right) - 1, "left out: every step"),
        (lambda right: leading(right).mean(), "left out, and every place"),
        (lambda right: 1.0, "the answer is"),
        (leading, "one number is needed"),
        (lambda right: None, "returns nothing"),
    ],
)
def test_the_tokens_per_step_of_a_chain(answer, says):
    found = exercises.chain_steps(answer)
    assert says in repr(found)
    assert found.right == (says == "Right")


def test_the_right_count_is_the_labs_own():
    right = torch.from_numpy(exercises.RIGHT)
    assert exercises.chain_steps(
        lambda _: chain_tokens_per_step(right, torch.tensor([len(right)]))
    ).right
