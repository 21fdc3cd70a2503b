"""Checks of the exercises on the speculator's heads and what they are trained with.

Heads are given as plain tensors, one dictionary each: ``proj`` (I, D or I), ``token`` (I, D),
``out`` (D, I), ``scale`` and ``shift`` (I,). Positions and targets are those of
`labkit.training.batches`; the forward pass is that of `labkit.speculative.speculator`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from labkit.checks import Finding
from labkit.checks.answers import Answer, Floats, exercise, number, numbers, refuse, verdict

Head = dict[str, Tensor]


@dataclass(frozen=True)
class SmallModel:
    """A base model's table (V, D), hidden states (B, T, D), tokens (B, T + K + 1), and K heads."""

    table: Tensor
    hidden: Tensor
    tokens: Tensor
    heads: list[Head]


def head_shapes(before: int, width: int, inner: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each of a head's tensors; ``before`` is the width of what it reads."""
    return {
        "proj": (inner, before),
        "token": (inner, width),
        "out": (width, inner),
        "scale": (inner,),
        "shift": (inner,),
    }


def random_case(seed: int, heads: int = 3, width: int = 6, inner: int = 8) -> SmallModel:
    """Return random numbers of the right shapes; no two neighbouring tokens are the same."""
    rng = torch.Generator().manual_seed(seed)
    normal = partial(torch.randn, generator=rng)
    vocabulary, batch, places = 11, 2, 5
    steps = torch.randint(1, vocabulary, (batch, places + heads + 1), generator=rng)
    made = []
    for head in range(heads):
        shapes = head_shapes(inner if head else width, width, inner)
        drawn = {name: normal(*shape) for name, shape in shapes.items()}
        made.append({**drawn, "scale": 1 + 0.3 * drawn["scale"], "shift": 0.3 * drawn["shift"]})
    return SmallModel(
        normal(vocabulary, width), normal(batch, places, width), steps.cumsum(1) % vocabulary, made
    )


def _normed(values: Tensor, axis: int = -1) -> Tensor:
    return values * torch.rsqrt(values.pow(2).mean(axis, keepdim=True) + 1e-6)


@exercise
def head_state(step: Answer, seed: int = 0, width: int = 6, inner: int = 8) -> Finding:
    """Check one head: ``step(state, embedded, head, a, b)`` to its state (..., I), from the state
    before it (..., D or I) and the embedding of the token given (..., D)."""
    case = random_case(seed, width=width, inner=inner)
    embedded = case.table[case.tokens[:, 1:6]]  # (B, T, D)
    head, a, b = case.heads[0], 0.8, 1.7
    try:
        answer = step(case.hidden, embedded, head, a, b)
    except RuntimeError as error:
        given = f"state {tuple(case.hidden.shape)}, embedded {tuple(embedded.shape)}"
        maps = ", ".join(f"{name} {tuple(head[name].shape)}" for name in ("proj", "token"))
        refuse((re.search("shape|size", str(error)), "the shapes do not fit in a product or a sum: "
                f"a matrix W is applied as x @ W.T, and here are {given}, {maps}"))  # fmt: skip
        raise  # some other error, which says more than we can
    found = numbers(answer, (*case.hidden.shape[:2], inner), "one state for each place")

    def mix(a: float, b: float) -> Tensor:
        return a * case.hidden @ head["proj"].T + b * embedded @ head["token"].T

    def scaled(normed: Tensor) -> Tensor:
        return normed * head["scale"] + head["shift"]

    gelu, mixed = functional.gelu, mix(a, b)
    normed = _normed(mixed)
    return verdict(
        found, gelu(scaled(normed)), "gelu(norm(a * proj(state) + b * token(embedded)))",
        (gelu(scaled(_normed(mix(b, a)))), "a and b are exchanged: a goes with the state, b with "
         "the token"),
        (gelu(scaled(_normed(mix(a, 0)))), "the token is missing: add b times its embedding, "
         "mapped by `token`"),
        (gelu(scaled(_normed(mix(1, 1)))), "a and b are missing: they share out the state's and "
         "the token's weight"),
        (scaled(normed), "gelu is missing at the end"),
        (scaled(normed).relu(), "this uses relu instead of gelu"),
        (gelu(normed), "the norm's scale and shift are missing"),
        (gelu(scaled(mixed)), "the norm is missing: divide by the root of the mean square over the "
         "last axis"),
        (gelu(mixed), "norm, scale and shift are missing: gelu comes after all three"),
        (gelu(scaled(mixed / mixed.norm(dim=-1, keepdim=True))), "this divides by the length, the "
         "root of the sum of the squares: the norm takes the root of their mean"),
        (gelu(scaled(_normed(mixed - mixed.mean(-1, keepdim=True)))), "this norm takes the mean "
         "away first, as a layer norm does: here only the root of the mean square is divided by"),
        (gelu(scaled(_normed(mixed, axis=1))), "the norm is over the places of the text: it "
         "belongs to the last axis, so that a place does not depend on others"),
        (scaled(gelu(normed)), "gelu comes before the scale and shift: they belong to the norm"),
        otherwise="the numbers differ: write the formula term by term, from inside out",
        tolerance=1e-4,
    )  # fmt: skip


def all_logits(
    case: SmallModel, shift: int = 1, each: int = 1, hierarchical: bool = True, normed: bool = True
) -> Tensor:
    """Return every head's logits under teacher forcing, (K, B, T, V).

    A head reads x_{t+shift+each*head}; heads that are not ``hierarchical`` all read z, ``normed``
    or not.
    """
    places, out = case.hidden.shape[1], []
    a = 0.5 ** (0.5 / len(case.heads))
    b = math.sqrt((1 - a**2) * (len(case.heads[0]["proj"]) / 2))
    start = _normed(case.hidden) / math.sqrt(2) if normed else case.hidden
    state = start
    for place, head in enumerate(case.heads):
        tokens = case.tokens[:, shift + each * place :][:, :places]
        before = state if hierarchical else start
        mixed = a * before @ head["proj"].T + b * case.table[tokens] @ head["token"].T
        state = functional.gelu(_normed(mixed) * head["scale"] + head["shift"])
        out.append(state @ head["out"].T @ case.table.T)
    return torch.stack(out)


@exercise
def forward(run: Answer, seed: int = 0, heads: int = 3, width: int = 8) -> Finding:
    """Check the heads under teacher forcing: ``run(hidden, tokens, table, heads)``: (K, B, T, V).

    hidden (B, T, D) is z_t; tokens (B, T + K + 1) begin with x_0, the token that z_0 has seen last.
    Head i (from 1) is given x_{t+i}, the base model's own next token for head 1.
    """
    case = random_case(seed, heads, width, width)  # so that every state has one width
    shape = (heads, *case.hidden.shape[:2], len(case.table))
    answer = run(case.hidden, case.tokens, case.table, case.heads)
    found = numbers(answer, shape, "heads, rows, places, vocabulary")
    right = all_logits(case)
    off = int((np.abs(found - right.numpy()).max(axis=(1, 2, 3)) >= 1e-3).argmax())
    return verdict(
        found, right, "each head reads the state and the token of the one before",
        (all_logits(case, shift=0), "the heads read one token too early: z_t has seen x_t already, "
         "head 1 is given x_{t+1}"),
        (all_logits(case, hierarchical=False), "every head begins from z again: a head reads the "
         "state of the head before it"),
        (all_logits(case, normed=False), "the start is not normalised: divide z by its root mean "
         "square, and by the root of 2"),
        (all_logits(case, each=0), "every head is given the same token: head i is given x_{t+i}"),
        (right.flip(0), "the heads are in reverse order"),
        otherwise=f"head {off + 1} is the first that differs; those before it are right" if off else
        "head 1 differs already: check its start, its token and the last two products",
        tolerance=1e-3,
    )  # fmt: skip


@exercise
def targets(pick: Answer, seed: int = 0, heads: int = 3, places: int = 5) -> Finding:
    """Check what a head has to predict: ``pick(tokens, head, places)``, (B, T).

    From z_t the base model predicts x_{t+1} itself; head i predicts x_{t+1+i}. The argument
    ``head`` is an index, 0 for head 1.
    """
    rng = torch.Generator().manual_seed(seed)
    tokens = torch.randint(100, 10_000, (2, places + heads + 1), generator=rng)
    answers = [pick(tokens, head, places) for head in range(heads)]
    found = np.stack([numbers(one, (2, places), "a token a row and place") for one in answers])

    padded = functional.pad(tokens, (0, 1)).numpy()  # 0 where there is no token

    def further(by: int, each: int = 1) -> np.ndarray:
        return np.stack([padded[:, by + each * head :][:, :places] for head in range(heads)])

    right = further(2)  # (K, B, T)
    off = int((found != right).any(axis=(1, 2)).argmax())
    return verdict(
        found, right, "head i predicts x_{t+1+i}, the one after what it was given",
        (further(1), "one too early: x_{t+1} is the base model's own next token, and the head is "
         "given it; head 1 predicts the one after"),
        (further(0), "two too early: z_t has seen x_t"),
        (further(3), "one too late: head 1 predicts x_{t+2}, which follows the token that it is "
         "given"),
        (further(2, each=0), "the same for every head: each one predicts one place further than "
         "the one before"),
        otherwise=f"head {off + 1} should predict x_{{t+{2 + off}}}",
    )  # fmt: skip


def _nats(logits: Tensor, goal: Tensor) -> Tensor:
    """Return the cross-entropy (B, T) against tokens (B, T) or distributions (B, T, V)."""
    goal = goal if goal.ndim == 2 else goal.movedim(-1, 1)
    return functional.cross_entropy(logits.movedim(-1, 1), goal, reduction="none")


@exercise
def hard_loss(loss: Answer, seed: int = 0, places: int = 5) -> Finding:
    """Check one head's loss of phase 1: ``loss(logits, targets, counted)``, one number in nats.

    logits (B, T, V), targets (B, T), counted bool (B, T): the mean over the places that count of
    the cross-entropy against the token at that place.
    """
    logits, counted, rng = _loss_case(seed, places)
    goal = torch.randint(logits.shape[-1], logits.shape[:2], generator=rng)

    def each(values: Tensor) -> Tensor:
        return -values.gather(-1, goal[..., None])[..., 0]  # (B, T)

    nats = _nats(logits, goal)
    right = nats[counted].mean()
    return verdict(
        number(loss(logits, goal, counted)), right, "the mean over the places that count",
        (each(logits.log_softmax(1))[counted].mean(), "the softmax is over the places of the text: "
         "it belongs to the vocabulary, the last axis"),
        (each(logits.log_softmax(0))[counted].mean(), "the softmax is over the rows of the batch: "
         "it belongs to the vocabulary, the last axis"),
        (nats.mean(), "places that do not count are in the mean"),
        (nats[counted].sum() / nats.numel(), "the sum over the places that count is divided by all "
         "places: divide by how many count"),
        (nats[counted].sum(), "this is a sum: take the mean, or the loss depends on how long the "
         "texts are"),
        (-right, "the sign is missing: the loss is minus the logarithm of a probability"),
        (right / math.log(2), "this is in bits: the natural logarithm gives nats"),
        (torch.exp(-nats[counted]).mean(), "this is the mean probability: take the logarithm "
         "first"),
        (each(logits)[counted].mean(), "the logits are taken as logarithms of probabilities: a "
         "log-softmax comes first"),
        tolerance=1e-4,
    )  # fmt: skip


@exercise
def soft_loss(loss: Answer, seed: int = 0, places: int = 5) -> Finding:
    """Check one head's distillation loss: ``loss(logits, base, counted)``, one number in nats.

    The mean over the places that count of minus the sum over the vocabulary of p log q, p the
    softmax of the base model's logits (B, T, V), q the head's.
    """
    logits, counted, rng = _loss_case(seed, places)
    base = 2 * torch.randn(logits.shape, generator=rng)
    p, q = base.softmax(-1), logits.softmax(-1)
    each, entropy, back = _nats(logits, p), _nats(base, p), _nats(base, q)  # (B, T)
    hard = _nats(logits, base.argmax(-1))
    off = -(base.softmax(1) * logits.log_softmax(1)).sum(-1)
    right = each[counted].mean()
    return verdict(
        number(loss(logits, base, counted)), right,
        "the cross-entropy against the base model's whole distribution",
        (back[counted].mean(), "the two models are exchanged: the base model's distribution "
         "weighs, the head's is in the logarithm"),
        (off[counted].mean(), "the softmax is over the places of the text: it belongs to the "
         "vocabulary, the last axis"),
        (each.mean(), "places that do not count are in the mean"),
        (each[counted].sum(), "this is a sum over places: take the mean over those that count"),
        (right / logits.shape[-1], "this is the mean over the vocabulary: sum over it, then take "
         "the mean over places"),
        ((each - entropy)[counted].mean(), "this is the Kullback-Leibler divergence, smaller by "
         "the base model's entropy: its gradient is the same, but it cannot be compared with the "
         "hard loss"),
        ((each - entropy).sum() / len(each), 'this is `kl_div` with its "batchmean", which '
         "divides by the rows alone and counts every place: take the cross-entropy, and its mean "
         "over the places that count"),
        (entropy[counted].mean(), "the base model's entropy: the head is not in it"),
        (hard[counted].mean(), "this is the hard loss against the base model's most probable "
         "token"),
        (-right, "the sign is missing"),
        tolerance=1e-4,
    )  # fmt: skip


def _loss_case(seed: int, places: int) -> tuple[Tensor, Tensor, torch.Generator]:
    rng = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(3, places, 7, generator=rng)
    counted = torch.rand(3, places, generator=rng) < 0.6
    counted[0, 0], counted[0, 1] = True, False
    return logits, counted, rng


@exercise
def answer_places(mark: Answer, seed: int = 0, rows: int = 4) -> Finding:
    """Check which places of phase 2 count: ``mark(given, lengths, places, head)``, bool (B, T).

    Row b has ``given[b]`` tokens of a prompt and ``lengths[b]`` in all. A place t counts if
    the base model itself wrote x_{t+1}, and the head's target x_{t+2+head} still exists, where
    ``head`` is an index, 0 for head 1.
    """
    rng = np.random.default_rng(seed)
    given = [int(many) for many in rng.integers(2, 5, size=rows)]
    lengths = [many + int(rng.integers(4, 8)) for many in given]
    places, heads = max(lengths) + 1, range(3)
    marks = [mark(given, lengths, places, head) for head in heads]
    found = np.stack([numbers(one, (rows, places), "prompts, places") for one in marks])

    def between(first: int, last: int, each: int = 1) -> Floats:
        found = [counted_places(given, lengths, places, each * head, first, last) for head in heads]
        return np.stack(found).astype(float)

    right = between(-1, -2)  # (K, B, T)
    wrong = np.argwhere((found != right).any(axis=2)).tolist()
    head, row = wrong[0] if wrong else (0, 0)
    marked, needed = (np.flatnonzero(of[head, row]).tolist() for of in (found, right))
    return verdict(
        found, right, "from the prompt's last token to where the head's target still exists",
        (between(0, -2), "it begins one too late: at the prompt's last token the base model's own "
         "next token is the first of its answer"),
        (between(-2, -2), "it begins too early: within the prompt the next token is not the base "
         "model's"),
        (between(-99, -2), "the whole prompt is in it: learn from what the base model wrote"),
        (between(-1, -1), "it ends one too late: x_{t+1+i}, the target of head i, has to exist"),
        (between(-1, 0), "it ends two too late: x_{t+1+i}, the target of head i, has to exist"),
        (between(-1, -2, each=0), "it is the same for every head: a later head predicts further "
         "ahead, and runs out sooner"),
        (between(0, 0, each=0), "these are the places of the answer's own tokens, for every head "
         "alike: a place counts by what follows it"),
        (between(0, -1), "it begins one too late and ends one too late: place t is the place of "
         "z_t"),
        (between(0, 0), "it begins one too late and ends two too late: these are the answer's "
         "tokens, and a place counts by what follows it"),
        (1 - right, "it is the other way round: true is for places that count"),
        otherwise=f"with {given[row]} of {lengths[row]} tokens given it marks, for head "
                  f"{head + 1}, places {marked}, not {needed}",
    )  # fmt: skip


def counted_places(
    given: list[int], lengths: list[int], places: int, head: int, first: int = -1, last: int = -2
) -> Tensor:
    """Return the places of phase 2 that count for a head, bool (B, T); see `answer_places`.
    Mistakes have another ``first`` or ``last`` place."""
    at, begin = torch.arange(places), torch.tensor(given)[:, None] + first
    return (at >= begin) & (at < torch.tensor(lengths)[:, None] + last - head)


@exercise
def phase_loss(loss: Answer, phase: int, seed: int = 0, heads: int = 3) -> Finding:
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
    more_given = [given, lengths] if phase == 2 else []
    found = number(loss(hidden, case.tokens, case.table, case.heads, *more_given))
    logits = all_logits(case)  # (K, B, T, V)
    base = hidden @ case.table.T  # (B, T + K, V)

    def total(
        shift: int = 1, each: int = 1, soft: bool = phase == 2, all_: bool = phase == 1
    ) -> Tensor:
        parts = []
        for head in range(heads):
            counted = counted_places(given, lengths, places, head) | all_
            at = slice(shift + each * head, shift + each * head + places)
            goal = base[:, at].softmax(-1) if soft else case.tokens[:, 1:][:, at]
            parts.append(_nats(logits[head], goal)[counted].mean())
        return torch.stack(parts).sum()

    right, early = total(), total(shift=0)
    of_phase = {
        1: [(early, "the targets are one place too early: head i should predict x_{t+1+i}")],
        2: [
            (total(soft=False), "this is the hard loss: phase 2 compares with the base model's "
             "distribution"),
            (total(all_=True), "all places count, the prompt's too: `answer_places` says which "
             "should"),
            (early, "the base model's distribution is taken one place too early: that over "
             "x_{t+1+i} is at z_{t+i}"),
        ],
    }  # fmt: skip
    return verdict(
        found, right, "the sum of the heads' mean losses",
        (right / heads, "this is the mean over the heads: the published loss is their sum"),
        (total(each=0), "every head has the targets of head 1"),
        *of_phase[phase], tolerance=1e-4,
    )  # fmt: skip
