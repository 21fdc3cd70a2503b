"""The figure of an `AblationStudy`: what each change of a training does to tokens per step."""

from __future__ import annotations

from itertools import groupby

from labkit.plots.figure import FAINT, HUES, INK, MARKS, Picture, picture, styled
from labkit.records import AblationRow, AblationStudy

ROW = 0.24
"""Inches a training takes on the page."""


def plot_ablations(study: AblationStudy, material: str) -> Picture:
    """Draw tokens per step on prompts of one kind: a mark for each training, named at the left.

    Trainings that ask the same question stand together. The band is what the baseline gives over
    its seeds: a mark inside it differs by no more than chance does.
    """
    low, high = study.spread(material)
    groups = [
        list(rows)
        for _, rows in groupby(
            (row for row in study.rows if row.changes), key=lambda row: row.question
        )
    ]
    places: list[tuple[float, AblationRow]] = []
    place = 0.0
    for rows in groups:
        places += [(place + number, row) for number, row in enumerate(rows)]
        place += len(rows) + 0.6
    with styled():
        figure = picture(7.6, 1.1 + ROW * (place + 1))
        axes = figure.subplots()
        axes.axvspan(low, high, color=HUES[0], alpha=0.16, linewidth=0, label="baseline, by seed")
        for row in study.baselines:
            axes.axvline(row.score(material).tokens_per_step, color=HUES[0], linewidth=1)
        for height, row in places:
            value = row.score(material).tokens_per_step
            inside = low <= value <= high
            axes.plot(
                value,
                height,
                MARKS[0] if inside else MARKS[3],
                color=FAINT if inside else INK,
                markersize=6,
            )
        axes.set_yticks([height for height, _ in places], [row.name for _, row in places])
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        axes.invert_yaxis()
        axes.set_xlabel(f"tokens per step on {material} prompts")
        figure.legend(loc="outside upper right", fontsize=9)
    return figure
