"""The figure of a `ServingLog`: the lecture's two panels, latency against users."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from labkit.plots.figure import HUES, MARKS, Picture, picture, styled
from labkit.records import ServingLog, ServingRow

Gap = Literal["tpot", "itl"]

NAMES = {
    "ttft": "TTFT: time to first token, ms",
    "tpot": "TPOT: time per output token, ms",
    "itl": "ITL: gap between outputs, ms",
}


def plot_serving(log: ServingLog, gap: Gap = "tpot") -> Picture:
    """Draw TTFT and ``gap`` against the number of users, for each method and origin.

    Lines are means, the bands run from the median to the 90th percentile; measured rows are
    solid with full marks, simulated ones dashed with hollow marks; each point shows its users.
    """
    with styled():
        figure = picture(9.5, 4.2)
        panels = figure.subplots(1, 2)
        for axes, measure in zip(panels, ("ttft", gap), strict=True):
            for place, (method, origin) in enumerate(series(log)):
                rows = [row for row in log.rows if (row.method, row.origin) == (method, origin)]
                _draw(axes, rows, measure, _hue(log, method), MARKS[place % len(MARKS)])
            _write_users(axes, log.rows, measure)
            _axes(axes, measure, sorted({row.users for row in log.rows}))
        if log.rows:
            panels[0].legend(fontsize=8.5)
        figure.suptitle(f"{log.name}: {log.base} on {log.target}", x=0.01, ha="left", fontsize=10.5)
    return figure


def series(log: ServingLog) -> list[tuple[str, str]]:
    """Return the pairs of method and origin, in the order of the log."""
    return list(dict.fromkeys((row.method, row.origin) for row in log.rows))


def _hue(log: ServingLog, method: str) -> str:
    methods = list(dict.fromkeys(row.method for row in log.rows))
    return HUES[methods.index(method) % len(HUES)]


def _draw(axes: Axes, rows: list[ServingRow], measure: str, color: str, mark: str) -> None:
    """Draw one method's line with its band."""
    rows = sorted(rows, key=lambda row: row.users)
    users = [row.users for row in rows]
    spreads = [getattr(row, f"{measure}_ms") for row in rows]
    means = [spread.mean for spread in spreads]
    measured = rows[0].origin == "measured"
    axes.fill_between(
        users,
        [spread.p50 for spread in spreads],
        [spread.p90 for spread in spreads],
        color=color,
        alpha=0.14 if measured else 0.07,
        linewidth=0,
    )
    axes.plot(
        users,
        means,
        "-" if measured else "--",
        marker=mark,
        color=color,
        markerfacecolor=color if measured else "white",
        label=f"{rows[0].method}, {rows[0].origin}",
    )


def _write_users(axes: Axes, rows: Sequence[ServingRow], measure: str) -> None:
    """Write the number of users above the highest point of each load."""
    highest: dict[int, float] = {}
    for row in rows:
        mean = getattr(row, f"{measure}_ms").mean
        highest[row.users] = max(mean, highest.get(row.users, 0.0))
    for users, mean in highest.items():
        axes.annotate(
            str(users),
            (users, mean),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
        )


def _axes(axes: Axes, measure: str, users: list[int]) -> None:
    """Set up the axes: users on a doubling scale, latency from 0."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(users))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    axes.set(ylim=(0, None), xlabel="concurrent users", title=NAMES[measure])
