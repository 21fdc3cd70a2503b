"""TokenStepper: one generation, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import traitlets

from labkit.records import ROOT, Step, Trace
from labkit.widgets.base import RecordWidget, counted, script, style, within

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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

    def __init__(self, *given: Any, selected: int | None = None, **state: Any) -> None:
        super().__init__(*given, **state)
        self.selected = self._telling() if selected is None else selected

    def fit_state(self) -> None:
        """Start a new record at its first step."""
        self.playing = False
        self.step = 0
        self.head = 0
        self.selected = self._telling()

    @traitlets.validate("step")
    def _step_exists(self, proposal: dict[str, Any]) -> int:
        last = max(0, len(self.record.steps) - 1) if self.record else 0
        return within("step", proposal["value"], 0, last)

    @traitlets.validate("selected")
    def _node_exists(self, proposal: dict[str, Any]) -> int:
        step = self._now()
        return within("selected", proposal["value"], ROOT, len(step.nodes) if step else ROOT)

    @traitlets.validate("head")
    def _head_exists(self, proposal: dict[str, Any]) -> int:
        steps = self.record.steps if self.record else ()
        deepest = max((node.depth for step in steps for node in step.nodes), default=0)
        return within("head", proposal["value"], 0, deepest)

    @traitlets.observe("step")
    def _choose_telling(self, _change: object) -> None:
        self.selected = self._telling()

    def _now(self) -> Step | None:
        steps = self.record.steps if self.record else ()
        return steps[min(self.step, len(steps) - 1)] if steps else None

    def _telling(self) -> int:
        step = self._now()
        return telling(step) if step else ROOT

    def figure(self) -> Figure:
        """Return a figure of the whole generation, one column per step."""
        from labkit.plots import plot_trace

        return plot_trace(self.record)

    def table(self) -> tuple[Sequence[str], Sequence[Sequence[object]]]:
        """Return one row per step: drafted, accepted, and the base model's own token."""
        return ("step", "drafted", "accepted", "base model's own"), [
            _row(index, step) for index, step in enumerate(self.record.steps)
        ]

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


def _row(index: int, step: Step) -> tuple[object, ...]:
    kept = [step.nodes[node].text for node in step.accepted]
    own = step.committed[len(kept) :]
    ending = f" ({step.ending})" if own and step.ending in ("replacement", "bonus") else ""
    return (
        index + 1,
        len(step.nodes),
        "".join(kept),
        "".join(token.text for token in own) + ending,
    )
