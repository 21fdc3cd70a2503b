"""Race: several generations replayed side by side in their measured time."""

from __future__ import annotations

from typing import Any

import traitlets

from labkit import plots
from labkit.records import Trace
from labkit.widgets.base import RecordWidget, Table, script, style, within


class Race(RecordWidget):
    """Generations side by side, each on its own clock: ``Race(vanilla, speculative)``.

    ``time`` is the moment shown, in measured seconds; ``speed`` how fast it runs (1: as measured);
    ``playing`` whether it does. With ``live`` the race shows the end of what is known: set
    ``records`` to longer and longer traces while they are generated, then ``live`` to False.
    """

    READS = Trace
    MOST = 8
    _esm = script("race")
    _css = style("race")

    time = traitlets.Float(0.0).tag(sync=True)
    speed = traitlets.Float(1.0).tag(sync=True)
    playing = traitlets.Bool(False).tag(sync=True)
    live = traitlets.Bool(False).tag(sync=True)

    @property
    def seconds(self) -> float:
        """The time in seconds at which the last lane ends."""
        return max((trace.seconds for trace in self.records), default=0.0)

    def fit_state(self) -> None:
        """Stay at the end while live; otherwise keep the moment, if the new records reach it."""
        self.time = self.seconds if self.live else min(self.time, self.seconds)

    @traitlets.validate("time")
    def _time_exists(self, proposal: dict[str, Any]) -> float:
        return within("time", proposal["value"], 0, self.seconds + 1e-6)

    @traitlets.validate("speed")
    def _speed_moves(self, proposal: dict[str, Any]) -> float:
        if not 0 < proposal["value"] <= 1000:
            raise traitlets.TraitError(
                f"speed is a factor above 0, up to 1000, not {proposal['value']}."
            )
        return proposal["value"]

    def figure(self) -> Any:
        """Return a figure of tokens against time, and of where the time went."""
        return plots.plot_race(self.records)

    def table(self) -> Table:
        """Return one row per lane: tokens, steps, time, speed, and speed relative to the first."""
        first = rate(self.records[0])
        headings = "method, tokens, steps, tokens per step, seconds, tokens/s, factor"
        return headings.split(", "), [
            (
                trace.method,
                len(trace.tokens),
                len(trace.steps),
                f"{trace.tokens_per_step:.2f}",
                f"{trace.seconds:.3f}",
                f"{rate(trace):.1f}",
                f"{rate(trace) / first:.2f}",
            )
            for trace in self.records
        ]

    def summary(self) -> str:
        """Say which lane is fastest, and by what factor."""
        best = max(self.records, key=rate)
        said = [f"{best.method}: {rate(best):.1f} tokens per second"] + [
            f"{rate(best) / rate(trace):.2f} times as fast as {trace.method}"
            for trace in self.records
            if trace is not best
        ]
        return ", ".join(said) + "."


def rate(trace: Trace) -> float:
    """Return the tokens per second of the whole generation, prefill included."""
    return len(trace.tokens) / max(trace.seconds, 1e-12)
