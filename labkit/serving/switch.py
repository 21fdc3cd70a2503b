"""The switch that turns speculation down as the batch fills, and up again as it empties.

It counts how often a node of each rank is accepted and measures what steps take, and takes the
number of nodes with the best bet (see `labkit.serving.costs`). At 0 the loop is vanilla.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from labkit.serving.batch import Step
from labkit.serving.costs import LEARNING, Measured, best_nodes, budgets, tokens_per_second

MARGIN = 0.05
"""Another number of nodes must promise this much more to be worth a change of mind."""

LOOK = 4
"""Steps from one look at the odds to the next."""

PROBE = 32
"""Steps after which, once, more or less is drafted than seems best, to see whether it is."""

PROBE_RATE = 0.5
"""How far such a step moves the measured costs, which nothing else may have moved for long."""

MEMORY = 0.98
"""What a step's evidence on a rank is worth one step later."""

PRIOR = 8.0
"""Rows' worth of belief in `first_guess` before anything was seen."""


def first_guess(count: int) -> np.ndarray:
    """The chances (N,) that are believed before a draft was checked: 0.4, then less and less."""
    return 0.4 * 0.7 ** np.arange(count)


@dataclass(frozen=True)
class Decision:
    """A change of mind: at which step and batch, from how many nodes to how many, on what odds.

    ``rates`` are the tokens a second that each number of nodes promised then.
    """

    step: int
    batch: int
    before: int
    after: int
    rates: dict[int, float]

    def __str__(self) -> str:
        return (
            f"step {self.step}, batch of {self.batch}: {self.after} nodes a row promise "
            f"{self.rates[self.after]:.1f} tokens/s, the {self.before} so far "
            f"{self.rates[self.before]:.1f}"
        )


class Switch:
    """A `labkit.serving.batch.Pace` that takes the best bet, and learns from every step."""

    def __init__(self, max_nodes: int, costs: Measured) -> None:
        self.choices = budgets(max_nodes)
        self.costs = costs
        self.decisions: deque[Decision] = deque(maxlen=500)
        self._offered = np.full(max_nodes, PRIOR)
        self._taken = PRIOR * first_guess(max_nodes)
        self._filled = 1.0
        self._chosen: dict[int, int] = {}
        self._steps = 0
        self._unprobed = 0
        self._upwards = False

    @property
    def chances(self) -> np.ndarray:
        """How often a row had its node of each rank accepted of late (N,)."""
        return self._taken / self._offered

    def rates(self, batch: int) -> dict[int, float]:
        """The tokens a second that each number of nodes promises at this batch."""
        return tokens_per_second(
            self.costs, batch, self.chances.tolist(), self.choices, filled=self._filled
        )

    def nodes(self, batch: int) -> int:
        """See `labkit.serving.batch.Pace.nodes`."""
        if self._steps % LOOK == 0 or batch not in self._chosen:
            self._decide(batch)
        chosen = self._chosen[batch]
        self._unprobed += 1
        return self._beside(chosen) if self._unprobed > PROBE else chosen

    def _beside(self, chosen: int) -> int:
        """A choice next to the one in place: by turns the one above it and the one below."""
        self._unprobed = 0
        self._upwards = not self._upwards
        place, last = self.choices.index(chosen), len(self.choices) - 1
        up = self._upwards if 0 < place < last else place == 0
        return self.choices[min(place + 1, last) if up else place - 1]

    def _decide(self, batch: int) -> None:
        """Take the best bet at this batch, where it is better by enough than the one in place."""
        rates = self.rates(batch)
        best = best_nodes(rates)
        chosen = self._chosen.setdefault(batch, best)
        if rates[best] > rates[chosen] * (1 + MARGIN):
            self.decisions.append(Decision(self._steps, batch, chosen, best, rates))
            self._chosen[batch] = best

    def learn(self, step: Step) -> None:
        """Count what was accepted, and move the costs towards what the step took."""
        if step.prompt_rows:
            self.costs.prefill.learn(step.prompt_rows, step.prefill_s)
        if not step.batch:
            return
        self._steps += 1
        rate = LEARNING if step.nodes == self._chosen.get(step.batch) else PROBE_RATE
        self.costs.check.learn(step.rows, step.check_s + step.rest_s, rate)
        if not step.nodes:
            return
        if step.drafted:
            self.costs.draft.learn(step.drafted, step.draft_s)
        self._filled += (1 - MEMORY) * (step.drafted / (step.batch * step.nodes) - self._filled)
        drafted = np.arange(len(self._offered)) < step.nodes
        keep = np.where(drafted, MEMORY, 1.0)  # of ranks that nobody drafted nothing is new
        self._offered = self._offered * keep + step.batch * drafted
        self._taken = self._taken * keep + step.taken
