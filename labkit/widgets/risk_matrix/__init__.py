"""RiskMatrix: the loss of each hypothesis against each evidence sample, and what it decides."""

from __future__ import annotations

from typing import Any, ClassVar, get_args

import traitlets

from labkit import plots
from labkit.records import RiskTable, Weighting
from labkit.widgets.base import RecordWidget, Table, script, style, within

UTILITIES = ("chrf", "chrf++", "bleu", "precision", "recall", "f1", "edit", "exact")
"""The utilities that the page computes by itself, by the names of `labkit.mbr.utilities`."""


class RiskMatrix(RecordWidget):
    """A risk table as a matrix of colours whose four choices are switches.

    The page computes losses, weights and risks anew from the record's texts, counts and
    log-probabilities, without a kernel; with nothing switched it shows the record's own numbers.
    Each switch is a trait, to read or to set:

    * ``utility``, ``weighting`` with ``temperature`` and ``length_power`` (for ``model``);
    * ``samples``: how many draws count (0: all), ``left_out``: evidence that does not;
    * ``evidence``: ``samples``, ``hypotheses`` (as their own evidence) or ``reference`` (the
      oracle's choice);
    * ``sort``: ``risk``, ``probability``, ``similarity`` or ``drawn``;
    * ``selected``: hypothesis and evidence of the cell whose texts are compared, as they stand in
      the record;
    * ``set_size``: how many answers the set under the matrix has, ``distance``: where its clusters
      are cut (0: every text alone, 1: one cluster);
    * ``best``: the hypothesis of least risk as the page shows it (the record's own until a page
      has shown another).
    """

    READS: ClassVar = RiskTable
    _esm = script("risk_matrix")
    _css = style("risk_matrix")

    utility = traitlets.Unicode("chrf").tag(sync=True)
    weighting = traitlets.Enum(get_args(Weighting), "uniform").tag(sync=True)
    temperature = traitlets.Float(1.0).tag(sync=True)
    length_power = traitlets.Float(0.0, min=0, max=1).tag(sync=True)
    samples = traitlets.Int(0, min=0).tag(sync=True)
    left_out = traitlets.List(traitlets.Int(min=0)).tag(sync=True)
    evidence = traitlets.Enum(("samples", "hypotheses", "reference"), "samples").tag(sync=True)
    sort = traitlets.Enum(("risk", "probability", "similarity", "drawn"), "risk").tag(sync=True)
    selected = traitlets.Tuple(
        traitlets.Int(min=0), traitlets.Int(min=0), default_value=(0, 0)
    ).tag(sync=True)
    set_size = traitlets.Int(3, min=1).tag(sync=True)
    distance = traitlets.Float(0.5, min=0, max=1).tag(sync=True)
    best = traitlets.Int(0, min=0).tag(sync=True)

    def fit_state(self) -> None:
        """Show what was recorded: nothing switched, the winner against the heaviest evidence."""
        table: RiskTable | None = self.record
        if table is None:
            return
        self.utility, self.weighting, self.best = table.utility, table.weighting, table.best
        self.temperature, self.length_power, self.samples = 1.0, 0.0, 0
        self.evidence, self.left_out = "samples", []
        heaviest = max(range(len(table.weights)), key=table.weights.__getitem__)
        self.selected = (table.best, heaviest)

    @traitlets.validate("utility")
    def _known_utility(self, proposal: Any) -> str:
        known = [*UTILITIES, *([self.record.utility] if self.record else [])]
        if proposal["value"] not in known:
            raise traitlets.TraitError(
                f"The page computes no utility named {proposal['value']!r}; "
                f"there are {', '.join(dict.fromkeys(known))}."
            )
        return proposal["value"]

    @traitlets.validate("weighting")
    def _possible_weighting(self, proposal: Any) -> str:
        table: RiskTable | None = self.record
        if table and proposal["value"] == "model" != table.weighting:
            without = sum(sample.logprob is None for sample in table.evidence)
            if without:
                raise traitlets.TraitError(
                    f"{without} of {len(table.evidence)} evidence samples have no log-probability; "
                    "model weights need one for every sample, the other weightings do not."
                )
        return proposal["value"]

    @traitlets.validate("temperature")
    def _positive(self, proposal: Any) -> float:
        return within("temperature", proposal["value"], 0.1, 32)

    @traitlets.validate("selected")
    def _within(self, proposal: Any) -> tuple[int, int]:
        row, column = proposal["value"]
        last = len(self.record.hypotheses) - 1 if self.record else row
        return within("selected's hypothesis", row, 0, last), column

    def figure(self) -> Any:
        """Return the matrix as a matplotlib figure."""
        return plots.plot_risk(self.record)

    def table(self) -> Table:
        """Return the ten hypotheses of least risk."""
        table: RiskTable = self.record
        order = sorted(range(len(table.risk)), key=table.risk.__getitem__)[:10]
        rows = []
        for row in order:
            name, found = f"{row} (chosen)" if row == table.best else row, table.hypotheses[row]
            rows.append((name, f"{table.risk[row]:.4f}", found.count, found.text))
        return ("hypothesis", "risk", "drawn", "text"), rows

    def summary(self) -> str:
        """Say the decision in one sentence."""
        table: RiskTable = self.record
        return (
            f"Of {len(table.hypotheses)} hypotheses for “{table.source}”, number {table.best} has "
            f"the least risk, {table.risk[table.best]:.4f} by {table.utility} with "
            f"{table.weighting} weights: “{table.hypotheses[table.best].text}”"
        )
