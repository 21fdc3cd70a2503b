"""The figures of speed: a `ServingLog`'s latency against users, a `StorageStudy`'s methods."""

from __future__ import annotations

from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from labkit.plots.figure import (
    DARK,
    DARK_HUES,
    FAINT,
    HUES,
    MARKS,
    STYLE,
    Picture,
    picture,
    styled,
)
from labkit.records import ServingLog, ServingRow, StorageStudy

Gap = Literal["tpot", "itl"]

NAMES = {
    "ttft": "TTFT: time to first token, ms",
    "tpot": "TPOT: time per output token, ms",
    "itl": "ITL: gap between outputs, ms",
}
HATCHES = ("", "//", "..", "", "xx")
"""So that nothing hangs on colour alone."""

ROW = 0.21
"""Inches that a method takes on the page of a storage study."""


@styled
def plot_serving(log: ServingLog, gap: Gap = "tpot") -> Picture:
    """Draw TTFT and ``gap`` against the number of users, for each method and origin.

    Lines are means, the bands run from the median to the 90th percentile; measured rows are
    solid with full marks, simulated ones dashed with hollow marks; each point shows its users.
    """
    methods = list(dict.fromkeys(row.method for row in log.rows))
    loads = sorted({row.users for row in log.rows})
    figure = picture(9.5, 4.2)
    panels = figure.subplots(1, 2)
    for axes, measure in zip(panels, ("ttft", gap), strict=True):
        for place, line in enumerate(dict.fromkeys((row.method, row.origin) for row in log.rows)):
            rows = [row for row in log.rows if (row.method, row.origin) == line]
            color = HUES[methods.index(line[0]) % len(HUES)]
            _draw(axes, rows, measure, color, MARKS[place % len(MARKS)])
        means = sorted((getattr(row, f"{measure}_ms").mean, row.users) for row in log.rows)
        for users, mean in {users: mean for mean, users in means}.items():  # the highest of each
            up: Any = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center"}
            axes.annotate(str(users), (users, mean), fontsize=8.5, **up)
        axes.set_xscale("log", base=2)
        axes.set_xticks(loads, [str(users) for users in loads])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(ylim=(0, None), xlabel="concurrent users", title=NAMES[measure])
    if log.rows:
        panels[0].legend(fontsize=8.5)
    figure.suptitle(f"{log.name}: {log.base} on {log.target}", x=0.01, ha="left", fontsize=10.5)
    return figure


def _draw(axes: Axes, rows: list[ServingRow], measure: str, color: str, mark: str) -> None:
    """Draw one method's line with its band."""
    rows = sorted(rows, key=lambda row: row.users)
    users = [row.users for row in rows]
    spreads = [getattr(row, f"{measure}_ms") for row in rows]
    low, high = [spread.p50 for spread in spreads], [spread.p90 for spread in spreads]
    measured = rows[0].origin == "measured"
    alpha = 0.14 if measured else 0.07
    axes.fill_between(users, low, high, color=color, alpha=alpha, linewidth=0)
    axes.plot(
        users,
        [spread.mean for spread in spreads],
        "-" if measured else "--",
        marker=mark,
        color=color,
        markerfacecolor=color if measured else "white",
        label=f"{rows[0].method}, {rows[0].origin}",
    )


@styled
def plot_storage(study: StorageStudy) -> Picture:
    """Draw a group of bars for each storage, a bar for each method, its speed written above it.

    Bars of other programs, whose names contain "llama_cpp", are grey.
    """
    methods = list(dict.fromkeys(row.method for row in study.rows))
    figure = picture(9.0, 3.4)
    axes = figure.subplots()
    labelled, place, ticks = set(), 0.0, {}
    for storage in dict.fromkeys(row.storage for row in study.rows):
        rows = [row for row in study.rows if row.storage == storage]
        ticks[storage] = place + (len(rows) - 1) / 2
        for row in rows:
            at = methods.index(row.method)
            bars = axes.bar(
                place,
                row.tokens_per_s,
                0.9,
                color=FAINT if "llama_cpp" in row.method else HUES[at % len(HUES)],
                edgecolor="white",
                hatch=HATCHES[at % len(HATCHES)],
                label=None if row.method in labelled else row.method,
            )
            axes.bar_label(bars, fmt="%.0f", fontsize=8.5)
            labelled.add(row.method)
            place += 1
        place += 0.7
    axes.set_xticks(list(ticks.values()), list(ticks))
    axes.grid(False, axis="x")
    axes.set_ylabel("tokens per second")
    axes.legend(fontsize=8.5, loc="upper left")
    machine = study.provenance.machine if study.provenance else f"{study.threads} threads"
    axes.set_title(f"{study.base}, {study.prompts} prompts, on {machine}")
    return figure


def plot_study(study: StorageStudy, dark: bool = False) -> Picture:
    """Draw the speed of each method over vanilla's with the same storage, a panel for each text.

    The mark is the ratio, hollow where the output was not vanilla's; the line holds 95% of a
    bootstrap over prompts; left of 1 a method loses. ``dark`` draws for a dark page.
    """
    storages = list(dict.fromkeys(row.storage for row in study.rows))
    drafted = [row for row in study.rows if row.method != "vanilla"]
    names = dict.fromkeys((row.storage, row.method) for row in drafted)
    heights = {name: place + 0.7 * storages.index(name[0]) for place, name in enumerate(names)}
    with matplotlib.rc_context(STYLE | DARK if dark else STYLE):
        figure = picture(9.0, 1.0 + ROW * (max(heights.values(), default=0) + 1))
        panels = figure.subplots(1, len(study.texts), sharey=True, squeeze=False)[0]
        for axes, text in zip(panels, study.texts, strict=True):
            axes.axvline(1, color=FAINT, linewidth=1)
            for row in (row for row in drafted if row.text == text):
                height, at = heights[row.storage, row.method], storages.index(row.storage)
                hue = (DARK_HUES if dark else HUES)[at % len(HUES)]
                if row.speedup_bounds:
                    axes.plot(row.speedup_bounds, (height, height), color=hue, linewidth=1.6)
                style: Any = {"color": hue, "markerfacecolor": hue if row.identical else "none"}
                axes.plot(row.speedup, height, MARKS[at % len(MARKS)], markersize=6, **style)
            axes.set(title=f"{text} text", xlabel="speed over vanilla's, same storage")
            axes.grid(False, axis="y")
        panels[0].set_yticks([*heights.values()], [f"{method}, {s}" for s, method in heights])
        panels[0].tick_params(axis="y", length=0, labelsize=8)
        panels[0].invert_yaxis()
    return figure
