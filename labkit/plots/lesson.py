"""The course's own figures: distributions side by side, lines, and points with names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from labkit.plots.figure import FAINT, HUES, INK, MARKS, WINNER, Picture, picture, styled

KEPT, LEFT_OVER, DRAFTER = HUES[0], HUES[1], "#8db9dc"


@styled
def plot_overlap(words: Sequence[str], p: ArrayLike, q: ArrayLike) -> Picture:
    """Draw p (base model) and q (drafter), each (V,), and what they have in common.

    Left both; in the middle the drafts, kept where q lies under p; right the base model's p, made
    of what was kept and of what is still owed, which has the same area as what was rejected.
    """
    p, q = np.asarray(p, float), np.asarray(q, float)
    both = np.minimum(p, q)
    places = np.arange(len(words))
    figure = picture(9.6, 2.9)
    pair, drafts, base = figure.subplots(1, 3, sharey=True)
    pair.bar(places - 0.2, p, 0.38, color=INK, label="p, base model")
    pair.bar(places + 0.2, q, 0.38, color=DRAFTER, label="q, drafter")
    pair.set(title="Two opinions", ylabel="probability")
    for axes, whole, title, rest in (
        (drafts, q, "Drafts, drawn from q", "rejected"),
        (base, p, "Output, to be p", "still owed"),
    ):
        axes.bar(places, both, 0.66, color=KEPT, label=f"kept, {both.sum():.2f}")
        more = whole > both  # a bar of no height would still leave a line
        style: Any = {"color": "white", "edgecolor": LEFT_OVER, "hatch": "////"}
        label = f"{rest}, {(whole - both).sum():.2f}"
        axes.bar(places[more], (whole - both)[more], 0.66, both[more], label=label, **style)
        axes.set_title(title)
    for axes in (pair, drafts, base):
        axes.set_xticks(places, words)
        axes.grid(False, axis="x")
        axes.legend(fontsize=8.5)
    pair.set_ylim(0, 1.42 * max(p.max(), q.max()))
    return figure


@styled
def plot_against(
    words: Sequence[str],
    expected: ArrayLike,
    found: Mapping[str, ArrayLike],
    noise: float | ArrayLike = 0.0,
) -> Picture:
    """Draw in a panel each what came out, (V,), with a line where it should be.

    A bar further from its line than ``noise`` (one number, or one a word) is in another colour and
    hatched.
    """
    expected = np.asarray(expected, float)
    places = np.arange(len(words))
    panel = max(2.4, 0.75 * len(words))
    figure = picture(min(9.6, 1.2 + panel * len(found)), 2.7)
    panels = np.atleast_1d(figure.subplots(1, len(found), sharey=True))
    for axes, (name, outcome) in zip(panels, found.items(), strict=True):
        values = np.asarray(outcome, float)
        off = np.abs(values - expected) > noise
        colours, hatches = np.where(off, LEFT_OVER, KEPT), np.where(off, "////", "")
        axes.bar(places, values, 0.66, color=colours, edgecolor="white", hatch=list(hatches))
        axes.hlines(expected, places - 0.42, places + 0.42, color=INK, linewidth=2)
        axes.set_title(name)
        axes.set_xticks(places, words)
        axes.grid(False, axis="x")
    panels[0].set_ylabel("share")
    top = max(float(np.max(values)) for values in (expected, *found.values()))
    panels[0].set_ylim(0, 1.1 * top)
    return figure


@styled
def plot_lines(
    x: ArrayLike,
    lines: Mapping[str, ArrayLike],
    xlabel: str,
    ylabel: str,
    marks: bool = False,
    envelope: bool = False,
    doubling: bool = False,
) -> Picture:
    """Draw a line for each name over x; ``envelope`` traces the least of them all at each x.

    With ``doubling`` the axis of x grows by doubling, each x being named. Where every x is a whole
    number, so is every number on its axis.
    """
    x = np.asarray(x, float)
    figure = picture(6.6, 3.1)
    axes = figure.subplots()
    if envelope:
        least = np.min([np.asarray(y, float) for y in lines.values()], axis=0)
        axes.plot(x, least, color=WINNER, linewidth=7, alpha=0.28, label="the least")
    for i, (name, y) in enumerate(lines.items()):
        axes.plot(x, y, color=HUES[i], marker=MARKS[i] if marks else None, label=name)
    if doubling:
        axes.set_xscale("log", base=2)
        axes.set_xticks(x, [f"{value:g}" for value in x])
    elif (x == x.round()).all():
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if len(axes.lines) > 1:
        figure.legend(loc="outside right center", fontsize=9)
    return figure


@styled
def plot_points(
    x: ArrayLike, y: ArrayLike, named: Mapping[str, int], xlabel: str, ylabel: str
) -> Picture:
    """Draw points, those in ``named`` (name to index) marked; several names may share a point.

    The legend speaks of the others only where some are left.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    by_point: dict[int, list[str]] = {}
    for name, index in named.items():
        by_point.setdefault(index, []).append(name)
    figure = picture(6.6, 3.1)
    axes = figure.subplots()
    others = "the others" if len(by_point) < len(x) else None
    axes.scatter(x, y, s=18, color=FAINT, label=others)
    for i, (index, names) in enumerate(by_point.items()):
        label = "\n".join(names)
        axes.scatter(x[index], y[index], s=70, color=HUES[i], marker=MARKS[i], label=label)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    figure.legend(loc="outside right center", fontsize=9)
    return figure
