"""The figure of a `RiskTable`: the losses, the weights on their margin, the risks, the winner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from labkit.plots.figure import FAINT, INK, LOSS_RAMP, WINNER, Picture, picture, styled
from labkit.records import RiskTable

LABELLED = 24
"""Up to this many rows or columns carry their text or number."""

CROWDED = 15
"""With more columns than this, their numbers are set small, or they would run together."""


@styled
def plot_risk(table: RiskTable) -> Picture:
    """Draw each hypothesis's loss against each evidence sample, and what follows from it.

    Rows are sorted by risk, so the winner is at the top; columns by weight, heaviest first. Equal
    values keep the record's order.
    """
    loss, weights, risk = (np.asarray(part) for part in (table.loss, table.weights, table.risk))
    rows = np.argsort(risk, kind="stable")
    rows = np.concatenate(([table.best], rows[rows != table.best]))
    columns = np.argsort(-weights, kind="stable")
    many, much = loss.shape
    figure = picture(9.5, float(np.clip(1.8 + 0.24 * many, 3.6, 7.5)))
    grid = figure.add_gridspec(
        2, 2, width_ratios=(3.2, 1), height_ratios=(1, 6), wspace=0.02, hspace=0.02
    )
    heat = figure.add_subplot(grid[1, 0])
    above = figure.add_subplot(grid[0, 0], sharex=heat)
    beside = figure.add_subplot(grid[1, 1], sharey=heat)

    sort: Any = {"cmap": LOSS_RAMP, "vmin": 0, "vmax": 1, "interpolation": "nearest"}
    image = heat.imshow(loss[np.ix_(rows, columns)], aspect="auto", **sort)
    heat.grid(False)
    heat.set_xlabel(f"evidence, {much} samples, heaviest first")
    heat.set_ylabel(f"hypotheses, {many}, lowest risk first")
    texts = [_short(table.hypotheses[row].text) for row in rows if many <= LABELLED]
    numbers = [str(column) for column in columns if much <= LABELLED]
    heat.set_xticks(range(len(numbers)), numbers, fontsize=9.5 if much <= CROWDED else 7)
    heat.set_yticks(range(len(texts)), texts)
    heat.tick_params(length=0)

    above.bar(range(much), weights[columns], width=0.9 if much <= LABELLED else 1, color=INK)
    above.set(ylabel="weight", title=f"Risk by {table.utility}, weights: {table.weighting}")
    above.tick_params(labelbottom=False, bottom=False)

    beside.scatter(risk[rows[1:]], range(1, many), s=14, color=FAINT)
    beside.scatter(risk[table.best], 0, s=42, marker="D", color=WINNER)
    beside.set_xlabel("risk")
    few = MaxNLocator(nbins=2, steps=(1, 2, 5, 10), min_n_ticks=1)
    beside.xaxis.set_major_locator(few)  # near risks have long numbers, and the panel is narrow
    beside.tick_params(labelleft=False, left=False)
    right: Any = {"xytext": (8, 0), "textcoords": "offset points", "va": "center"}
    said = f"lowest: {risk[table.best]:.4f}"
    beside.annotate(said, (risk[table.best], 0), color=WINNER, annotation_clip=False, **right)
    figure.colorbar(image, ax=beside, label="loss: 0 alike, 1 unlike", fraction=0.08)
    return figure


@styled
def plot_coverage(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Picture:
    """Draw risk-coverage curves, each a pair of coverages and mean losses, by its score's name."""
    figure = picture(7, 3.6)
    axes = figure.add_subplot()
    for name, (coverage, risk) in curves.items():
        flat: Any = {"color": FAINT, "linestyle": "--"} if name == "random" else {}
        axes.plot(coverage, risk, label=name, **flat)
    axes.set(xlim=(0, 1), ylim=(0, None), ylabel="mean loss of those answered")
    axes.set_xlabel("coverage: share of decisions answered, surest first")
    axes.legend()
    return figure


@styled
def plot_beyond(table: RiskTable) -> Picture:
    """Draw what an annotated table has beyond one answer: curve, set and clusters.

    Left, the test set's risk-coverage curve and this decision's place on it; middle, the risk of
    the set as it grows, and of as many best single hypotheses; right, the weight of each cluster.
    """
    loss, weights, risk = (np.asarray(part) for part in (table.loss, table.weights, table.risk))
    figure = picture(9.5, 3.2)
    curve, grows, kinds = figure.subplots(1, 3)
    curve.set(title="How sure is it?", xlabel="coverage", ylabel="mean loss")
    if table.coverage:
        points = [(point.coverage, point.risk) for point in table.coverage]
        curve.plot(*zip(*points, strict=True), color=INK)
        sure = 1 - risk[table.best]
        surer = [p for p in table.coverage if p.threshold >= sure] or table.coverage[:1]
        curve.scatter(surer[-1].coverage, surer[-1].risk, color=WINNER, zorder=3)
        curve.set_ylim(bottom=0)
    ranked = np.argsort(risk, kind="stable")
    sizes = range(1, len(table.chosen_set) + 1)
    for rows, name, color in (
        (table.chosen_set, "chosen together", WINNER),
        (ranked, "best single ones", FAINT),
    ):
        values = [loss[list(rows[:k])].min(axis=0) @ weights for k in sizes]
        grows.plot(sizes, values, marker="o", label=name, color=color)
    grows.set(title="Risk of a set", xlabel="answers in it")
    grows.xaxis.set_major_locator(MaxNLocator(integer=True))
    if table.chosen_set:
        grows.legend()
    weight = {item.text: 0.0 for item in table.evidence}
    for item, value in zip(table.evidence, weights, strict=True):
        weight[item.text] += value
    own = [weight.get(one.text, 0.0) for one in table.hypotheses]
    if table.clusters:
        mass = np.sort(np.bincount(table.clusters, own))[::-1][:8]
        kinds.bar(range(1, len(mass) + 1), mass, color=INK)
    kinds.set(title="Kinds of answer", xlabel="cluster, heaviest first", ylabel="weight")
    return figure


def _short(text: str) -> str:
    """Return one line of at most 38 characters."""
    line = text.replace("\n", "⏎")
    return line if len(line) <= 38 else line[:37] + "…"
