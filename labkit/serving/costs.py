"""The time that a step of the batch takes, and the number of draft nodes that is best for it.

Drafts are checked with arithmetic that the machine has to spare while it waits for memory. Each
further user takes some of it, until nothing is spare and every draft node costs as much as another
user's token. So the best number of draft nodes after each row depends on the batch::

    tokens a second = batch * (1 + chance of node 1 + ... + chance of node n) / seconds(batch, n)

`NodeTable` holds it for each batch size: the engine looks it up at every step, and
`labkit.serving.simulate` computes it for machines that are not at hand. `node_table` measures what
the table needs here: what steps take, and how often drafts are accepted.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, product
from typing import Protocol

import numpy as np

from labkit.speculative.batch import Batch, BatchStep, Row
from labkit.speculative.calibrate import PROMPTS

PROMPTS_MEASURED = (1, 8, 16, 32, 64)
"""Prompt tokens of a chunk whose prefill is measured."""

ROWS_MEASURED = 128
"""The largest pass that is measured; beyond it the costs are a straight line."""

REPEATS = 4
"""Times that each kind of step is measured."""

STEPS_PER_TEXT = 16
"""Steps of each text whose drafts are counted."""


class Costs(Protocol):
    """The seconds that the parts of a step take."""

    def prefill_s(self, rows: int) -> float:
        """Return the time to process ``rows`` prompt tokens: that of a check, if not measured."""
        return self.check_s(rows, 0)

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

    ``chances`` (N,) are those of the node of each rank to be accepted. ``filled`` is the share of
    the nodes allowed that is drafted: prompt lookup drafts none where nothing matches.

    >>> def machine(*check):
    ...     return Measured(Curve({1: 0.1}), Curve(dict(enumerate(check, 1))), Curve({1: 0.0}))
    >>> NodeTable(machine(0.1, 0.1, 0.1), (0.5, 0.3)).rates(1)  # three rows for the price of one
    {0: 10.0, 1: 15.0, 2: 18.0}
    >>> NodeTable(machine(0.1, 0.2, 0.3), (0.5, 0.3)).rates(1)  # each row at full price
    {0: 10.0, 1: 7.5, 2: 6.0}
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
        """Return the expected tokens a second for each number of nodes in `budgets`."""
        found = {}
        for nodes in budgets(len(self.chances)):
            drafted = nodes * self.filled
            draft_s = self.costs.draft_s(batch, drafted)
            check_s = self.costs.check_s(batch * (1 + drafted), cached)
            tokens = batch * (1 + float(sum(self.chances[:nodes])))
            found[nodes] = tokens / (draft_s + check_s)
        return found

    def nodes(self, batch: int, cached: int = 0) -> int:
        """Return the number of nodes with the highest rate, the fewest of equals; 0 is vanilla."""
        key = batch, cached // (64 * batch)
        if key not in self._best:
            rates = self.rates(batch, cached)
            self._best[key] = max(rates, key=rates.__getitem__)
        return self._best[key]

    def describe(self, batch: int) -> str:
        """Return the table's row for a batch size in words."""
        rates, best = self.rates(batch), self.nodes(batch)
        return (
            f"batch of {batch}: draft {best} nodes a row, {rates[best]:.1f} tokens/s expected; "
            f"vanilla {rates[0]:.1f}"
        )


def node_table(batch: Batch, texts: Sequence[Sequence[int]] = ()) -> NodeTable:
    """Return the best number of draft nodes for each batch size, measured on an empty batch.

    ``texts`` are prompts as token ids on which acceptance is measured (random tokens where none
    fits a slot).
    """
    return NodeTable(measure_costs(batch), *measure_acceptance(batch, texts))


def measure_acceptance(
    batch: Batch, texts: Sequence[Sequence[int]]
) -> tuple[tuple[float, ...], float]:
    """Return how often the node of each rank is accepted (N,), and the share of nodes drafted.

    Each text is continued by up to `STEPS_PER_TEXT` steps with as many draft nodes as there may be;
    the batch is empty again afterwards.
    """
    rng = np.random.default_rng(0)
    fitting = [text for text in texts if len(text) + STEPS_PER_TEXT <= batch.capacity]
    short, words = min(8, batch.capacity // 2), batch.engine.vocabulary
    fitting = fitting or [rng.integers(0, words, short).tolist() for _ in PROMPTS]
    pace, batch.pace = batch.pace, lambda _: batch.max_nodes
    steps: list[BatchStep] = []
    try:
        for text in fitting:
            row = batch.join(text, batch.capacity - len(text))
            most = len(steps) + STEPS_PER_TEXT
            while row in batch.running and len(steps) < most:
                step = batch.step()
                steps += [step] if step.batch else []
            _leave(batch)
    finally:
        _leave(batch)
        batch.pace = pace
    rows = max(1, sum(step.batch for step in steps))
    accepted = sum((np.array(step.taken) for step in steps), np.zeros(batch.max_nodes)) / rows
    drafted = sum(step.drafted for step in steps) / (rows * batch.max_nodes)
    return tuple(accepted.tolist()), drafted


def measure_costs(batch: Batch) -> Measured:
    """Measure what steps of a batch take here, on random prompts; leaves the batch empty.

    All kinds of step take turns, `REPEATS` times, and of each the fastest counts: something may be
    compiled the first time, and other processes can only make a step slower. Takes a few seconds on
    a small model.
    """
    rng = np.random.default_rng(0)
    pace, eos_ids = batch.pace, batch.eos_ids
    batch.eos_ids = frozenset()  # a random request runs to its limit
    nodes = 0
    batch.pace = lambda _: nodes  # which the loop below changes
    prefill: dict[int, list[float]] = {}
    steps: dict[tuple[int, int], list[BatchStep]] = {}

    def join(tokens: int) -> None:
        prompt = rng.integers(0, batch.engine.vocabulary, tokens).tolist()
        batch.join(prompt, batch.capacity - tokens)

    try:
        for _ in range(REPEATS):
            for tokens in PROMPTS_MEASURED:
                if tokens < batch.capacity:
                    join(tokens)
                    prefill.setdefault(tokens, []).append(batch.step().prefill_s)
                    _leave(batch)
            for count, nodes in product(budgets(batch.slots)[1:], budgets(batch.max_nodes)):
                if nodes and count * (1 + nodes) > ROWS_MEASURED:
                    continue
                _leave(batch, [row for row in batch.running if row.left < row.limit / 2])
                while len(batch.running) < count:
                    join(min(32, batch.capacity // 2))
                steps.setdefault((count, nodes), []).append(batch.step())
            _leave(batch)
    finally:
        _leave(batch)
        batch.pace, batch.eos_ids = pace, eos_ids
    check: dict[int, list[float]] = {}
    draft: dict[int, list[float]] = {}
    for taken in steps.values():
        step = min(taken, key=lambda one: one.draft_s + one.check_s + one.rest_s)
        check.setdefault(step.rows, []).append(step.check_s + step.rest_s)
        if step.drafted:
            draft.setdefault(step.drafted, []).append(step.draft_s)
    return Measured(
        Curve({tokens: min(seconds) for tokens, seconds in prefill.items()}),
        Curve({rows: float(np.mean(seconds)) for rows, seconds in check.items()}),
        Curve({nodes: float(np.mean(seconds)) for nodes, seconds in draft.items()} or {1: 0.0}),
    )


def _leave(batch: Batch, rows: Sequence[Row] | None = None) -> None:
    """Free the slots of ``rows``, by default of all."""
    for row in list(batch.running) if rows is None else rows:
        batch.leave(row)
