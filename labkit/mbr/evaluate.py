"""How good decisions are: corpus scores with sacrebleu, and whether a difference is more than luck.

A corpus score is computed from statistics added up over segments (n-gram matches, lengths), so the
statistics of each segment are all that has to be kept: a test set of any size streams through, and
resampling it is adding the same rows up again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np
from sacrebleu.metrics import BLEU, CHRF, TER

from labkit.bootstrap import interval, resampled
from labkit.errors import LabkitError

MADE: dict[str, Callable[[], Any]] = {
    "bleu": partial(BLEU, force=True),
    "chrf": CHRF,
    "chrf++": partial(CHRF, word_order=2),
    "ter": TER,
}
METRICS = tuple(MADE)
"""sacrebleu's metrics, by name. Higher is better, but for TER."""


@cache
def metric(name: str) -> Any:
    """Return sacrebleu's metric of that name; raises `LabkitError` if there is none."""
    if name not in MADE:
        raise LabkitError(f"No metric is named {name!r}; there are {', '.join(MADE)}.")
    return MADE[name]()


@dataclass
class Corpus:
    """A system's output as segment statistics, added to as the test set streams by.

    ``statistics[name]`` has a row for each segment.
    """

    metrics: tuple[str, ...] = ("bleu", "chrf")
    statistics: dict[str, list[list[float]]] = field(default_factory=dict)

    def add(self, outputs: Sequence[str], references: Sequence[str]) -> None:
        """Take in more segments; raises `LabkitError` where the two lists differ in length."""
        if len(outputs) != len(references):
            raise LabkitError(
                f"{len(outputs)} outputs and {len(references)} references were given; one of each "
                "for every segment is needed."
            )
        for name in self.metrics:
            rows = metric(name)._extract_corpus_statistics(list(outputs), [list(references)])
            self.statistics.setdefault(name, []).extend(rows)

    def table(self, name: str) -> np.ndarray:
        """Return all segments' statistics (segments, S); raises `LabkitError` if there are none."""
        if not self.statistics.get(name):
            raise LabkitError(f"There is nothing to compute {name} from: no segment was given.")
        return np.array(self.statistics[name], dtype=np.float64)

    def score(self, name: str) -> float:
        """Return the corpus score on sacrebleu's 0 to 100 scale."""
        return score_of(name, self.table(name).sum(axis=0))

    def scores(self) -> dict[str, float]:
        """Return the corpus score under every metric."""
        return {name: self.score(name) for name in self.metrics}


def corpus(
    outputs: Sequence[str], references: Sequence[str], metrics: Iterable[str] = ("bleu", "chrf")
) -> Corpus:
    """Return the statistics of a whole test set at once.

    >>> {name: round(score, 1) for name, score in corpus(["a cat"], ["a cat"]).scores().items()}
    {'bleu': 0.0, 'chrf': 100.0}
    """
    made = Corpus(tuple(metrics))
    made.add(outputs, references)
    return made


def score_of(name: str, statistics: np.ndarray) -> float:
    """Return the score that added-up statistics (S,) make."""
    return float(metric(name)._compute_score_from_stats(statistics).score)


def signature(name: str) -> str:
    """Return how the score is computed, in sacrebleu's words, so that others can repeat it."""
    one = metric(name)
    one.corpus_score(["a"], [["a"]])  # a signature is known once something was scored
    return f"{name}|{one.get_signature()}"


@dataclass(frozen=True)
class Result:
    """A system under one metric.

    ``low`` and ``high`` bound its score in 95% of resamples; ``gain`` is its score minus the
    baseline's, ``gain_low`` and ``gain_high`` its bounds, ``p`` the probability of a difference
    this large by luck alone. The baseline's own gain is 0 and its p is 1.
    """

    system: str
    metric: str
    score: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    p: float


def paired_bootstrap(
    systems: dict[str, Corpus], baseline: str, name: str = "bleu", resamples: int = 1000
) -> list[Result]:
    """Compare every system with the ``baseline`` on the same resampled test sets (Koehn 2004).

    The resamples and the p-value are sacrebleu's. Raises `LabkitError` where there is no such
    baseline or the systems have not output the same number of segments.
    """
    if baseline not in systems:
        raise LabkitError(
            f"There is no system {baseline!r} to compare with; there are {', '.join(systems)}."
        )
    tables = {system: corpus.table(name) for system, corpus in systems.items()}
    lengths = {len(table) for table in tables.values()}
    if len(lengths) > 1:
        raise LabkitError(
            f"The systems have output {sorted(lengths)} segments; a paired test needs the same."
        )
    segments = lengths.pop()
    chosen = resampled(segments, resamples)
    times = np.stack([np.bincount(row, minlength=segments) for row in chosen])  # (B, segments)
    drawn = {
        system: np.array([score_of(name, one) for one in times @ table])  # (B,)
        for system, table in tables.items()
    }
    scores = {system: corpus.score(name) for system, corpus in systems.items()}
    results = []
    for system, of in drawn.items():
        gain, gains = scores[system] - scores[baseline], of - drawn[baseline]
        size = np.abs(gains)  # by luck, resampled gains are centred by their mean size
        larger = int((size - size.mean() > abs(gain)).sum())
        p = 1.0 if gain == 0 else (larger + 1) / (resamples + 1)
        figures = (scores[system], *interval(of).tolist(), gain, *interval(gains).tolist(), p)
        results.append(Result(system, name, *figures))
    return results
