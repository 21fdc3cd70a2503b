"""Measures what a batch's steps take here and how often its drafts are accepted.

The results make the `labkit.serving.costs.NodeTable` by which an engine decides how much to draft.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

from labkit.serving.costs import Curve, Measured, NodeTable, budgets
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


def node_table(
    batch: Batch, texts: Sequence[Sequence[int]] = (), chances: Sequence[float] | None = None
) -> NodeTable:
    """Return the best number of draft nodes for each batch size, measured on an empty batch.

    ``texts`` are prompts as token ids on which acceptance is measured (random tokens where none
    fits a slot). ``chances`` by rank, where they are known, are used instead.
    """
    costs = measure_costs(batch)
    if chances is not None:
        return NodeTable(costs, tuple(chances))
    return NodeTable(costs, *measure_acceptance(batch, texts))


def measure_acceptance(
    batch: Batch, texts: Sequence[Sequence[int]]
) -> tuple[tuple[float, ...], float]:
    """Return how often the node of each rank is accepted (N,), and the share of nodes drafted.

    Each text is continued by up to `STEPS_PER_TEXT` steps with as many draft nodes as there may be;
    the batch is empty again afterwards.
    """
    rng = np.random.default_rng(0)
    fitting = [text for text in texts if len(text) + STEPS_PER_TEXT <= batch.capacity]
    short = min(8, batch.capacity // 2)
    fitting = fitting or [rng.integers(0, batch.engine.vocabulary, short).tolist() for _ in PROMPTS]
    pace, batch.pace = batch.pace, lambda _: batch.max_nodes
    steps: list[BatchStep] = []
    try:
        for text in fitting:
            row = batch.join(text, batch.capacity - len(text))
            taken: list[BatchStep] = []
            while row in batch.running and len(taken) < STEPS_PER_TEXT:
                step = batch.step()
                taken += [step] if step.batch else []
            steps += taken
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
    length = min(32, batch.capacity // 2)
    counts = sorted({*(count for count in budgets(batch.slots) if count), batch.slots})
    pace, eos_ids = batch.pace, batch.eos_ids
    batch.eos_ids = frozenset()  # a random request runs to its limit
    prefill: dict[int, float] = {}
    steps: dict[tuple[int, int], BatchStep] = {}

    def join(tokens: int) -> None:
        prompt = rng.integers(0, batch.engine.vocabulary, tokens).tolist()
        batch.join(prompt, batch.capacity - tokens)

    try:
        for _ in range(REPEATS):
            for tokens in PROMPTS_MEASURED:
                if tokens < batch.capacity:
                    join(tokens)
                    seconds = batch.step().prefill_s
                    prefill[tokens] = min(seconds, prefill.get(tokens, seconds))
                    _leave(batch)
            for count, nodes in product(counts, budgets(batch.max_nodes)):
                if nodes and count * (1 + nodes) > ROWS_MEASURED:
                    continue
                batch.pace = _at_most(nodes)
                _leave(batch, [row for row in batch.running if row.left < row.limit / 2])
                while len(batch.running) < count:
                    join(length)
                step = batch.step()
                known = steps.get((count, nodes), step)
                steps[count, nodes] = min(step, known, key=_answering_s)
            _leave(batch)
    finally:
        _leave(batch)
        batch.pace, batch.eos_ids = pace, eos_ids
    check: dict[int, list[float]] = {}
    draft: dict[int, list[float]] = {}
    for step in steps.values():
        check.setdefault(step.rows, []).append(step.check_s + step.rest_s)
        if step.drafted:
            draft.setdefault(step.drafted, []).append(step.draft_s)
    return Measured(
        Curve(prefill),
        Curve({rows: float(np.mean(seconds)) for rows, seconds in check.items()}),
        Curve({nodes: float(np.mean(seconds)) for nodes, seconds in draft.items()} or {1: 0.0}),
    )


def _at_most(nodes: int) -> Callable[[int], int]:
    """Return a pace of ``nodes`` per row, however many rows there are."""
    return lambda _rows: nodes


def _leave(batch: Batch, rows: Sequence[Row] | None = None) -> None:
    """Free the slots of ``rows``, by default of all."""
    for row in list(batch.running) if rows is None else rows:
        batch.leave(row)


def _answering_s(step: BatchStep) -> float:
    return step.draft_s + step.check_s + step.rest_s
