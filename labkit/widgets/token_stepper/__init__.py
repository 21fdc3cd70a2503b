"""TokenStepper: one generation, step by step."""

from __future__ import annotations

from typing import Any

import traitlets

from labkit import plots
from labkit.records import ROOT, Step, Trace
from labkit.widgets.base import RecordWidget, Table, counted, script, style, within


class TokenStepper(RecordWidget):
    """One generation, step by step: draft, test, commit.

    ``step`` counts from 0. ``selected`` is the node of that step whose numbers are shown: -1 is
    the root, ``len(nodes)`` the base model's own token; a change of step selects the most telling
    node. ``head`` picks out one head (0: all); ``playing`` moves on by itself.

    >>> from labkit.records import Step, Token, Trace
    >>> one = Step(committed=(Token(id=2, text=" there"),), ending="plain")
    >>> trace = Trace(method="vanilla", base="tiny", prompt="", prompt_tokens=0,
    ...               first=Token(id=1, text="Hello"), steps=(one,), text="Hello there",
    ...               prefill_s=0.0)
    >>> TokenStepper(trace).summary()
    'vanilla on tiny: 2 tokens in 1 step, 1.00 tokens a step.'
    """

    READS = Trace
    _esm = script("token_stepper")
    _css = style("token_stepper")

    step = traitlets.Int(0).tag(sync=True)
    selected = traitlets.Int(ROOT).tag(sync=True)
    head = traitlets.Int(0).tag(sync=True)
    playing = traitlets.Bool(False).tag(sync=True)

    def fit_state(self) -> None:
        """Start a new record at its first step."""
        self.playing, self.step, self.head = False, 0, 0
        self._choose_telling()

    @property
    def _steps(self) -> tuple[Step, ...]:
        return self.record.steps if self.record else ()

    def _now(self) -> Step | None:
        return self._steps[min(self.step, len(self._steps) - 1)] if self._steps else None

    @traitlets.validate("step", "selected", "head")
    def _exists(self, proposal: dict[str, Any]) -> int:
        name, low, now = proposal["trait"].name, 0, self._now()
        if name == "step":
            high = max(0, len(self._steps) - 1)
        elif name == "selected":
            low, high = ROOT, len(now.nodes) if now else ROOT
        else:
            high = max((node.depth for step in self._steps for node in step.nodes), default=0)
        return within(name, proposal["value"], low, high)

    @traitlets.observe("step")
    def _choose_telling(self, _change: object = None) -> None:
        now = self._now()
        self.selected = telling(now) if now else ROOT

    def figure(self) -> Any:
        """Return a figure of the whole generation, one column per step."""
        return plots.plot_trace(self.record)

    def table(self) -> Table:
        """Return one row per step: drafted, accepted, and the base model's own token."""
        rows = []
        for number, step in enumerate(self.record.steps, start=1):
            kept = "".join(step.nodes[node].text for node in step.accepted)
            own = [token.text for token in step.committed[len(step.accepted) :]]
            if own and step.ending in ("replacement", "bonus"):
                own.append(f" ({step.ending})")
            rows.append((number, len(step.nodes), kept, "".join(own)))
        return ("step", "drafted", "accepted", "base model's own"), rows

    def summary(self) -> str:
        """Say how many tokens were generated in how many steps."""
        trace = self.record
        tokens, steps = counted(len(trace.tokens), "token"), counted(len(trace.steps), "step")
        return (
            f"{trace.method} on {trace.base}: {tokens} in {steps}, "
            f"{trace.tokens_per_step:.2f} tokens a step."
        )


def telling(step: Step) -> int:
    """Return the node to show first: the rejected one that ended the draft, else the last kept.

    >>> from labkit.records import Token
    >>> telling(Step(committed=(Token(id=1, text="a"),), ending="plain"))
    0
    """
    path = step.accepted
    tip = path[-1] if path else ROOT
    if step.ending != "bonus":
        for index, node in enumerate(step.nodes):
            if node.tested and not node.accepted and node.parent == tip:
                return index
    return tip if path else len(step.nodes)
