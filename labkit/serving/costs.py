"""The time that a step of the batch takes, and the number of draft nodes that is best for it.

Drafts are checked with arithmetic that the machine has to spare while it waits for memory. Each
further user takes some of it, until nothing is spare and every draft node costs as much as another
user's token. So the best number of draft nodes after each row depends on the batch::

    tokens a second = batch * (1 + chance of node 1 + ... + chance of node n) / seconds(batch, n)

`NodeTable` holds it for each batch size: the engine looks it up at every step, and
`labkit.serving.simulate` computes it for machines that are not at hand.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Protocol


class Costs(Protocol):
    """The seconds that the parts of a step take."""

    def prefill_s(self, rows: int) -> float:
        """Return the time to process ``rows`` prompt tokens."""

    def check_s(self, rows: float, cached: int) -> float:
        """Return the time to process ``rows`` new tokens, drafts included.

        ``cached`` tokens are in the KV cache before them, in all.
        """

    def draft_s(self, batch: int, nodes: float) -> float:
        """Return the time to draft ``nodes`` after each of ``batch`` rows."""


class Curve:
    """Seconds by size, measured at a few sizes, with straight lines between them.

    A curve never falls; beyond the largest size its last line goes on.

    >>> curve = Curve({1: 1.0, 3: 2.0})
    >>> curve(2), curve(5)
    (1.5, 3.0)
    """

    def __init__(self, points: Mapping[int, float]) -> None:
        self.sizes = sorted(points)
        self._rising = list(accumulate((float(points[size]) for size in self.sizes), max))

    def __call__(self, size: float) -> float:
        """Return the seconds for a size."""
        place = bisect_left(self.sizes, size)
        if place == 0 or len(self.sizes) == 1:
            return self._rising[0]
        high = min(place, len(self.sizes) - 1)
        (x0, x1), (y0, y1) = self.sizes[high - 1 : high + 1], self._rising[high - 1 : high + 1]
        return y0 + (y1 - y0) * (size - x0) / (x1 - x0)


@dataclass(frozen=True)
class Measured:
    """Costs that were measured on this machine.

    ``prefill`` is by prompt tokens, ``check`` by the rows of the pass, whatever the cache holds,
    and ``draft`` by the nodes drafted in all.
    """

    prefill: Curve
    check: Curve
    draft: Curve

    def prefill_s(self, rows: int) -> float:
        """See `Costs.prefill_s`."""
        return self.prefill(rows)

    def check_s(self, rows: float, cached: int) -> float:
        """See `Costs.check_s`."""
        return self.check(rows)

    def draft_s(self, batch: int, nodes: float) -> float:
        """See `Costs.draft_s`."""
        return self.draft(batch * nodes) if nodes else 0.0


def tokens_per_second(
    costs: Costs,
    batch: int,
    chances: Sequence[float],
    cached: int = 0,
    filled: float = 1.0,
) -> dict[int, float]:
    """Return the expected tokens a second for each number of nodes in `budgets`.

    ``chances`` (N,) are those of the node of each rank to be accepted. ``filled`` is the share of
    the nodes allowed that is drafted: prompt lookup drafts none where nothing matches.

    >>> def expected(*check):
    ...     costs = Measured(Curve({1: 0.1}), Curve(dict(enumerate(check, 1))), Curve({1: 0.0}))
    ...     return tokens_per_second(costs, 1, (0.5, 0.3))
    >>> expected(0.1, 0.1, 0.1)  # three rows for the price of one
    {0: 10.0, 1: 15.0, 2: 18.0}
    >>> expected(0.1, 0.2, 0.3)  # each row at full price
    {0: 10.0, 1: 7.5, 2: 6.0}
    """
    return {
        nodes: batch
        * (1 + float(sum(chances[:nodes])))
        / (
            costs.draft_s(batch, nodes * filled)
            + costs.check_s(batch * (1 + nodes * filled), cached)
        )
        for nodes in budgets(len(chances))
    }


def best_nodes(rates: Mapping[int, float]) -> int:
    """Return the number of nodes with the highest rate; the fewest of equals.

    >>> best_nodes({0: 10.0, 1: 15.0, 2: 15.0})
    1
    """
    return max(rates, key=lambda nodes: rates[nodes])


def budgets(max_nodes: int) -> tuple[int, ...]:
    """Return the numbers of nodes to choose from: none, then doubling, then all.

    >>> budgets(12)
    (0, 1, 2, 4, 8, 12)
    """
    doubling = [2**i for i in range(max_nodes.bit_length()) if 2**i < max_nodes]
    return (0, *doubling, max_nodes) if max_nodes else (0,)


@dataclass(frozen=True)
class NodeTable:
    """The best number of draft nodes for each batch size.

    ``chances`` (N,) are those of the node of each rank to be accepted, ``filled`` is the share of
    the nodes allowed that is drafted (see `tokens_per_second`).

    >>> free = Measured(Curve({1: 1.0}), Curve({4: 0.1, 8: 0.2}), Curve({1: 0.001}))
    >>> table = NodeTable(free, (0.6, 0.4, 0.2))
    >>> [table.nodes(batch) for batch in (1, 2, 4, 8)]
    [3, 1, 0, 0]
    >>> print(table.describe(2))
    batch of 2: draft 1 nodes a row, 31.7 tokens/s expected; vanilla 20.0
    """

    costs: Costs
    chances: tuple[float, ...]
    filled: float = 1.0
    _best: dict[tuple[int, int], int] = field(default_factory=dict, repr=False)

    def rates(self, batch: int, cached: int = 0) -> dict[int, float]:
        """Return the expected tokens a second for each number of nodes."""
        return tokens_per_second(self.costs, batch, self.chances, cached, self.filled)

    def nodes(self, batch: int, cached: int = 0) -> int:
        """Return the best number of nodes; 0 is vanilla."""
        key = batch, cached // (64 * batch)
        if key not in self._best:
            self._best[key] = best_nodes(self.rates(batch, cached))
        return self._best[key]

    def describe(self, batch: int) -> str:
        """Return the table's row for a batch size in words."""
        rates, best = self.rates(batch), self.nodes(batch)
        return (
            f"batch of {batch}: draft {best} nodes a row, {rates[best]:.1f} tokens/s expected; "
            f"vanilla {rates[0]:.1f}"
        )
