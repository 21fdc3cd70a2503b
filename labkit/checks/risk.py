"""Checks of the exercises on minimum Bayes risk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from labkit.checks import Finding, answers
from labkit.checks.answers import Answer, Floats, NotUsable, exercise, refuse, verdict

LOSS = np.array([
    [8.0, 7.0, 7.0, 2.0, 8.0, 4.0],
    [2.0, 7.0, 0.0, 6.0, 9.0, 8.0],
    [7.0, 5.0, 1.0, 6.0, 3.0, 3.0],
    [9.0, 1.0, 9.0, 6.0, 5.0, 0.0],
    [8.0, 7.0, 0.0, 0.0, 2.0, 6.0],
    [3.0, 5.0, 6.0, 1.0, 8.0, 5.0],
])  # fmt: skip
P = np.array([0.3, 0.2, 0.15, 0.15, 0.1, 0.1])
"""Losses and probabilities for which each common mistake chooses an action of its own."""


@exercise
def bayes_action(choose: Answer) -> Finding:
    """Check a function from losses (actions, states) and p (states,) to the best action."""
    answer, risk = choose(LOSS, P), LOSS @ P
    refuse((np.ndim(answer) > 0, "it gives a whole array; the answer is one action's index"))
    return verdict(
        answers.whole(answer), risk.argmin(), "the action of least expected loss",
        (risk.argmax(), "this is the action of greatest risk: loss should be small, so argmin"),
        ((LOSS.T @ P).argmin(), "the states were summed over as if they were actions: rows of the "
         "loss are actions, so each row is weighted by p"),
        (LOSS.sum(axis=1).argmin(), "the states all weigh the same here: weight each by its "
         "probability"),
        (LOSS[:, P.argmax()].argmin(), "this uses the most probable state alone"),
        (LOSS.max(axis=1).argmin(), "this guards against the worst state, whatever its "
         "probability: that is minimax, another rule"),
        otherwise=f"it gives {answer!r}, and no action has that index",
    )  # fmt: skip


@exercise
def merged(merge: Answer) -> Finding:
    """Check a function from drawn texts to the distinct ones and weights, their shares of draws."""
    drawn = ["rain", "sun", "rain", "fog", "rain", "sun"]
    answer = merge(drawn)
    try:
        texts, weights = answer
        by_text = dict(zip(texts, map(float, weights), strict=True))
    except (TypeError, ValueError):
        raise NotUsable("give two things of equal length: the texts, and their weights.") from None
    missing = sorted(set(drawn) ^ set(by_text))
    refuse(
        (len(by_text) != len(list(texts)), "a text is listed more than once: list each once"),
        (missing, f"the texts are not those drawn; it is about {missing[:1]}"),
    )
    counts = np.array([drawn.count(text) for text in by_text], float)
    right, kinds = counts / len(drawn), len(counts)
    return verdict(
        np.array(list(by_text.values())), right,
        "risks from these weights are those of the whole list, to the last digit",
        (counts, "these are the counts: divide them by the number of draws, so that they sum to 1"),
        (np.full(kinds, 1 / kinds), "every distinct text weighs the same, so the draws of “rain” "
         "beyond the first are lost"),
        (counts / kinds, "this divides by the number of distinct texts: divide by the number of "
         "draws"),
        otherwise=f"the weights are {by_text}, and should be "
                  f"{dict(zip(by_text, right, strict=True))}",
    )  # fmt: skip


Utility = Callable[[str, str], float]
"""How good a hypothesis is if a piece of evidence is right, on 0..1."""

WORDS = (
    "a the cat dog bird sat ran slept on under by mat tree house and then again".split()  # noqa: SIM905
)


def random_texts(rng: np.random.Generator, many: int, longest: int = 9) -> list[str]:
    """Return distinct lines of words, most of them of a few common ones."""
    found: dict[str, None] = {}
    while len(found) < many:
        size = int(rng.integers(3, longest + 1))
        found[" ".join(rng.choice(WORDS, size=size))] = None
    return list(found)


def precision(hypothesis: str, evidence: str) -> float:
    """Return the share of the hypothesis's words that the evidence also has; not symmetric."""
    ours, theirs = Counter(hypothesis.split()), Counter(evidence.split())
    return (ours & theirs).total() / max(ours.total(), 1)


