"""The decision for fewer utility calls: approximations from the literature, one file each.

The exact decision scores every pair, which a neural metric makes slow. Each method here takes a
`Problem` and gives a `Decision`: the hypothesis it chose, and how many calls it made.
`compare_methods` measures how often each finds the exact minimiser, and what its choices cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from labkit.errors import LabkitError
from labkit.mbr.approximate.aggregation import aggregation, centroids
from labkit.mbr.approximate.coarse_to_fine import coarse_to_fine
from labkit.mbr.approximate.halving import halving
from labkit.mbr.approximate.low_rank import low_rank
from labkit.mbr.approximate.problem import Decision, Problem, exact, problem
from labkit.mbr.approximate.pruning import pruning

Method = Callable[[Problem, np.random.Generator], Decision]

METHODS: dict[str, Method] = {
    "exact": lambda task, rng: exact(task),
    "aggregation": lambda task, rng: aggregation(task),
    "centroids": centroids,
    "coarse to fine": lambda task, rng: coarse_to_fine(task),
    "halving": halving,
    "low rank": low_rank,
    "pruning": pruning,
}
"""Every method with its defaults."""

__all__ = [
    "METHODS",
    "Comparison",
    "Decision",
    "Problem",
    "aggregation",
    "centroids",
    "coarse_to_fine",
    "compare_methods",
    "exact",
    "halving",
    "low_rank",
    "problem",
    "pruning",
]


@dataclass(frozen=True)
class Comparison:
    """A method against the exact decision, over many problems.

    ``calls`` is the share of the exact decision's calls, ``found`` how often the choice has the
    exact least risk, ``regret`` by how much the risk of the choice is above it, on average.
    """

    method: str
    calls: float
    found: float
    regret: float


def compare_methods(
    problems: Iterable[Problem], methods: dict[str, Method] | None = None
) -> list[Comparison]:
    """Run every method on every problem; raises `LabkitError` if there is no problem."""
    methods = METHODS if methods is None else methods
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in methods}
    for number, task in enumerate(problems):
        risk = exact(task).risk
        for name, method in methods.items():
            found = method(replace(task), np.random.default_rng((0, number)))
            regret = risk[found.best] - risk.min()
            rows[name].append((found.calls / found.of, float(regret < 1e-12), regret))
    if not any(rows.values()):
        raise LabkitError("There are no problems to compare the methods on; give at least one.")
    return [Comparison(name, *np.mean(row, axis=0).tolist()) for name, row in rows.items()]
