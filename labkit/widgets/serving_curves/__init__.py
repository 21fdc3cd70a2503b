"""ServingCurves: TTFT and the time per token against the number of concurrent users."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import traitlets

from labkit.records import ServingLog, gains
from labkit.widgets.base import RecordWidget, script, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ServingCurves(RecordWidget):
    """Latency as users grow: vanilla and speculative, measured and simulated.

    Traits to read or set:

    * ``gap``: the measure of the second panel: ``tpot`` (time per token), ``itl`` (gap between
      outputs, each of which can hold several tokens under speculation), or ``gain`` (vanilla's
      time per token over the method's);
    * ``line``: ``mean``, ``p50``, ``p90`` or ``p99``; ``band``: from the median to ``p90`` or
      ``p99``, or ``none``; ``log_scale``: the latencies' axis;
    * ``users``: the load that the read-out shows (one of the log's, or the nearest to it).
    """

    READS: ClassVar = ServingLog
    _esm = script("serving_curves")
    _css = style("serving_curves", "shared/chart.css")

    gap = traitlets.Enum(("tpot", "itl", "gain"), "tpot").tag(sync=True)
    line = traitlets.Enum(("mean", "p50", "p90", "p99"), "mean").tag(sync=True)
    band = traitlets.Enum(("p90", "p99", "none"), "p90").tag(sync=True)
    log_scale = traitlets.Bool(False).tag(sync=True)
    users = traitlets.Int(1, min=1).tag(sync=True)

    def __init__(self, *given: Any, **state: Any) -> None:
        super().__init__(*given, **state)
        if "users" not in state:
            self.fit_state()

    def fit_state(self) -> None:
        """Show the fewest users in the read-out."""
        if self.record is not None and self.record.rows:
            self.users = min(row.users for row in self.record.rows)

    def figure(self) -> Figure:
        """Return the two panels as a matplotlib figure."""
        from labkit.plots import plot_serving

        return plot_serving(self.record, gap="itl" if self.gap == "itl" else "tpot")

    def table(self) -> tuple[Sequence[str], Sequence[Sequence[object]]]:
        """Return the headings and every row of the log."""
        rows = [
            (
                row.users,
                row.method,
                row.origin,
                f"{row.ttft_ms.mean:.1f}",
                f"{row.tpot_ms.mean:.1f}",
                f"{row.itl_ms.mean:.1f}",
                f"{row.tokens_per_s:.1f}",
                row.errors,
            )
            for row in self.record.rows
        ]
        headings = (
            "users",
            "method",
            "origin",
            "TTFT ms",
            "TPOT ms",
            "ITL ms",
            "tokens/s",
            "failed",
        )
        return headings, rows

    def summary(self) -> str:
        """Return in one sentence the gain at the fewest and at the most users."""
        log: ServingLog = self.record
        found = {
            (users, origin, method): gain
            for origin in ("measured", "simulated")
            for (users, method), gain in gains(log.rows, origin).items()
        }
        told = [
            f"{method} {gain:.2f}× at {users} ({origin})"
            for (users, origin, method), gain in sorted(found.items(), key=lambda one: one[0][0])
        ]
        if not told:
            return f"{log.name}: {len(log.rows)} rows of latency against users."
        ends = list(dict.fromkeys((told[0], told[-1])))
        return f"{log.name}: gain in time per token over vanilla, by users: {'; '.join(ends)}."
