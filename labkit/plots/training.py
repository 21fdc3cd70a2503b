"""The figures of training: a `LossLog`'s losses and acceptance, and an `AblationStudy`'s rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from labkit.plots.figure import FAINT, HUES, INK, MARKS, Picture, picture, styled
from labkit.records import AblationRow, AblationStudy, LossLog

STROKES = ("-", "--")
"""The first run is drawn solid, the one that it is compared with dashed."""

ROW = 0.24
"""Inches a training takes on the page of an ablation study."""


def smooth(values: Sequence[float], span: int) -> np.ndarray:
    """Average exponentially over about ``span`` values, unbiased from the first one on.

    The weights 1, a, a², … with a = 1 - 1/span are normalised over what has been seen, the
    correction of Kingma and Ba (2015).

    >>> smooth([2.0, 2.0, 2.0], span=10).tolist()
    [2.0, 2.0, 2.0]
    """
    keep = 1 - 1 / max(1, span)

    def decayed(terms: Iterable[float]) -> np.ndarray:
        return np.array(list(accumulate(terms, lambda total, term: keep * total + term)), float)

    return decayed(values) / decayed(np.ones(len(values)))


@styled
def plot_loss(log: LossLog, other: LossLog | None = None, span: int | None = None) -> Picture:
    """Draw the loss of every head against steps, and below it the acceptance where it was measured.

    Faint lines are the raw loss, full ones its average over about ``span`` steps (default: a
    fiftieth of the run), marks the validation loss. ``other`` is a second run for comparison,
    drawn dashed.
    """
    runs = [log] if other is None else [log, other]
    looked = any(run.validation for run in runs)
    figure = picture(9.5, 6.2 if looked else 4.2)
    panels = figure.subplots(2 if looked else 1, 1, sharex=True, squeeze=False)[:, 0]
    for run, stroke in zip(runs, STROKES, strict=False):
        _losses(panels[0], run, stroke, span, f"{run.name}, " if other else "")
        for head in range(run.heads if looked else 0):
            _validation(panels[1], run, "accept", head, stroke, linestyle=stroke, linewidth=1.4)
    panels[0].set(ylabel="loss, nats", title=" against ".join(run.name for run in runs))
    panels[0].legend(ncols=4, fontsize=8.5, loc="upper right")
    if looked:
        panels[1].set(ylabel="accepted, share", ylim=(0, None))
    for panel in panels:
        _mark_phases(panel, log)
    panels[-1].set_xlabel("step")
    return figure


@styled
def plot_phases(log: LossLog) -> Picture:
    """Draw each phase's losses in a panel of its own, so that a short phase can be read too."""
    phases = sorted({point.phase for point in log.points}) or [1]
    figure = picture(9.5, 4.0)
    panels = figure.subplots(1, len(phases), squeeze=False)[0]
    for panel, phase in zip(panels, phases, strict=True):
        _losses(panel, log.of_phase(phase), STROKES[0])
        panel.set(title=f"{log.name}, phase {phase}", xlabel="step")
    panels[0].set_ylabel("loss, nats")
    panels[-1].legend(ncols=2, fontsize=8.5, loc="upper right")
    return figure


def _losses(
    axes: Axes, run: LossLog, stroke: str, span: int | None = None, prefix: str = ""
) -> None:
    """Draw a run's raw and smoothed losses (phases apart) and its validation losses."""
    span = span or max(1, len(run.points) // 50)
    for head in range(run.heads):
        color = HUES[head % len(HUES)]
        label: str | None = f"{prefix}head {head + 1}"
        for phase in (1, 2):
            points = run.of_phase(phase).points
            steps, values = [p.step for p in points], [p.loss[head] for p in points]
            if points:
                axes.plot(steps, values, color=color, linewidth=0.6, alpha=0.3)
                even = smooth(values, span)
                axes.plot(steps, even, stroke, color=color, linewidth=1.8, label=label)
                label = None
        _validation(axes, run, "loss", head, stroke, linestyle="", label=label)


def _validation(
    axes: Axes, run: LossLog, measure: str, head: int, stroke: str, **style: Any
) -> None:
    """Draw a head's ``loss`` on held-out text, or the share of its choices that were ``accept``ed.

    Marks of the second run are hollow.
    """
    color = HUES[head % len(HUES)]
    axes.plot(
        [look.step for look in run.validation],
        [getattr(look, measure)[head] for look in run.validation],
        marker=MARKS[head % len(MARKS)],
        color=color,
        markerfacecolor=color if stroke == STROKES[0] else "white",
        markersize=5,
        **style,
    )


def _mark_phases(axes: Axes, log: LossLog) -> None:
    """Draw a line where phase 2 begins, and write the phases' names at the top."""
    first, second = (log.of_phase(phase).points for phase in (1, 2))
    top = axes.get_xaxis_transform()
    for points, name in ((first, "phase 1"), (second, "phase 2")):
        if points:
            middle = (points[0].step + points[-1].step) / 2
            axes.text(middle, 1, name, transform=top, ha="center", va="bottom", color=FAINT)
    if first and second:
        axes.axvline((first[-1].step + second[0].step) / 2, color=INK, linewidth=1, linestyle=":")
        axes.axvspan(second[0].step, second[-1].step, color=FAINT, alpha=0.08, linewidth=0)


@styled
def plot_ablations(study: AblationStudy, material: str) -> Picture:
    """Draw tokens per step on prompts of one kind: a mark for each training, named at the left.

    Trainings that ask the same question stand together. The band is what the baseline gives over
    its seeds: a mark inside it differs by no more than chance does.
    """
    low, high = study.spread(material)
    places: list[tuple[float, AblationRow]] = []
    place = 0.0
    changed = (row for row in study.rows if row.changes)
    for _, rows in groupby(changed, key=lambda row: row.question):
        block = [(place + number, row) for number, row in enumerate(rows)]
        places += block
        place += len(block) + 0.6
    figure = picture(7.6, 1.1 + ROW * (place + 1))
    axes = figure.subplots()
    axes.axvspan(low, high, color=HUES[0], alpha=0.16, linewidth=0, label="baseline, by seed")
    for row in study.baselines:
        axes.axvline(row.score(material).tokens_per_step, color=HUES[0], linewidth=1)
    for height, row in places:
        value = row.score(material).tokens_per_step
        mark, color = (MARKS[0], FAINT) if low <= value <= high else (MARKS[3], INK)
        axes.plot(value, height, mark, color=color, markersize=6)
    axes.set_yticks([height for height, _ in places], [row.name for _, row in places])
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.invert_yaxis()
    axes.set_xlabel(f"tokens per step on {material} prompts")
    figure.legend(loc="outside upper right", fontsize=9)
    return figure
