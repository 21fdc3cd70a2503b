"""Checks of the exercises on training: targets, the learning rate, labels, tokens per step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labkit.checks import Finding
from labkit.checks.answers import Floats, exercise, number, refuse, tokens, verdict

TOKENS = [11, 12, 13, 14, 15, 16, 17, 18, 19, 20]
"""A text of ten tokens that are easy to tell apart."""


@exercise
def head_targets(targets: Callable[[Sequence[int], int], Sequence[int]]) -> Finding:
    """Check a function from a text's tokens and a head (from 1) to that head's targets.

    Head i at place t predicts the token at t + 1 + i, if there is one.
    """
    heads = (1, 3)
    found = []
    for head in heads:
        answer = targets(TOKENS, head)
        gaps = isinstance(answer, (list, tuple)) and None in answer
        refuse((gaps, f"head {head} gets None where there is no target: leave these places out, so "
                "that the list ends with the last token"))  # fmt: skip
        found.append(tokens(answer))

    def both(of: Callable[[int], list[int]]) -> list[list[int]]:
        return [of(head) for head in heads]

    return verdict(
        found, both(lambda i: TOKENS[1 + i :]),
        "head i at place t predicts the token at t + 1 + i, if there is one",
        [
            (both(lambda i: TOKENS[i:]), "every target is one place too early: the base model's "
             "own head already gives the token at t + 1, so head 1 should give the one at t + 2"),
            (both(lambda i: TOKENS[2 + i :]), "every target is one place too far: head 1 at place "
             "t predicts the token at t + 2"),
            (both(lambda i: TOKENS[1 + i : len(TOKENS) - 3 + i]), "all heads get as many places as "
             "the last one: a nearer head has more places with a target"),
            (both(lambda i: TOKENS[2:]), "all heads get the same targets: head i predicts i places "
             "beyond the base model's own next token"),
            (both(lambda i: TOKENS[:-1 - i]), "these are the tokens at the places themselves; "
             "their targets are 1 + i places on"),
        ],
        f"of {TOKENS} head 1 gets {found[0]}, and should get {TOKENS[2:]}: the token at t + 1 + i "
        "for each place t that has one",
    )  # fmt: skip


CLOSE = 0.06
"""Of the peak: a warm-up whose first step has the rate 0 is as good as one that has a little."""

AS_STEPS = (
    "`warmup` is taken as a number of steps, so that it ends with the first: it is a share, so "
    "multiply it by the number of steps"
)
"""Said of a schedule whose warm-up is the first step alone, whether it begins at 0 or far up."""


@exercise
def learning_rate(rate: Callable[[int, int, float, float, float], float]) -> Finding:
    """Check a schedule: step (from 0), steps, peak, warm-up's share, last rate's share to a rate.

    A straight line from 0 up to the peak, then half a cosine down to the last share of it.
    """
    steps, peak, warm, last = 200, 2.0, 0.1, 0.25
    places = [0, 9, 19, 20, 65, 110, 155, 199]
    found = np.array([number(rate(step, steps, peak, warm, last)) for step in places])

    def course(
        floor: float = last,
        start: float = 0.1,
        straight: bool = False,
        turn: int = 1,
        half: float = 0.5,
    ) -> Floats:
        """Return the schedule with its end, warm-up, shape, direction or height changed."""
        warmup = round(start * steps)
        values = []
        for step in places:
            if step < warmup:
                values.append((step + 1) / warmup)
                continue
            done = (step - warmup) / (steps - warmup)
            height = 1 - done if straight else half * (1 + turn * math.cos(math.pi * done))
            values.append(floor + (1 - floor) * height)
        return peak * np.array(values)

    right, cold = course(), course(start=0)
    early = peak * np.array([
        min(1, (step + 1) / 20) * (last + (1 - last) * (1 + math.cos(math.pi * step / steps)) / 2)
        for step in places
    ])  # fmt: skip
    off = int(np.abs(found - right).argmax())
    return verdict(
        found, right, "up in a straight line, down by half a cosine to a share of the peak",
        [
            (course(floor=0), "it falls to 0: it should end at a share of the peak"),
            (cold, "it starts at the peak: warm up first, in a straight line from 0, over the "
             "share `warmup` of all steps"),
            (course(straight=True), "it falls in a straight line: take half a cosine"),
            (course(turn=-1), "the cosine is upside down: after the warm-up it is at the peak, at "
             "the end at its least"),
            (course(half=1), "the half is forgotten: 1 + cos is 2 where the cosine begins, so the "
             "rate jumps above the peak; divide it by 2"),
            (np.append(0, cold[1:]), AS_STEPS),
            (np.append(peak / warm, cold[1:]), AS_STEPS),
            (course(floor=last / peak), "`last` is taken as a rate: it is a share, so multiply it "
             "by the peak"),
            (early, "the cosine runs from step 0: it begins where the warm-up ends"),
            (right / peak, "the peak is left out: this is a share of it"),
        ],
        f"with {steps} steps, peak {peak:g}, a tenth of warm-up and a quarter at the end, step "
        f"{places[off]} has {found[off]:.4g}, and should have {right[off]:.4g}",
        CLOSE * peak,
    )  # fmt: skip


P = np.array([0.5, 0.3, 0.15, 0.05])
LOGITS = np.array([1.2, 0.4, -0.3, 0.9])
"""A base model's distribution, and a head's logits for the same place."""


@exercise
def soft_labels(loss: Callable[[Floats, Floats], float]) -> Iterator[Finding]:
    """Check a function from the base's distribution p (V,) and a head's logits (V,) to the loss.

    The cross-entropy -sum p log q in nats, with q the softmax of the logits.
    """
    found = number(loss(P, LOGITS))
    logs = LOGITS - np.log(np.exp(LOGITS).sum())
    q, right = np.exp(logs), float(-(P * logs).sum())
    good = "the base model's probabilities weigh the head's surprise at each token"
    yield verdict(
        found, right, good,
        [
            (-right, "the sign is missing: a loss falls as the head gets better"),
            (right / len(P), "this is the mean over the vocabulary: sum over it, since p is "
             "already weights that sum to 1"),
            (-logs[P.argmax()], "this is the hard label: it uses the base model's most probable "
             "token alone"),
            (-(q * np.log(P)).sum(), "p and q are exchanged: the base model's p weighs, the "
             "logarithm is the head's"),
            ((P * (np.log(P) - logs)).sum(), "this is the divergence from p to q, the "
             "cross-entropy less p's own entropy: it has the same gradient, but the loss should be "
             "comparable with that against a token"),
            (-(P * LOGITS).sum(), "logits are no logarithms of probabilities yet: subtract the "
             "logarithm of the sum of their exponentials"),
            (-(P * q).sum(), "the logarithm is forgotten: p weighs the logarithms of q, not q "
             "itself"),
            (right / math.log(2), "this is in bits: take the natural logarithm"),
        ],
        f"it gives {found:.4f}, and the answer is {right:.4f}", 1e-6,
    )  # fmt: skip
    far = float(loss(P, LOGITS + 800.0))
    yield verdict(
        far, right, good, [], "right for small logits, but with 800 added to all of them, which "
        f"changes no probability, it gives {far:.4g}: subtract the greatest logit first", 1e-6,
    )  # fmt: skip


RIGHT = np.array(
    [[0, 1], [0, 1], [0, 1], [1, 1], [1, 1], [1, 1], [1, 0], [1, 1], [0, 0], [0, 0]], bool
)
"""Whether each of two heads guessed right at each of ten places of an answer."""


@exercise
def chain_steps(count: Callable[[NDArray[np.bool_]], float]) -> Finding:
    """Check a function from right guesses (N, K) to the tokens per step of a chain of drafts.

    A step at place n commits one token and the leading run of right guesses, and the next step is
    as many places on; a guess after a wrong one does not count.
    """
    found, leading = number(count(RIGHT)), RIGHT.cumprod(axis=1).sum(axis=1)
    right = _walk(leading)
    return verdict(
        found, right, "each step jumps as far as it commits, so good places are met less often",
        [
            (_walk(RIGHT.sum(axis=1)), "a guess after a wrong one is counted: only the leading run "
             "of right guesses is accepted"),
            (1 + leading.mean(), "every place is counted as if a step began there: a step that "
             "accepts two drafts jumps over the two places after it"),
            (1 + RIGHT.sum(axis=1).mean(), "every place is counted as if a step began there, and a "
             "guess after a wrong one as well"),
            (right - 1, "the base model's own token is left out: every step commits one"),
            (leading.mean(), "the base model's own token is left out, and every place is counted "
             "as if a step began there"),
        ],
        f"it gives {found:.4f}, and the answer is {right:.4f}", 1e-6,
    )  # fmt: skip


def _walk(accepted: ArrayLike) -> float:
    """Return tokens per step if a step at place n commits 1 + accepted[n], within the answer."""
    jumps = np.asarray(accepted).tolist()
    place = steps = 0
    while place < len(jumps):
        place += 1 + jumps[place]
        steps += 1
    return place / steps
