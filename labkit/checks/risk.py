"""Checks of the exercises on minimum Bayes risk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labkit.checks import NOT_WRITTEN, Finding
from labkit.checks.answers import (
    Floats,
    NotUsable,
    exercise,
    looks_like,
    numbers,
    parts,
    texts,
    written,
)

LOSS = np.array(
    [
        [8.0, 7.0, 7.0, 2.0, 8.0, 4.0],
        [2.0, 7.0, 0.0, 6.0, 9.0, 8.0],
        [7.0, 5.0, 1.0, 6.0, 3.0, 3.0],
        [9.0, 1.0, 9.0, 6.0, 5.0, 0.0],
        [8.0, 7.0, 0.0, 0.0, 2.0, 6.0],
        [3.0, 5.0, 6.0, 1.0, 8.0, 5.0],
    ]
)
P = np.array([0.3, 0.2, 0.15, 0.15, 0.1, 0.1])
"""Losses and probabilities for which each common mistake chooses an action of its own."""


@exercise
def bayes_action(choose: Callable[[NDArray[np.float64], NDArray[np.float64]], int]) -> Finding:
    """Check a function from losses (actions, states) and p (states,) to the best action."""
    answer = choose(LOSS, P)
    if answer is None or isinstance(answer, EllipsisType):
        return NOT_WRITTEN
    risk = LOSS @ P
    if np.ndim(answer) > 0:
        return Finding(False, "it gives a whole array; the answer is one action's index.")
    for right, says in (
        (risk.argmin(), ""),
        (risk.argmax(), "this is the action of greatest risk: loss is to be small, so argmin"),
        ((LOSS.T @ P).argmin(), "the states were summed over as if they were actions: rows of the "
         "loss are actions, so each row is weighed by p"),
        (LOSS.sum(axis=1).argmin(), "the states all weigh the same here: weigh each by its "
         "probability"),
        (LOSS[:, P.argmax()].argmin(), "this looks at the most probable state alone"),
        (LOSS.max(axis=1).argmin(), "this guards against the worst state, whatever its "
         "probability: that is minimax, another rule"),
    ):  # fmt: skip
        if answer == right:
            return Finding(not says, says + "." if says else "the action of least expected loss.")
    return Finding(False, f"it gives {answer!r}, and no action has that index.")


@exercise
def merged(merge: Callable[[Sequence[str]], Any]) -> Finding:
    """Check a function from drawn texts to the distinct texts and weights that give the same risk.

    Each distinct text weighs its count over the number of draws.
    """
    drawn = ["rain", "sun", "rain", "fog", "rain", "sun"]
    answer = merge(drawn)
    if answer is None or isinstance(answer, EllipsisType):
        return NOT_WRITTEN
    try:
        texts, weights = answer
        by_text = dict(zip(texts, map(float, weights), strict=True))
    except (TypeError, ValueError):
        return Finding(False, "give two things of equal length: the texts, and their weights.")
    if len(by_text) != len(list(texts)):
        return Finding(False, "a text stands there more than once: list each once.")
    if set(by_text) != set(drawn):
        missing = sorted(set(drawn) ^ set(by_text))
        return Finding(False, f"the texts are not those drawn; it is about {missing[0]!r}.")
    right = {text: drawn.count(text) / len(drawn) for text in by_text}
    for looks, says in (
        (right, ""),
        ({text: float(drawn.count(text)) for text in by_text}, "these are the counts: divide them "
         "by the number of draws, so that they sum to 1"),
        (dict.fromkeys(by_text, 1 / len(by_text)), "every distinct text weighs the same, so the "
         "draws of “rain” beyond the first are lost"),
        ({text: drawn.count(text) / len(by_text) for text in by_text}, "this divides by the number "
         "of distinct texts: divide by the number of draws"),
    ):  # fmt: skip
        if all(abs(by_text[text] - looks[text]) < 1e-9 for text in looks):
            good = "risks from these weights are those of the whole list, to the last digit."
            return Finding(not says, f"{says}." if says else good)
    return Finding(False, f"the weights are {by_text}, and should be {right}.")


Utility = Callable[[str, str], float]
"""How good a hypothesis is if a piece of evidence is right, on 0..1."""

WORDS = (
    "a the cat dog bird sat ran slept on under by mat tree house and then again".split()  # noqa: SIM905
)


def random_texts(rng: np.random.Generator, many: int, longest: int = 9) -> list[str]:
    """Lines of words, most of them of a few common ones; no two are the same."""
    found: dict[str, None] = {}
    while len(found) < many:
        size = int(rng.integers(3, longest + 1))
        found[" ".join(rng.choice(WORDS, size=size))] = None
    return list(found)


def precision(hypothesis: str, evidence: str) -> float:
    """The share of the hypothesis's words that the evidence has too: not the same both ways."""
    ours, theirs = Counter(hypothesis.split()), Counter(evidence.split())
    return (ours & theirs).total() / max(ours.total(), 1)


