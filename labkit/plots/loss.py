"""The figure of a `LossLog`: every head's loss through both phases, and its acceptance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from labkit.plots.figure import FAINT, HUES, INK, MARKS, Picture, picture, styled
from labkit.records import LossLog

STROKES = ("-", "--")
"""The first run is drawn solid, the one that it is compared with dashed."""


def smooth(values: Sequence[float], span: int) -> np.ndarray:
    """Average exponentially over about ``span`` values, unbiased from the first one on.

    The weights 1, a, a², … with a = 1 - 1/span are normalised over what has been seen, the
    correction of Kingma and Ba (2015).

    >>> smooth([2.0, 2.0, 2.0], span=10).tolist()
    [2.0, 2.0, 2.0]
    """
    keep = 1 - 1 / max(1, span)
    total = weight = 0.0
    out = np.empty(len(values))
    for place, value in enumerate(values):
        total = keep * total + value
        weight = keep * weight + 1
        out[place] = total / weight
    return out


def plot_loss(log: LossLog, other: LossLog | None = None, span: int | None = None) -> Picture:
    """Draw the loss of every head against steps, and below it the acceptance where it was measured.

    Faint lines are the raw loss, full ones its average over about ``span`` steps (default: a
    fiftieth of the run), marks the validation loss. ``other`` is a second run for comparison,
    drawn dashed.
    """
    runs = [log] if other is None else [log, other]
    looked = any(run.validation for run in runs)
    with styled():
        figure = picture(9.5, 6.2 if looked else 4.2)
        panels = figure.subplots(2 if looked else 1, 1, sharex=True, squeeze=False)[:, 0]
        for run, stroke in zip(runs, STROKES, strict=False):
            name = f"{run.name}, " if len(runs) > 1 else ""
            _losses(panels[0], run, stroke, name, span or max(1, len(run.points) // 50))
        _mark_phases(panels[0], log)
        panels[0].set(ylabel="loss, nats", title=" against ".join(run.name for run in runs))
        panels[0].legend(ncols=4, fontsize=8.5, loc="upper right")
        if looked:
            for run, stroke in zip(runs, STROKES, strict=False):
                _acceptance(panels[1], run, stroke)
            _mark_phases(panels[1], log)
            panels[1].set(ylabel="accepted, share", ylim=(0, None))
        panels[-1].set_xlabel("step")
    return figure


def plot_phases(log: LossLog) -> Picture:
    """Draw each phase's losses in a panel of its own, so that a short phase can be read too."""
    phases = sorted({point.phase for point in log.points}) or [1]
    with styled():
        figure = picture(9.5, 4.0)
        panels = figure.subplots(1, len(phases), squeeze=False)[0]
        for panel, phase in zip(panels, phases, strict=True):
            part = log.of_phase(phase)
            _losses(panel, part, STROKES[0], "", max(1, len(part.points) // 50))
            panel.set(title=f"{log.name}, phase {phase}", xlabel="step")
        panels[0].set_ylabel("loss, nats")
        panels[-1].legend(ncols=2, fontsize=8.5, loc="upper right")
    return figure


def _losses(axes: Axes, run: LossLog, stroke: str, name: str, span: int) -> None:
    """Draw a run's raw and smoothed losses (phases apart) and its validation losses."""
    for head in range(run.heads):
        color, mark = HUES[head % len(HUES)], MARKS[head % len(MARKS)]
        label: str | None = f"{name}head {head + 1}"
        for phase in (1, 2):
            points = run.of_phase(phase).points
            if not points:
                continue
            steps, values = [p.step for p in points], [p.loss[head] for p in points]
            axes.plot(steps, values, color=color, linewidth=0.6, alpha=0.3)
            axes.plot(steps, smooth(values, span), stroke, color=color, linewidth=1.8, label=label)
            label = None
        axes.plot(
            [look.step for look in run.validation],
            [look.loss[head] for look in run.validation],
            mark,
            color=color,
            markerfacecolor=color if stroke == "-" else "white",
            markersize=5,
            label=label,
        )


def _acceptance(axes: Axes, run: LossLog, stroke: str) -> None:
    """Draw a run's share of places where a head's first choice is the base model's own."""
    steps = [look.step for look in run.validation]
    for head in range(run.heads):
        shares = [look.accept[head] for look in run.validation]
        color, mark = HUES[head % len(HUES)], MARKS[head % len(MARKS)]
        axes.plot(
            steps,
            shares,
            stroke + mark,
            color=color,
            markerfacecolor=color if stroke == "-" else "white",
            markersize=5,
            linewidth=1.4,
        )


def _mark_phases(axes: Axes, log: LossLog) -> None:
    """Draw a line where phase 2 begins, and write the phases' names at the top."""
    first, second = (log.of_phase(phase).points for phase in (1, 2))
    for points, name in ((first, "phase 1"), (second, "phase 2")):
        if points:
            axes.text(
                (points[0].step + points[-1].step) / 2,
                1.0,
                name,
                transform=axes.get_xaxis_transform(),
                ha="center",
                va="bottom",
                color=FAINT,
            )
    if first and second:
        axes.axvline((first[-1].step + second[0].step) / 2, color=INK, linewidth=1, linestyle=":")
        axes.axvspan(second[0].step, second[-1].step, color=FAINT, alpha=0.08, linewidth=0)