@exercise
def losses(build: Answer, seed: int = 0, many: int = 4, much: int = 6) -> Finding:
    """Check the loss matrix (H, R): 1 - utility of each hypothesis against each evidence text."""
    lines = random_texts(np.random.default_rng(seed), many + much)
    ours, theirs = lines[:many], lines[many:]
    found = answers.numbers(build(ours, theirs, precision))

    def utilities(rows: list[str], columns: list[str]) -> Floats:
        return np.array([[precision(row, column) for column in columns] for row in rows])

    right = 1 - utilities(ours, theirs)
    otherwise = "some losses differ: cell [h, r] is 1 - utility(hypotheses[h], evidence[r])"
    if found.shape != right.shape:
        otherwise = (
            f"it has shape {found.shape}, and {right.shape} is needed: a row for each hypothesis"
        )
    return verdict(
        found, right, "a row for each hypothesis, a column for each piece of evidence",
        (1 - right, "these are utilities: a loss is 1 - utility"),
        (right.T, "rows and columns are exchanged: hypotheses are rows"),
        (1 - right.T, "rows and columns are exchanged, and these are utilities"),
        (1 - utilities(theirs, ours).T, "the utility's arguments are exchanged: the hypothesis "
         "comes first"),
        (1 - utilities(ours, ours), "hypotheses are compared with each other: the columns are the "
         "evidence"),
        otherwise=otherwise,
    )  # fmt: skip


@exercise
def risks(weigh: Answer, seed: int = 0, many: int = 5) -> Iterator[Finding]:
    """Check the risk of each hypothesis, (H,), from losses (H, R) and weights (R,)."""
    rng = np.random.default_rng(seed)
    for much in (many, many + 2):
        loss, weights = rng.random((many, much)), rng.dirichlet(np.full(much, 0.7))
        found = answers.numbers(weigh(loss, weights), (many,), "one risk for each hypothesis")
        right, square = loss @ weights, loss[:, :many]
        yield verdict(
            found, right, "each row of losses, weighted by the evidence",
            (loss.mean(axis=1), "the weights are left out: this is the mean of each row"),
            (square.mean(axis=0), "the weights are left out, and the mean is over hypotheses: a "
             "row of losses is one hypothesis's"),
            (loss.sum(axis=1), "the losses are added without weights"),
            (square.T @ weights[:many], "hypotheses and evidence are exchanged: sum over the "
             "columns of each row"),
            (right / much, "the weighted losses are averaged too: the weights sum to 1 already"),
            (1 - right, "these are utilities: least risk is least expected loss"),
            (loss.max(axis=1), "this is the worst loss of each, not the expected one"),
            otherwise="risk[h] is the sum over r of weights[r] * loss[h, r]",
        )  # fmt: skip