@exercise
def losses(
    build: Callable[[list[str], list[str], Utility], Any],
    seed: int = 0,
    many: int = 4,
    much: int = 6,
) -> Finding:
    """Check the loss matrix (H, R): 1 - utility of each hypothesis against each evidence text."""
    rng = np.random.default_rng(seed)
    lines = random_texts(rng, many + much)
    ours, theirs = lines[:many], lines[many:]
    found = numbers(build(ours, theirs, precision))
    right = 1 - np.array([[precision(h, r) for r in theirs] for h in ours])
    turned = 1 - np.array([[precision(r, h) for r in theirs] for h in ours])
    if found.shape == right.shape and np.abs(found - right).max() < 1e-9:
        return Finding(True, "a row for each hypothesis, a column for each piece of evidence.")
    says = looks_like(
        found,
        {
            "these are utilities: a loss is 1 - utility": 1 - right,
            "rows and columns are exchanged: hypotheses are rows": right.T,
            "rows and columns are exchanged, and these are utilities": 1 - right.T,
            "the utility is asked the wrong way round: the hypothesis comes first": turned,
            "hypotheses are compared with each other: the columns are the evidence": 1
            - np.array([[precision(h, r) for r in ours] for h in ours]),
        },
    )
    shape = f"it has shape {found.shape}, and {right.shape} is needed: a row for each hypothesis"
    differ = "some losses differ: cell [h, r] is 1 - utility(hypotheses[h], evidence[r])"
    return Finding(False, f"{says or (shape if found.shape != right.shape else differ)}.")


@exercise
def risks(weigh: Callable[[Floats, Floats], Any], seed: int = 0, many: int = 5) -> Finding:
    """Check the risk of each hypothesis, (H,), from losses (H, R) and weights (R,)."""
    rng = np.random.default_rng(seed)
    for much in (many, many + 2):
        loss, weights = rng.random((many, much)), rng.dirichlet(np.full(much, 0.7))
        found = numbers(weigh(loss, weights), (many,), "one for each hypothesis")
        right = loss @ weights
        if np.abs(found - right).max() < 1e-9:
            continue
        square = loss[:, :many]
        says = looks_like(
            found,
            {
                "the weights are left out: every piece of evidence counts the same here": (
                    loss.mean(axis=1)
                ),
                "the weights are left out, and the mean is over hypotheses: a row of losses is one "
                "hypothesis's": square.mean(axis=0),
                "the losses are added without weights": loss.sum(axis=1),
                "hypotheses and evidence are exchanged: sum over the columns of each row": (
                    square.T @ weights[:many]
                ),
                "the weighted losses are averaged too: the weights sum to 1 already": right / much,
                "these are utilities: least risk is least expected loss": 1 - right,
                "this is the worst loss of each, not the expected one": loss.max(axis=1),
            },
        )
        return Finding(False, f"{says or 'risk[h] is the sum over r of weights[r] * loss[h, r]'}.")
    return Finding(True, "each row of losses, weighed by the evidence.")


