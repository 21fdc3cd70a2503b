"""What a step of the batch takes, measured or computed, and which bet on drafts it makes the best.

Drafts are checked with arithmetic that the machine has to spare while it waits for memory. Each
further user takes some of it, until nothing is spare and every drafted node costs as much as
another user's token. So the number of nodes drafted after each row is a bet with known odds::

    tokens a second = batch * (1 + chance of node 1 + ... + chance of node n) / seconds(batch, n)

`labkit.serving.switch` makes that bet step by step, `labkit.serving.simulate` for machines that are
not at hand.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

LEARNING = 0.2
"""How far one step's time moves a measured curve: the power of what it is off by."""


class Costs(Protocol):
    """The seconds that the parts of a step take."""

    def prefill_s(self, rows: int) -> float:
        """Reading ``rows`` prompt tokens."""

    def check_s(self, rows: float, cached: int) -> float:
        """Looking at ``rows`` new tokens, drafts included, with ``cached`` earlier ones in all."""

    def draft_s(self, batch: int, nodes: float) -> float:
        """Drafting ``nodes`` after each of ``batch`` rows."""


class Curve:
    """Seconds by size, measured at a few sizes with straight lines between, and kept up to date.

    A curve never falls; beyond the largest size its last line goes on.

    >>> curve = Curve({1: 1.0, 3: 2.0})
    >>> curve(2), curve(5)
    (1.5, 3.0)
    """

    def __init__(self, points: Mapping[int, float]) -> None:
        self.sizes = sorted(points)
        self.seconds = [float(points[size]) for size in self.sizes]
        self._rising = list(accumulate(self.seconds, max))

    def __call__(self, size: float) -> float:
        """Seconds for a size."""
        place = bisect_left(self.sizes, size)
        if place == 0 or len(self.sizes) == 1:
            return self._rising[0]
        high = min(place, len(self.sizes) - 1)
        (x0, x1), (y0, y1) = self.sizes[high - 1 : high + 1], self._rising[high - 1 : high + 1]
        return y0 + (y1 - y0) * (size - x0) / (x1 - x0)

    def learn(self, size: float, seconds: float, rate: float = LEARNING) -> None:
        """Move the points beside ``size`` towards what was measured there, all the way at rate 1.

        More than twice or less than half of what was expected counts as twice or half: another
        process may have had the processor.
        """
        expected = self(size)
        if expected <= 0:
            return
        ratio = min(max(seconds / expected, 0.5), 2.0)
        place = bisect_left(self.sizes, size)
        if place < len(self.sizes) and self.sizes[place] == size:
            beside = {place}
        else:
            beside = {max(place - 1, 0), min(place, len(self.sizes) - 1)}
        for point in beside:
            self.seconds[point] *= ratio**rate
        self._rising = list(accumulate(self.seconds, max))


@dataclass
class Measured:
    """Costs that were measured on this machine.

    ``prefill`` by prompt tokens, ``check`` by the rows of the pass, whatever the cache holds, and
    ``draft`` by the nodes drafted in all.
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
    choices: Sequence[int],
    cached: int = 0,
    filled: float = 1.0,
) -> dict[int, float]:
    """What each number of nodes promises, given the chance that a node of each rank is accepted.

    ``filled`` is the share of the nodes allowed that is drafted: prompt lookup drafts none where
    nothing matches.

    >>> def promises(*check):
    ...     costs = Measured(Curve({1: 0.1}), Curve(dict(enumerate(check, 1))), Curve({1: 0.0}))
    ...     return tokens_per_second(costs, 1, (0.5, 0.3), (0, 1, 2))
    >>> promises(0.1, 0.1, 0.1)  # three rows for the price of one
    {0: 10.0, 1: 15.0, 2: 18.0}
    >>> promises(0.1, 0.2, 0.3)  # each row at full price
    {0: 10.0, 1: 7.5, 2: 6.0}
    """
    return {
        nodes: batch
        * (1 + float(sum(chances[:nodes])))
        / (
            costs.draft_s(batch, nodes * filled)
            + costs.check_s(batch * (1 + nodes * filled), cached)
        )
        for nodes in choices
    }


def best_nodes(rates: Mapping[int, float]) -> int:
    """The number of nodes that promises most; the fewest of equals.

    >>> best_nodes({0: 10.0, 1: 15.0, 2: 15.0})
    1
    """
    return max(rates, key=lambda nodes: rates[nodes])


def budgets(max_nodes: int) -> tuple[int, ...]:
    """The numbers of nodes to choose from: none, then doubling, then all.

    >>> budgets(12)
    (0, 1, 2, 4, 8, 12)
    """
    doubling = [2**i for i in range(max_nodes.bit_length()) if 2**i < max_nodes]
    return (0, *doubling, max_nodes) if max_nodes else (0,)