@exercise
def model_weights(weigh: Answer, seed: int = 0, drawn: int = 7) -> Iterator[Finding]:
    """Check a function from drawn texts and their log-probabilities to the distinct texts and
    weights: the model's probability of each over the sum of theirs."""
    rng = np.random.default_rng(seed)
    for low in (0.0, -900.0):
        lines = random_texts(rng, drawn)
        logs = dict(zip(lines, (low - 4 * rng.random(drawn)).tolist(), strict=True))
        drawn_texts = [*lines, lines[1], lines[1], lines[2]]
        drawn_texts = [drawn_texts[i] for i in rng.permutation(len(drawn_texts))]
        answer = weigh(drawn_texts, [logs[text] for text in drawn_texts])
        names, weights = answers.parts(answer, 2, "two lists: texts and weights")
        names = answers.texts(names)
        refuse(
            (len(set(names)) < len(names), "a text is listed more than once: its probability is "
             "already all of it, so what was drawn twice would count twice"),
            (set(names) != set(lines), "the texts are not those drawn, each once"),
        )  # fmt: skip
        found = _weights(weights, len(names), low)
        p = np.exp(np.array([logs[name] - low for name in names]))
        counts = np.array([drawn_texts.count(name) for name in names], float)
        yield verdict(
            found, p / p.sum(), "each distinct text once, by its probability, however small",
            (p * counts / (p * counts).sum(), "duplicates are counted twice: the model's "
             "probability of a text does not grow by drawing it again"),
            (counts / counts.sum(), "these are the counts: here the model says how probable a text "
             "is"),
            (np.full(len(p), 1 / len(p)), "all weigh the same: here the model says how probable a "
             "text is"),
            (p, "they do not sum to 1: divide by their sum"),
            ((np.log(p) + low) / (np.log(p) + low).sum(), "these are log-probabilities divided by "
             "their sum: take exp first"),
            (p / (p * counts).sum(), "divided by the sum over all draws, duplicates and all: sum "
             "over distinct texts"),
            otherwise="a weight is exp(log p) over the sum of those",
        )  # fmt: skip


def _weights(answer: object, many: int, low: float) -> Floats:
    """Return the weights; if tiny probabilities made them 0 or NaN, `NotUsable` says so."""
    try:
        found = answers.numbers(answer, (many,), "one for each text")
    except NotUsable as reason:
        if not low or not ("nan" in str(reason) or "inf" in str(reason)):
            raise
        found = np.zeros(many)
    refuse((low and not found.any(), f"with log-probabilities near {low:.0f} all weights are 0 or "
            "no number: exp of that is 0, so subtract the largest before exp, which changes no "
            "ratio"))  # fmt: skip
    return found


@exercise
def decision(choose: Answer, seed: int = 0, drawn: int = 16) -> Iterator[Finding]:
    """Check a whole decision, from drawn texts and a utility to one of them: each draw counts, as a
    hypothesis and as evidence, duplicates too."""
    rng = np.random.default_rng(seed)
    kinds = 9  # distinct texts
    for _ in range(2):
        lines = random_texts(rng, kinds)
        while True:  # until each mistake chooses a text of its own
            counts = 1 + rng.multinomial(drawn - kinds, rng.dirichlet(np.full(kinds, 0.7)))
            matrix = np.round(rng.random((kinds, kinds)), 3)
            np.fill_diagonal(matrix, 1)
            right = matrix @ counts
            exchanged, twice, once = matrix.T @ counts, matrix @ counts**2, matrix.sum(axis=1)
            worths = (right, twice, once, counts, -right, exchanged)
            choices = [lines[int(worth.argmax())] for worth in worths]
            if len(set(choices)) == len(choices):
                break
        listed = np.repeat(lines, counts).tolist()
        answer = choose([listed[i] for i in rng.permutation(drawn)], _looked_up(matrix, lines))
        kind = type(answer)
        refuse((kind not in (str, np.str_), f"it gives {kind.__name__} and not one of the texts"))
        yield verdict(
            str(answer), choices[0], "the text of least risk, each draw counted once",
            (choices[1], "duplicates are counted twice: listed as often as drawn and weighted by "
             "their count as well"),
            (choices[2], "duplicates are lost: a text that was drawn three times is three pieces "
             "of evidence"),
            (choices[3], "this is the text drawn most often: the utility plays no part in it"),
            (choices[4], "this is the text of greatest risk: loss should be small"),
            (choices[5], "the utility's arguments are exchanged: the hypothesis comes first"),
            otherwise=f"it chooses {answer!r}, and another text has less risk",
        )  # fmt: skip


def _looked_up(matrix: Floats, lines: Sequence[str]) -> Utility:
    """Return the utility of two of the ``lines``, by their place in the matrix."""
    return lambda ours, theirs: float(matrix[lines.index(ours), lines.index(theirs)])
