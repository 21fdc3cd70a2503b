"""The figure of a `StorageStudy`: tokens per second of each storage, a bar for each method."""

from __future__ import annotations

from labkit.plots.figure import FAINT, HUES, Picture, picture, styled
from labkit.records import StorageStudy

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
