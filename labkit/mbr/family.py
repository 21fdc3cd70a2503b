"""One family: MAP, majority vote, best of n, MBR and their mixtures differ in loss and weights.

All of them take the hypothesis with the largest sum of an expected utility and a score:

    h* = argmax over h of (sum over r of w(r) u(h, r)) + strength * score(h).

With exact match as the utility and model weights that is MAP; with exact match of the *answers* and
counts it is self-consistency, the majority vote (Wang et al. 2023); with no utility and a user's
score it is best of n (Stiennon et al. 2020); with a smooth utility and no score it is MBR. That
many decoders are MBR in disguise is the point of Bertsch et al. 2023, "It's MBR All the Way Down".
The plain ways that MBR is held against come last: the most probable sample, the most frequent one,
and the oracle's. Greedy and beam search are in `labkit.mbr.search`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from labkit.errors import LabkitError
from labkit.mbr.decide import expected_loss, score
from labkit.mbr.utilities import Utility, matrix, name_of
from labkit.mbr.utilities.lexical import exact
from labkit.mbr.weights import distinct, logprob
from labkit.records import Sample, Weighting

Score = Callable[[Sample], float]
"""A reward of one hypothesis: finite, higher is better."""


def same_answer(extract: Callable[[str], str]) -> Utility:
    """Return the utility that is 1 where the answers extracted from two texts are equal, else 0.

    A text without an answer, for which ``extract`` gives "", equals nothing.

    >>> last = same_answer(lambda text: text.split()[-1] if text else "")
    >>> last(["so it is 4", "2 + 2 = 4", ""], ["about 5", "4"])
    array([[0., 1.],
           [0., 1.],
           [0., 0.]])
    """

    def utility(hypotheses: Sequence[str], evidence: Sequence[str]) -> np.ndarray:
        ours, theirs = ([extract(text) for text in texts] for texts in (hypotheses, evidence))
        return exact(ours, theirs) * np.array([[float(bool(one))] for one in ours])

    utility.__name__ = "same answer"
    return utility


def nothing(hypotheses: Sequence[str], evidence: Sequence[str]) -> np.ndarray:
    """Give every pair the utility 0, so that only a score decides: (H, R)."""
    return np.zeros((len(hypotheses), len(evidence)))


@dataclass(frozen=True)
class Member:
    """One decoder of the family: its utility, its weights, and the score that is added."""

    name: str
    utility: str | Utility
    weighting: Weighting
    score: Score | None = None
    strength: float = 1.0


@dataclass(frozen=True)
class Choice:
    """What one member chose, and the ``value`` it maximised; its loss and weights in words."""

    name: str
    loss: str
    weights: str
    score: str
    text: str
    value: float


def choose_as(samples: Sequence[Sample], member: Member) -> Choice:
    """Choose among the distinct samples as a member of the family does, the first of equals.

    Raises `LabkitError` for no samples, weights that samples lack, or a score that is not finite.

    >>> drawn = [Sample(text=text) for text in ("it is 4", "4", "5")]
    >>> vote = Member("self-consistency", same_answer(lambda text: text[-1:]), "counts")
    >>> choose_as(drawn, vote).text
    'it is 4'
    """
    hypotheses, _, weights, loss = score(samples, None, member.utility, "", member.weighting)
    value = 1 - expected_loss(loss, weights)
    if member.score is not None:
        scores = np.array([member.score(one) for one in hypotheses], dtype=np.float64)
        if not np.isfinite(scores).all():
            raise LabkitError("A score is not a finite number; every hypothesis needs one.")
        value = value + member.strength * scores
    best = int(np.argmax(value.round(12)))
    return Choice(
        member.name,
        "none" if member.utility is nothing else f"1 - {name_of(member.utility)}",
        member.weighting,
        "none" if member.score is None else f"{member.strength:g} x score",
        hypotheses[best].text,
        float(value[best]),
    )


def decoders(extract: Callable[[str], str] | None = None) -> list[Member]:
    """Return the family's members, from MAP to MBR with a score; ``extract`` adds the vote.

    The utility is chrF, the score the log-probability.
    """
    vote = [] if extract is None else [Member("self-consistency", same_answer(extract), "counts")]
    return [
        Member("MAP among the samples", "exact", "model"),
        Member("most frequent sample", "exact", "counts"),
        *vote,
        Member("best of n", nothing, "counts", logprob),
        Member("MBR", "chrf", "counts"),
        Member("MBR, model weights", "chrf", "model"),
        Member("MBR + score", "chrf", "counts", logprob, 0.02),
    ]


def most_probable(samples: Sequence[Sample]) -> Sample:
    """Return the sample of largest model probability: MAP, as far as sampling finds it.

    Raises `LabkitError` for no samples, or one without a log-probability.

    >>> most_probable([Sample(text="a", logprob=-2.0), Sample(text="b", logprob=-1.0)]).text
    'b'
    """
    merged = _some(samples)
    if any(sample.logprob is None for sample in merged):
        raise LabkitError(
            "A sample has no log-probability, so the most probable is not known; "
            "take the most frequent one."
        )
    return max(merged, key=logprob)


def most_frequent(samples: Sequence[Sample]) -> Sample:
    """Return the sample drawn most often, the first of equals; raises `LabkitError` for no samples.

    >>> most_frequent([Sample(text="a"), Sample(text="b", count=2)]).text
    'b'
    """
    return max(_some(samples), key=lambda sample: sample.count)


def oracle(samples: Sequence[Sample], reference: str, utility: str | Utility = "chrf") -> Sample:
    """Return the sample most like the reference, which no decoder knows: the best possible choice.

    >>> oracle([Sample(text="a dog"), Sample(text="a cat")], "the cat").text
    'a cat'
    """
    samples = _some(samples)
    values = matrix(utility, [sample.text for sample in samples], [reference])
    return samples[int(np.argmax(values[:, 0]))]


def _some(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    if not samples:
        raise LabkitError("There are no samples to choose from; draw at least one.")
    return distinct(samples)
