"""Checks of the exercises on the speculator's heads and what they are trained with.

Heads are given as plain tensors, one dictionary each: ``proj`` (I, D or I), ``token`` (I, D),
``out`` (D, I), ``scale`` and ``shift`` (I,). Positions and targets are those of
`labkit.training.phases`; the forward pass is that of `labkit.speculative.speculator`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from labkit.checks import Finding
from labkit.checks.answers import Floats, NotUsable, exercise, looks_like, number, numbers

Head = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """A base model's table (V, D), hidden states (B, T, D), tokens (B, T + K + 1), and K heads."""

    table: Tensor
    hidden: Tensor
    tokens: Tensor
    heads: list[Head]


def random_case(seed: int, heads: int = 3, width: int = 6, inner: int = 8) -> Case:
    """Random numbers of the right shapes; no two neighbouring tokens are the same."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng)

    vocabulary, batch, places = 11, 2, 5
    steps = torch.randint(1, vocabulary, (batch, places + heads + 1), generator=rng)
    made = [
        {
            "proj": normal(inner, inner if head else width),
            "token": normal(inner, width),
            "out": normal(width, inner),
            "scale": 1 + 0.3 * normal(inner),
            "shift": 0.3 * normal(inner),
        }
        for head in range(heads)
    ]
    return Case(
        normal(vocabulary, width), normal(batch, places, width), steps.cumsum(1) % vocabulary, made
    )


def state_after(
    state: Tensor, embedded: Tensor, head: Head, a: float, b: float, act: bool = True
) -> Tensor:
    """gelu(norm(a * proj(state) + b * token(embedded))): (..., I)."""
    mixed = a * state @ head["proj"].T + b * embedded @ head["token"].T
    normed = mixed * torch.rsqrt(mixed.pow(2).mean(-1, keepdim=True) + 1e-6)
    normed = normed * head["scale"] + head["shift"]
    return functional.gelu(normed) if act else normed


@exercise
def head_state(step: Callable[..., Any], seed: int = 0, width: int = 6, inner: int = 8) -> Finding:
    """Check one head: ``step(state, embedded, head, a, b)`` to its state (..., I).

    The state before it is (..., D or I), ``embedded`` (..., D) the embedding of the token given.
    """
    case = random_case(seed, width=width, inner=inner)
    embedded = case.table[case.tokens[:, 1:6]]  # (B, T, D)
    head, a, b = case.heads[0], 0.8, 1.7
    try:
        answer = step(case.hidden, embedded, head, a, b)
    except RuntimeError as error:
        if not re.search("shape|size", str(error)):  # some other error, which says more than we can
            raise
        given = f"state {tuple(case.hidden.shape)}, embedded {tuple(embedded.shape)}"
        maps = ", ".join(f"{name} {tuple(head[name].shape)}" for name in ("proj", "token"))
        raise NotUsable(
            f"the shapes do not fit in a product or a sum: a matrix W is applied as x @ W.T, and "
            f"here are {given}, {maps}."
        ) from error
    found = numbers(answer, (*case.hidden.shape[:2], inner), "one state for each place")
    right = state_after(case.hidden, embedded, head, a, b)
    if np.abs(found - right.numpy()).max() < 1e-4:
        return Finding(True, "gelu(norm(a * proj(state) + b * token(embedded))).")
    mixed = a * case.hidden @ head["proj"].T + b * embedded @ head["token"].T
    plain = {**head, "scale": torch.ones(inner), "shift": torch.zeros(inner)}
    mean = mixed - mixed.mean(-1, keepdim=True)
    layer = mean * torch.rsqrt(mean.pow(2).mean(-1, keepdim=True) + 1e-6)
    across = mixed * torch.rsqrt(mixed.pow(2).mean(1, keepdim=True) + 1e-6)
    length = mixed / mixed.norm(dim=-1, keepdim=True)
    wrong = {
        "a and b are exchanged: a goes with the state, b with the token": state_after(
            case.hidden, embedded, head, b, a
        ),
        "the token is missing: add b times its embedding, mapped by `token`": state_after(
            case.hidden, embedded, head, a, 0.0
        ),
        "a and b are missing: they share out the state's and the token's weight": state_after(
            case.hidden, embedded, head, 1.0, 1.0
        ),
        "gelu is missing at the end": state_after(case.hidden, embedded, head, a, b, act=False),
        "relu stands where gelu should": functional.relu(
            state_after(case.hidden, embedded, head, a, b, act=False)
        ),
        "the norm's scale and shift are missing": state_after(case.hidden, embedded, plain, a, b),
        "the norm is missing: divide by the root of the mean square over the last axis": (
            functional.gelu(mixed * head["scale"] + head["shift"])
        ),
        "norm, scale and shift are missing: gelu comes after all three": functional.gelu(mixed),
        "this divides by the length, the root of the sum of the squares: the norm takes the root "
        "of their mean": functional.gelu(length * head["scale"] + head["shift"]),
        "this norm takes the mean away first, as a layer norm does: here only the root of the "
        "mean square is divided by": functional.gelu(layer * head["scale"] + head["shift"]),
        "the norm is over the places of the text: it belongs to the last axis, so that a place "
        "does not depend on others": functional.gelu(across * head["scale"] + head["shift"]),
        "gelu comes before the scale and shift: they belong to the norm": functional.gelu(
            mixed * torch.rsqrt(mixed.pow(2).mean(-1, keepdim=True) + 1e-6)
        )
        * head["scale"]
        + head["shift"],
    }
    says = looks_like(found, wrong, tolerance=1e-4)
    return Finding(
        False, f"{says or 'the numbers differ: write the formula term by term, from inside out'}."
    )


def one_further(head: int) -> int:
    """Which token head ``head`` is given at place t: x_{t + 1 + head}."""
    return 1 + head


def all_logits(
    case: Case,
    given: Callable[[int], int] = one_further,
    hierarchical: bool = True,
    normed: bool = True,
) -> Tensor:
    """Every head's logits under teacher forcing, (K, B, T, V).

    ``given`` says how far on the token is that a head reads; heads that are not ``hierarchical``
    all read z, ``normed`` or not.
    """
    places, out = case.hidden.shape[1], []
    a = 0.5 ** (0.5 / len(case.heads))
    b = math.sqrt((1 - a**2) * (len(case.heads[0]["proj"]) / 2))
    start = case.hidden
    if normed:
        start = start * torch.rsqrt(start.pow(2).mean(-1, keepdim=True) + 1e-6) / math.sqrt(2)
    state = start
    for number_, head in enumerate(case.heads):
        tokens = case.tokens[:, given(number_) : given(number_) + places]
        state = state_after(state if hierarchical else start, case.table[tokens], head, a, b)
        out.append(state @ head["out"].T @ case.table.T)
    return torch.stack(out)


@exercise
def forward(run: Callable[..., Any], seed: int = 0, heads: int = 3, width: int = 8) -> Finding:
    """Check the heads under teacher forcing: ``run(hidden, tokens, table, heads)``: (K, B, T, V).

    hidden (B, T, D) is z_t; tokens (B, T + K + 1) begin with x_0, the token that z_0 has seen last.
    Head i (from 0) is given x_{t+1+i}, the base model's own next token for head 0.
    """
    case = random_case(seed, heads, width, width)  # so that every state has one width
    shape = (heads, *case.hidden.shape[:2], len(case.table))
    found = numbers(
        run(case.hidden, case.tokens, case.table, case.heads),
        shape,
        "heads, rows, places, vocabulary",
    )
    right = all_logits(case).numpy()
    if np.abs(found - right).max() < 1e-3:
        return Finding(True, "each head reads the state and the token of the one before.")
    wrong = {
        "the heads read one token too early: z_t has seen x_t already, head 0 is given x_{t+1}": (
            all_logits(case, given=lambda head: head)
        ),
        "every head begins from z again: a head reads the state that the head before it left": (
            all_logits(case, hierarchical=False)
        ),
        "the start is not normalised: divide z by its root mean square, and by the root of 2": (
            all_logits(case, normed=False)
        ),
        "every head is given the same token: head i is given x_{t+1+i}": all_logits(
            case, given=lambda head: 1
        ),
        "the heads are in reverse order": all_logits(case).flip(0),
    }
    says = looks_like(found, wrong, tolerance=1e-3)
    if says is None:
        rows = [float(np.abs(found[head] - right[head]).max()) for head in range(heads)]
        first = next(head for head, off in enumerate(rows) if off >= 1e-3)
        says = (
            f"head {first} is the first that differs; those before it are right"
            if first
            else "head 0 differs already: look at its start, its token and the last two products"
        )
    return Finding(False, f"{says}.")


@exercise
def targets(
    pick: Callable[[Tensor, int, int], Any], seed: int = 0, heads: int = 3, places: int = 5
) -> Finding:
    """Check what a head has to predict: ``pick(tokens, head, places)``, (B, T), head from 0.

    From z_t the base model predicts x_{t+1} itself; head i predicts x_{t+2+i}.
    """
    rng = torch.Generator().manual_seed(seed)
    tokens = torch.randint(100, 10_000, (2, places + heads + 1), generator=rng)
    shape = (2, places)
    found = np.stack(
        [
            numbers(pick(tokens, head, places), shape, "a token for each row and place")
            for head in range(heads)
        ]
    )  # (K, B, T)

    def further(by: int, each: int = 1) -> np.ndarray:
        return np.stack([_shifted(tokens, by + each * head, places) for head in range(heads)])

    right = further(2)
    if (found == right).all():
        return Finding(True, "head i predicts x_{t+2+i}, the one after what it was given.")
    wrong = {
        "one too early: x_{t+1} is the base model's own next token, and the head is given it; head "
        "0 predicts the one after": further(1),
        "two too early: z_t has seen x_t": further(0),
        "one too late: head 0 predicts x_{t+2}, which follows the token that it is given": further(
            3
        ),
        "the same for every head: head i looks i places further": further(2, each=0),
    }
    off = int(np.argwhere((found != right).any(axis=(1, 2)))[0, 0])
    says = looks_like(found, wrong) or f"head {off} is to predict x_{{t+{2 + off}}}"
    return Finding(False, f"{says}.")


def _shifted(tokens: Tensor, by: int, places: int) -> np.ndarray:
    """x_{t+by} for each place t (B, T), 0 where there is none."""
    part = tokens[:, by : by + places].double()
    return functional.pad(part, (0, places - part.shape[1])).numpy()


@exercise
def hard_loss(
    loss: Callable[[Tensor, Tensor, Tensor], Any], seed: int = 0, places: int = 5
) -> Finding:
    """Check one head's loss of phase 1: ``loss(logits, targets, counted)``, one number in nats.

    logits (B, T, V), targets (B, T), counted bool (B, T): the mean over the places that count of
    the cross-entropy against the token that stands there.
    """
    logits, counted, rng = _loss_case(seed, places)
    goal = torch.randint(logits.shape[-1], logits.shape[:2], generator=rng)
    found = np.array(number(loss(logits, goal, counted)))
    logs = logits.log_softmax(-1)
    each = -logs.gather(-1, goal[..., None])[..., 0]  # (B, T)
    right = each[counted].mean()
    if abs(float(found) - float(right)) < 1e-4:
        return Finding(True, "the mean over the places that count.")
    off = -logits.log_softmax(1).gather(-1, goal[..., None])[..., 0]
    rows = -logits.log_softmax(0).gather(-1, goal[..., None])[..., 0]
    wrong = {
        "the softmax is over the places of the text: it belongs to the vocabulary, the last axis": (
            off[counted].mean()
        ),
        "the softmax is over the rows of the batch: it belongs to the vocabulary, the last axis": (
            rows[counted].mean()
        ),
        "places that do not count are in the mean": each.mean(),
        "the sum over the places that count is divided by all places: divide by how many count": (
            each[counted].sum() / each.numel()
        ),
        "this is a sum: take the mean, or the loss depends on how long the texts are": each[
            counted
        ].sum(),
        "the sign is missing: the loss is minus the logarithm of a probability": -right,
        "this is in bits: the natural logarithm gives nats": right / math.log(2),
        "this is the mean probability: take the logarithm first": torch.exp(-each[counted]).mean(),
        "the logits are taken as logarithms of probabilities: a log-softmax comes first": (
            -logits.gather(-1, goal[..., None])[..., 0][counted].mean()
        ),
    }
    return _loss_finding(found, right, wrong)


@exercise
def soft_loss(
    loss: Callable[[Tensor, Tensor, Tensor], Any], seed: int = 0, places: int = 5
) -> Finding:
    """Check one head's distillation loss: ``loss(logits, base, counted)``, one number in nats.

    The mean over the places that count of minus the sum over the vocabulary of p log q, p the
    softmax of the base model's logits (B, T, V), q the head's.
    """
    logits, counted, rng = _loss_case(seed, places)
    base = 2 * torch.randn(logits.shape, generator=rng)
    found = np.array(number(loss(logits, base, counted)))
    p, logs = base.softmax(-1), logits.log_softmax(-1)
    each = -(p * logs).sum(-1)  # (B, T)
    right = each[counted].mean()
    if abs(float(found) - float(right)) < 1e-4:
        return Finding(True, "the cross-entropy against the whole of the base model's opinion.")
    entropy = -(p * base.log_softmax(-1)).sum(-1)
    back = -(logits.softmax(-1) * base.log_softmax(-1)).sum(-1)
    off = -(base.softmax(1) * logits.log_softmax(1)).sum(-1)
    wrong = {
        "the two models are exchanged: the base model's distribution weighs, the head's is in the "
        "logarithm": back[counted].mean(),
        "the softmax is over the places of the text: it belongs to the vocabulary, the last axis": (
            off[counted].mean()
        ),
        "places that do not count are in the mean": each.mean(),
        "this is a sum over places: take the mean over those that count": each[counted].sum(),
        "this is the mean over the vocabulary: sum over it, then take the mean over places": (
            each[counted].mean() / logits.shape[-1]
        ),
        "this is the Kullback-Leibler divergence, smaller by the base model's entropy: its "
        "gradient is the same, but it cannot be compared with the hard loss": (each - entropy)[
            counted
        ].mean(),
        'this is `kl_div` with its "batchmean", which divides by the rows alone and counts every '
        "place: take the cross-entropy, and its mean over the places that count": (
            (each - entropy).sum() / len(each)
        ),
        "the base model's entropy: the head is not in it": entropy[counted].mean(),
        "this is the hard loss against the base model's most probable token": (
            -logs.gather(-1, base.argmax(-1)[..., None])[..., 0][counted].mean()
        ),
        "the sign is missing": -right,
    }
    return _loss_finding(found, right, wrong)


def _loss_case(seed: int, places: int) -> tuple[Tensor, Tensor, torch.Generator]:
    rng = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(3, places, 7, generator=rng)
    counted = torch.rand(3, places, generator=rng) < 0.6
    counted[0, 0], counted[0, 1] = True, False
    return logits, counted, rng


def _loss_finding(found: np.ndarray, right: Tensor, wrong: Mapping[str, object]) -> Finding:
    says = looks_like(found, wrong, tolerance=1e-4)
    return Finding(
        False, f"{says or f'it gives {float(found):.4f}, and the answer is {float(right):.4f}'}."
    )


@exercise
def answer_places(
    mark: Callable[[list[int], list[int], int, int], Any], seed: int = 0, rows: int = 4
) -> Finding:
    """Check which places of phase 2 count: ``mark(given, lengths, places, head)``, bool (B, T).

    Row b has ``given[b]`` tokens of a prompt and ``lengths[b]`` in all. A place t counts for a head
    (from 0) if the base model itself wrote x_{t+1}, and x_{t+2+head} still exists.
    """
    rng = np.random.default_rng(seed)
    given = [int(many) for many in rng.integers(2, 5, size=rows)]
    lengths = [many + int(rng.integers(4, 8)) for many in given]
    places, heads = max(lengths) + 1, range(3)
    shape = (rows, places)
    found = np.stack(
        [
            numbers(mark(list(given), list(lengths), places, head), shape, "prompts, places")
            for head in heads
        ]
    )  # (K, B, T)

    def between(first: int, last: int, each: int = 1) -> Floats:
        at = np.arange(places)[None, None, :]
        end = np.array(lengths)[None, :, None] + last - each * np.array(heads)[:, None, None]
        return ((at >= np.array(given)[None, :, None] + first) & (at < end)).astype(float)

    right = between(-1, -2)
    if (found == right).all():
        return Finding(
            True, "from the prompt's last token to where the head's target still exists."
        )
    wrong = {
        "it begins one too late: at the prompt's last token the base model's own next token is the "
        "first of its answer": between(0, -2),
        "it begins too early: within the prompt the next token is not the base model's": between(
            -2, -2
        ),
        "the whole prompt is in it: learn from what the base model wrote": between(-99, -2),
        "it ends one too late: x_{t+2+head}, which the head is to predict, has to exist": between(
            -1, -1
        ),
        "it ends two too late: x_{t+2+head}, which the head is to predict, has to exist": between(
            -1, 0
        ),
        "it is the same for every head: a later head looks further, and runs out sooner": between(
            -1, -2, each=0
        ),
        "these are the places of the answer's own tokens, for every head alike: a place counts by "
        "what follows it": between(0, 0, each=0),
        "it begins one too late and ends one too late: place t is where z_t stands": between(0, -1),
        "it begins one too late and ends two too late: these are the answer's tokens, and a place "
        "counts by what follows it": between(0, 0),
        "it is the other way round: true is for places that count": 1 - right,
    }
    says = looks_like(found, wrong)
    if says is None:
        head, row = np.argwhere((found != right).any(axis=2))[0].tolist()
        says = (
            f"with {given[row]} of {lengths[row]} tokens given it marks, for head {head}, places "
            f"{np.flatnonzero(found[head, row]).tolist()}, not "
            f"{np.flatnonzero(right[head, row]).tolist()}"
        )
    return Finding(False, f"{says}.")


@exercise
def phase_loss(loss: Callable[..., Any], phase: int, seed: int = 0, heads: int = 3) -> Finding:
    """Check the loss of a step of phase 1 or 2, one number: the sum of the heads' mean losses.

    ``loss(hidden, tokens, table, heads)``, in phase 2 with ``given, lengths`` behind. hidden
    (B, T + K, D) are the base model's states; the heads run over the first T places. Phase 1 takes
    the tokens that stand there, at all places; phase 2 the base model's distribution, which is the
    softmax of its states times the table, at the places of its answers.
    """
    case = random_case(seed, heads, 8, 8)
    rng = torch.Generator().manual_seed(seed + 1)
    places = case.hidden.shape[1]
    more = torch.randn(case.hidden.shape[0], heads, 8, generator=rng)
    hidden = torch.cat([case.hidden, more], dim=1)  # (B, T + K, D)
    given, lengths = [2, 3], [places + heads + 1, places + heads]
    asked = [hidden, case.tokens, case.table, case.heads]
    found = np.array(number(loss(*asked, *([given, lengths] if phase == 2 else []))))
    logits = all_logits(case)  # (K, B, T, V)
    base = hidden @ case.table.T  # (B, T + K, V)

    def total(
        shift: int = 1, each: int = 1, soft: bool = phase == 2, all_: bool = phase == 1
    ) -> Tensor:
        parts = []
        for head in range(heads):
            counted = torch.ones(len(hidden), places, dtype=torch.bool)
            if not all_:
                at = torch.arange(places)[None, :]
                last = torch.tensor(lengths)[:, None] - 2 - head
                counted = (at >= torch.tensor(given)[:, None] - 1) & (at < last)
            by = shift + each * head
            logs = logits[head].log_softmax(-1)
            if soft:
                p = base[:, by : by + places].softmax(-1)
                parts.append(-(p * logs).sum(-1)[counted].mean())
            else:
                goal = case.tokens[:, by + 1 : by + 1 + places]
                parts.append(-logs.gather(-1, goal[..., None])[..., 0][counted].mean())
        return torch.stack(parts).sum()

    right = total()
    if abs(float(found) - float(right)) < 1e-3:
        return Finding(True, "the sum of the heads' mean losses.")
    wrong: dict[str, object] = {
        "this is the mean over the heads: the published loss is their sum": right / heads,
        "every head has the targets of head 0": total(each=0),
        "the targets are one place too early: head i is to predict x_{t+2+i}": total(shift=0),
    }
    if phase == 2:
        wrong |= {
            "this is the hard loss: phase 2 compares with the base model's distribution": total(
                soft=False
            ),
            "all places count, the prompt's too: `answer_places` says which do": total(all_=True),
            "the base model's distribution is taken one place too early: over x_{t+2+i} it has its "
            "opinion at z_{t+1+i}": total(shift=0),
        }
        del wrong["the targets are one place too early: head i is to predict x_{t+2+i}"]
    return _loss_finding(found, right, wrong)
