"""The figures of a `StorageStudy`: speeds as bars, or what each method gains, with intervals."""

from __future__ import annotations

from typing import Any

from labkit.plots.figure import DARK_HUES, FAINT, HUES, MARKS, Picture, picture, styled
from labkit.records import StorageRow, StorageStudy

HATCHES = ("", "//", "..", "", "xx")
"""So that nothing hangs on colour alone."""


def plot_storage(study: StorageStudy) -> Picture:
    """Draw a group of bars for each storage, a bar for each method, its speed written above it.

    Bars of other programs, whose names contain "llama_cpp", are grey.
    """
    storages = list(dict.fromkeys(row.storage for row in study.rows))
    methods = list(dict.fromkeys(row.method for row in study.rows))
    with styled():
        figure = picture(9.0, 3.4)
        axes = figure.subplots()
        labelled, place, ticks = set(), 0.0, []
        for storage in storages:
            rows = [row for row in study.rows if row.storage == storage]
            ticks.append(place + (len(rows) - 1) / 2)
            for row in rows:
                at = methods.index(row.method)
                bars = axes.bar(
                    place,
                    row.tokens_per_s,
                    0.9,
                    color=FAINT if "llama_cpp" in row.method else HUES[at],
                    edgecolor="white",
                    hatch=HATCHES[at % len(HATCHES)],
                    label=None if row.method in labelled else row.method,
                )
                axes.bar_label(bars, fmt="%.0f", fontsize=8.5)
                labelled.add(row.method)
                place += 1
            place += 0.7
        axes.set_xticks(ticks, storages)
        axes.grid(False, axis="x")
        axes.set_ylabel("tokens per second")
        axes.legend(fontsize=8.5, loc="upper left")
        machine = study.provenance.machine if study.provenance else f"{study.threads} threads"
        axes.set_title(f"{study.base}, {study.prompts} prompts, on {machine}")
    return figure


ROW = 0.21
"""Inches that a method takes on the page."""


def plot_study(study: StorageStudy, dark: bool = False) -> Picture:
    """Draw the speed of each method over vanilla's with the same storage, a panel for each text.

    The mark is the ratio, the line holds 95% of a bootstrap over prompts; left of 1 a method loses.
    ``dark`` draws for a dark page.
    """
    storages = list(dict.fromkeys(row.storage for row in study.rows))
    hues = dict(zip(storages, DARK_HUES if dark else HUES, strict=False))
    marks = dict(zip(storages, MARKS, strict=False))
    names = list(dict.fromkeys((row.storage, row.method) for row in study.rows))
    names = [(storage, method) for storage, method in names if method != "vanilla"]
    heights = {name: place + 0.7 * storages.index(name[0]) for place, name in enumerate(names)}
    with styled(dark):
        figure = picture(9.0, 1.0 + ROW * (max(heights.values(), default=0) + 1))
        panels = figure.subplots(1, len(study.texts), sharey=True, squeeze=False)[0]
        for axes, text in zip(panels, study.texts, strict=True):
            axes.axvline(1, color=FAINT, linewidth=1)
            for row in study.rows:
                if row.text == text and row.method != "vanilla":
                    height = heights[row.storage, row.method]
                    _gain(axes, row, height, hues[row.storage], marks[row.storage])
            axes.set_title(f"{text} text")
            axes.set_xlabel("speed over vanilla's, same storage")
            axes.grid(False, axis="y")
        panels[0].set_yticks([*heights.values()], [f"{method}, {s}" for s, method in heights])
        panels[0].tick_params(axis="y", length=0, labelsize=8)
        panels[0].invert_yaxis()
    return figure


def _gain(axes: Any, row: StorageRow, height: float, hue: str, mark: str) -> None:
    """Draw a method's ratio and its interval; hollow where the output was not vanilla's."""
    if row.speedup_bounds:
        axes.plot(row.speedup_bounds, (height, height), color=hue, linewidth=1.6)
    face = hue if row.identical else "none"
    axes.plot(row.speedup, height, mark, color=hue, markerfacecolor=face, markersize=6)
