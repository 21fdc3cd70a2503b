"""The textbook's findings, measured on samples drawn once.

Each study takes `Case`s, decides them in several ways, and gives a `Corpus` for each way, which
`labkit.mbr.evaluate.paired_bootstrap` compares:

* quality rises with the number of samples (Eikema & Aziz 2020);
* the metric that was the utility gains most, so it must not be the only one reported (Kovacs et
  al. 2024);
* how samples are weighed matters (Jinnai et al. 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import tee
from typing import TYPE_CHECKING, get_args

import numpy as np

from labkit.errors import LabkitError
from labkit.mbr.decide import choose
from labkit.mbr.evaluate import Corpus, Result, corpus, paired_bootstrap
from labkit.mbr.family import most_frequent, most_probable
from labkit.mbr.utilities import Utility
from labkit.mbr.weights import distinct
from labkit.records import Sample, Weighting

if TYPE_CHECKING:
    from labkit.mbr.conditional import Conditional
    from labkit.mbr.draws import Draws


@dataclass(frozen=True)
class Case:
    """A source, its reference, and the samples drawn for it."""

    source: str
    reference: str
    samples: tuple[Sample, ...]


def draw_cases(
    model: Conditional, pairs: Iterable[tuple[str, str]], how: Draws | None = None
) -> Iterator[Case]:
    """Draw samples for each source of a test set, a batch of sources at a time."""
    from labkit.mbr.draws import stream

    ahead, behind = tee(pairs)
    sampled = stream(model, (source for source, _ in ahead), how)
    for (source, reference), samples in zip(behind, sampled, strict=True):
        yield Case(source, reference, samples)


def textbook(
    cases: Sequence[Case], utility: str = "chrf", resamples: int = 1000
) -> dict[str, list[Result]]:
    """Return the three findings as tables, each system compared with the first of its kind.

    ``samples`` against one sample, ``utilities`` against the most frequent sample, ``weightings``
    against uniform; a row for each system and metric. Raises `LabkitError` for no cases.
    """
    most = min((sum(sample.count for sample in case.samples) for case in cases), default=0)
    sizes = [2**power for power in range(most.bit_length())]
    studies = {
        "samples": ("1", by_samples(cases, sizes, utility)),
        "utilities": ("most frequent", by_utility(cases)),
        "weightings": ("uniform", by_weighting(cases, utility)),
    }
    return {
        finding: [
            row
            for metric in ("bleu", "chrf")
            for row in paired_bootstrap(systems, baseline, metric, resamples)
        ]
        for finding, (baseline, systems) in studies.items()
    }


Way = Callable[[Case], Sample]
"""A way to decide a case: the sample it takes."""


def decided(cases: Sequence[Case], ways: dict[str, Way]) -> dict[str, Corpus]:
    """Decide every case in every way; raises `LabkitError` if there is no case."""
    if not cases:
        raise LabkitError("There are no cases to decide; give at least one.")
    references = [case.reference for case in cases]
    return {
        name: corpus([way(case).text for case in cases], references) for name, way in ways.items()
    }


def by_samples(
    cases: Sequence[Case],
    sizes: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
    utility: str | Utility = "chrf",
) -> dict[str, Corpus]:
    """Decide from the first 1, 2, 4, ... of a case's samples, in an order drawn once a case.

    Raises `LabkitError` where a case has fewer samples than the largest size.
    """

    def way(size: int, case: Case) -> Sample:
        return choose(first_of(case, size, 0), utility=utility, source=case.source)

    return decided(cases, {str(size): partial(way, size) for size in sizes})


def by_utility(
    cases: Sequence[Case], utilities: Sequence[str] = ("chrf", "bleu", "f1", "edit")
) -> dict[str, Corpus]:
    """Decide under each utility; add the most frequent and the most probable sample."""
    ways: dict[str, Way] = {name: partial(_best, utility=name) for name in utilities}
    ways["most frequent"] = lambda case: most_frequent(case.samples)
    ways["most probable"] = lambda case: most_probable(case.samples)
    return decided(cases, ways)


def by_weighting(cases: Sequence[Case], utility: str | Utility = "chrf") -> dict[str, Corpus]:
    """Decide under each weighting; uniform and counts are the same distribution over texts."""
    names = get_args(Weighting)
    return decided(cases, {name: partial(_best, utility=utility, weighting=name) for name in names})


def _best(case: Case, utility: str | Utility, weighting: Weighting = "uniform") -> Sample:
    return choose(case.samples, utility=utility, weighting=weighting, source=case.source)


def first_of(case: Case, many: int, seed: int) -> tuple[Sample, ...]:
    """Return the first ``many`` of a case's samples in a random order that only the case sets."""
    counts = [sample.count for sample in case.samples]
    if not 1 <= many <= sum(counts):
        raise LabkitError(
            f"{many} samples of a case were asked for and {sum(counts)} were drawn; "
            "ask for at least 1 and at most those."
        )
    drawn = np.repeat(np.arange(len(counts)), counts)
    rng = np.random.default_rng([seed, *case.source.encode("utf-8", "surrogatepass")])
    chosen = rng.permutation(drawn)[:many]
    return distinct([case.samples[i].model_copy(update={"count": 1}) for i in chosen])
