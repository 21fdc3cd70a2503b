"""How good decisions are: corpus scores with sacrebleu, and whether a difference is more than luck.

A corpus score is computed from statistics added up over segments (n-gram matches, lengths), so the
statistics of each segment are all that has to be kept: a test set of any size streams through, and
resampling it is adding the same rows up again.

`textbook` measures what is known of MBR on samples drawn once: quality rises with the number of
samples (Eikema & Aziz 2020); the metric that was the utility gains most, so it must not be the only
one reported (Kovacs et al. 2024); how samples are weighed matters (Jinnai et al. 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, get_args

import numpy as np
from sacrebleu.metrics import BLEU, CHRF, TER

from labkit.bootstrap import against, interval, resampled
from labkit.errors import LabkitError
from labkit.mbr.decide import choose
from labkit.mbr.family import most_frequent, most_probable
from labkit.mbr.pairs import Case, first_of
from labkit.mbr.utilities import Utility, matrix, name_of
from labkit.paths import data_dir
from labkit.records import Sample, Weighting

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


class Corpus:
    """A system's output as segment statistics, added to as the test set streams by.

    ``statistics[name]`` has a row for each segment, under each of the metrics given.
    """

    def __init__(self, metrics: Iterable[str] = ("bleu", "chrf")) -> None:
        self.statistics: dict[str, list[list[float]]] = {name: [] for name in metrics}

    def add(self, outputs: Sequence[str], references: Sequence[str]) -> None:
        """Take in more segments; raises `LabkitError` where the two lists differ in length."""
        if len(outputs) != len(references):
            raise LabkitError(
                f"{len(outputs)} outputs and {len(references)} references were given; one of each "
                "for every segment is needed."
            )
        for name, rows in self.statistics.items():
            found = metric(name)._extract_corpus_statistics(list(outputs), [list(references)])
            rows.extend(found)

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
        return {name: self.score(name) for name in self.statistics}


def corpus(
    outputs: Sequence[str], references: Sequence[str], metrics: Iterable[str] = ("bleu", "chrf")
) -> Corpus:
    """Return the statistics of a whole test set at once.

    >>> {name: round(score, 1) for name, score in corpus(["a cat"], ["a cat"]).scores().items()}
    {'bleu': 0.0, 'chrf': 100.0}
    """
    made = Corpus(metrics)
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
    drawn = np.array(
        [[score_of(name, one) for one in times @ table] for table in tables.values()]
    ).T  # (B, systems)
    scores = np.array([corpus.score(name) for corpus in systems.values()])
    first = list(systems).index(baseline)
    results = []
    rows = zip(systems, against(scores, drawn, first), (drawn - drawn[:, [first]]).T, strict=True)
    for system, figures, gains in rows:
        gain, size = figures[3], np.abs(gains)
        # By luck, resampled gains are centred by their mean size.
        larger = int((size - size.mean() > abs(gain)).sum())
        p = 1.0 if gain == 0 else (larger + 1) / (resamples + 1)
        results.append(Result(system, name, *[*figures, p]))
    return results


def textbook(
    cases: Sequence[Case], utility: str = "chrf", resamples: int = 1000
) -> dict[str, list[Result]]:
    """Return the three findings as tables, each system compared with the first of its kind.

    ``samples`` against one sample, ``utilities`` against the most frequent sample, ``weightings``
    against uniform; a row for each system and metric. Raises `LabkitError` for no cases.
    """
    most = min((sum(sample.count for sample in case.samples) for case in cases), default=0)
    return {
        finding: [
            row
            for metric in ("bleu", "chrf")
            for row in paired_bootstrap(systems, baseline, metric, resamples)
        ]
        for finding, (baseline, ways) in textbook_ways(most, utility).items()
        for systems in [decided(cases, ways)]
    }


Way = Callable[[Case], Sample]
"""A way to decide a case: the sample it takes."""


def textbook_ways(
    most: int, utility: str | Utility = "chrf"
) -> dict[str, tuple[str, dict[str, Way]]]:
    """Return for each finding the name of its baseline, and all ways to decide.

    They are: from the first 1, 2, 4, ... of ``most`` samples, in an order drawn once a case; under
    each utility, and the most frequent and the most probable sample; under each weighting, of
    which uniform and counts are the same distribution over texts.
    """

    def by(
        utility: str | Utility, weighting: Weighting = "uniform", many: int | None = None
    ) -> Way:
        def way(case: Case) -> Sample:
            samples = case.samples if many is None else first_of(case, many, 0)
            return choose(samples, utility=utility, weighting=weighting, source=case.source)

        return way

    utilities = {name: by(name) for name in ("chrf", "bleu", "f1", "edit")}
    utilities["most frequent"] = lambda case: most_frequent(case.samples)
    utilities["most probable"] = lambda case: most_probable(case.samples)
    sizes = [2**power for power in range(most.bit_length())]
    return {
        "samples": ("1", {str(size): by(utility, many=size) for size in sizes}),
        "utilities": ("most frequent", utilities),
        "weightings": ("uniform", {name: by(utility, name) for name in get_args(Weighting)}),
    }


def decided(cases: Sequence[Case], ways: dict[str, Way]) -> dict[str, Corpus]:
    """Decide every case in every way; raises `LabkitError` if there is no case."""
    if not cases:
        raise LabkitError("There are no cases to decide; give at least one.")
    references = [case.reference for case in cases]
    return {
        name: corpus([way(case).text for case in cases], references) for name, way in ways.items()
    }


@dataclass(frozen=True)
class Edit:
    """A sentence, an edit that keeps its meaning in other words, and one that changes it.

    The latter changes few letters ("never" to "always"). A utility that follows meaning rates the
    first edit higher; metrics of overlap are known to fail here (Callison-Burch et al. 2006).
    """

    text: str
    preserving: str
    changing: str


def read_edits() -> list[Edit]:
    """Read the lab's own edits, of ``data/edits``."""
    lines = (data_dir() / "edits" / "eng.tsv").read_text(encoding="utf-8").splitlines()
    return [Edit(*line.split("\t")) for line in lines[1:]]


@dataclass(frozen=True)
class EditScore:
    """A utility on the edits: its mean for each kind, and how often the preserving one is higher.

    ``unrelated`` is the mean against the other sentences, the scale's lower end. ``share`` lies
    between ``low`` and ``high`` in 95% of resamples of the sentences; equal values count one half.
    Chance is 0.5.
    """

    utility: str
    preserving: float
    changing: float
    unrelated: float
    share: float
    low: float
    high: float


def compare_on_edits(
    utilities: dict[str, str | Utility] | list[str | Utility], edits: list[Edit] | None = None
) -> list[EditScore]:
    """Score both edits of every sentence against the sentence, under each utility."""
    edits = read_edits() if edits is None else edits
    named = utilities if isinstance(utilities, dict) else {name_of(one): one for one in utilities}
    drawn = resampled(len(edits), 1000)
    texts = [one.text for one in edits]
    edited = [*(one.preserving for one in edits), *(one.changing for one in edits)]
    rows = []
    for name, utility in named.items():
        table = matrix(utility, edited, texts).reshape(2, len(edits), len(edits))
        kept, changed = table.diagonal(axis1=1, axis2=2)  # (edits,) each
        others = (table.sum() - kept.sum() - changed.sum()) / max(table.size - 2 * len(edits), 1)
        wins = (np.sign(kept - changed) + 1) / 2
        means = (float(each.mean()) for each in (kept, changed, others, wins))
        rows.append(EditScore(name, *means, *interval(wins[drawn].mean(axis=1)).tolist()))
    return rows
