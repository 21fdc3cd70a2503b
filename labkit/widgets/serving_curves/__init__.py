"""ServingCurves: TTFT and the time per token against the number of concurrent users."""

from __future__ import annotations

from typing import Any, ClassVar

import traitlets

from labkit import plots
from labkit.records import ServingLog, gains
from labkit.widgets.base import RecordWidget, Table, script, style


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

    def fit_state(self) -> None:
        """Show the fewest users in the read-out."""
        if self.record is not None and self.record.rows:
            self.users = min(row.users for row in self.record.rows)

    def figure(self) -> Any:
        """Return the two panels as a matplotlib figure."""
        return plots.plot_serving(self.record, gap="itl" if self.gap == "itl" else "tpot")

    def table(self) -> Table:
        """Return the headings and every row of the log."""
        headings = "users, method, origin, TTFT ms, TPOT ms, ITL ms, tokens/s, failed"
        rows = []
        for row in self.record.rows:
            speeds = (row.ttft_ms.mean, row.tpot_ms.mean, row.itl_ms.mean, row.tokens_per_s)
            numbers = (f"{speed:.1f}" for speed in speeds)
            rows.append((row.users, row.method, row.origin, *numbers, row.errors))
        return headings.split(", "), rows

    def summary(self) -> str:
        """Return in one sentence the gain at the fewest and at the most users."""
        log: ServingLog = self.record
        found = [
            (users, f"{method} {gain:.2f}× at {users} ({origin})")
            for origin in ("measured", "simulated")
            for (users, method), gain in gains(log.rows, origin).items()
        ]
        told = [text for _, text in sorted(found, key=lambda one: one[0])]
        if not told:
            return f"{log.name}: {len(log.rows)} rows of latency against users."
        ends = list(dict.fromkeys((told[0], told[-1])))
        return f"{log.name}: gain in time per token over vanilla, by users: {'; '.join(ends)}."