@exercise
def model_weights(
    weigh: Callable[[list[str], list[float]], Any], seed: int = 0, drawn: int = 7
) -> Finding:
    """Check weights by the model's probability: from drawn texts and log-probabilities.

    It gives the distinct texts and a weight for each: its probability over the sum of theirs.
    """
    rng = np.random.default_rng(seed)
    for low in (0.0, -900.0):
        lines = random_texts(rng, drawn)
        logs = dict(zip(lines, (low - 4 * rng.random(drawn)).tolist(), strict=True))
        listed = [*lines, lines[1], lines[1], lines[2]]
        listed = [listed[i] for i in rng.permutation(len(listed))]
        answer = parts(
            weigh(listed, [logs[text] for text in listed]), 2, "two lists: texts and weights"
        )
        names = texts(answer[0])
        if len(set(names)) < len(names):
            return Finding(
                False,
                "a text stands there more than once: its probability is already all of it, so what "
                "was drawn twice would count twice.",
            )
        if set(names) != set(lines):
            return Finding(False, "the texts are not those drawn, each once.")
        with np.errstate(all="ignore"):
            found = _weights(answer[1], len(names), low)
        p = np.exp(np.array([logs[name] - low for name in names]))
        counts = np.array([listed.count(name) for name in names], float)
        right = p / p.sum()
        if np.abs(found - right).max() < 1e-9:
            continue
        says = looks_like(
            found,
            {
                "duplicates are counted twice: the model's probability of a text does not grow by "
                "drawing it again": p * counts / (p * counts).sum(),
                "these are the counts: here the model says how probable a text is": counts
                / counts.sum(),
                "all weigh the same: here the model says how probable a text is": np.full(
                    len(p), 1 / len(p)
                ),
                "they do not sum to 1: divide by their sum": p,
                "these are log-probabilities divided by their sum: take exp first": np.log(p) + low
                if not (np.log(p) + low).sum()
                else (np.log(p) + low) / (np.log(p) + low).sum(),
                "divided by the sum over all draws, duplicates and all: sum over distinct texts": p
                / (p * counts).sum(),
            },
        )
        return Finding(False, f"{says or 'a weight is exp(log p) over the sum of those'}.")
    return Finding(True, "each distinct text once, by its probability, however small.")


def _weights(answer: object, many: int, low: float) -> Floats:
    """The weights, or what is wrong with them where tiny probabilities made nothing of them."""
    try:
        found = numbers(answer, (many,), "one for each text")
    except NotUsable as reason:
        if low and ("nan" in str(reason) or "inf" in str(reason)):
            raise NotUsable(
                f"with log-probabilities near {low:.0f} it gives no number: exp of that is 0, so "
                "subtract the largest before exp, which changes no ratio."
            ) from None
        raise
    if low and not found.any():
        raise NotUsable(
            f"with log-probabilities near {low:.0f} all weights are 0: subtract the largest before "
            "exp, which changes no ratio."
        )
    return found


@exercise
def decision(
    choose: Callable[[list[str], Utility], Any], seed: int = 0, drawn: int = 16
) -> Finding:
    """Check a whole decision: from drawn texts, duplicates and all, and a utility to one of them.

    The draws are hypotheses and evidence; each draw counts the same.
    """
    rng = np.random.default_rng(seed)
    for _ in range(2):
        listed, table, named = _telling(rng, drawn)

        def utility(
            hypothesis: str, evidence: str, table: dict[tuple[str, str], float] = table
        ) -> float:
            return table[str(hypothesis), str(evidence)]

        answer = choose(listed, utility)
        written(answer)
        if type(answer) not in (str, np.str_):
            raise NotUsable(f"it gives {type(answer).__name__} and not one of the texts.")
        says = next((says for says, text in named.items() if text == answer), None)
        if says:
            return Finding(False, f"{says}.")
        if says is None:
            return Finding(False, f"it chooses {answer!r}, and another text has less risk.")
    return Finding(True, "the text of least risk, each draw counted once.")


def _telling(
    rng: np.random.Generator, drawn: int
) -> tuple[list[str], dict[tuple[str, str], float], dict[str, str]]:
    """Draws and a utility for which each common mistake chooses a text of its own."""
    lines = random_texts(rng, KINDS)
    while True:
        counts = 1 + rng.multinomial(drawn - KINDS, rng.dirichlet(np.full(KINDS, 0.7)))
        matrix = np.round(rng.random((KINDS, KINDS)), 3)
        np.fill_diagonal(matrix, 1)
        choices = {
            "": (matrix @ counts).argmax(),
            "duplicates are counted twice: listed as often as drawn and weighed by their count as "
            "well": (matrix @ counts**2).argmax(),
            "duplicates are lost: a text that was drawn three times is three pieces of evidence": (
                matrix.sum(axis=1).argmax()
            ),
            "this is the text drawn most often: the utility has no say in it": counts.argmax(),
            "this is the text of greatest risk: loss is to be small": (matrix @ counts).argmin(),
            "the utility is asked the wrong way round: the hypothesis comes first": (
                matrix.T @ counts
            ).argmax(),
        }
        if len({int(choice) for choice in choices.values()}) == len(choices):
            break
    listed = [line for line, count in zip(lines, counts, strict=True) for _ in range(count)]
    table = {(a, b): float(matrix[i, j]) for i, a in enumerate(lines) for j, b in enumerate(lines)}
    shuffled = [listed[i] for i in rng.permutation(drawn)]
    return shuffled, table, {says: lines[int(i)] for says, i in choices.items()}


KINDS = 9
"""Distinct texts among the draws of a telling case."""
