"""The figure of a `TreeStudy`: a candidate tree, and what the best of each size would give."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from labkit.plots.figure import FAINT, HUES, INK, Picture, picture, styled
from labkit.records import TreeStudy
from labkit.records.treestudy import NodePath


def plot_tree(study: TreeStudy, tree: Sequence[NodePath] | None = None) -> Picture:
    """Draw a tree (default: the fastest) and, next to it, gain, cost and speedup by size."""
    tree = study.best_tree() if tree is None else list(tree)
    with styled():
        figure = picture(9.5, 3.8)
        left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": (3, 2)})
        _draw_tree(left, study, tree)
        _draw_curves(right, study, tree)
    return figure


def rows_of(tree: Sequence[NodePath]) -> dict[NodePath, int]:
    """Give leaves rows of their own, a parent its first child's row; the root is ``()``.

    >>> rows_of([(0,), (0, 0), (1,)])
    {(0, 0): 0, (0,): 0, (1,): 1, (): 0}
    """
    rows: dict[NodePath, int] = {}
    free = iter(range(len(tree) + 1))

    def visit(path: NodePath) -> int:
        below = sorted(p for p in tree if len(p) == len(path) + 1 and p[: len(path)] == path)
        rows[path] = min([visit(child) for child in below]) if below else next(free)
        return rows[path]

    visit(())
    return rows


def _draw_tree(axes: Axes, study: TreeStudy, tree: Sequence[NodePath]) -> None:
    """Draw circles by depth and row, as large as the chance that their whole path is accepted."""
    rows = rows_of(tree)
    for path in tree:
        color = HUES[(len(path) - 1) % len(HUES)]
        gain = study.gain(path)
        ends = [len(path) - 1, len(path)], [rows[path[:-1]], rows[path]]
        axes.plot(*ends, color=color, linewidth=0.8 + 4 * gain, zorder=1)
        axes.scatter(len(path), rows[path], s=30 + 260 * gain, color=color, zorder=2)
        if len(tree) <= 24:
            share = study.accept[len(path) - 1][path[-1]]
            axes.annotate(
                f"#{path[-1] + 1}  {share:.2f}",
                (len(path), rows[path]),
                xytext=(0, 5 + 6 * gain),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=8,
            )
    axes.scatter(0, rows[()], s=110, color="white", edgecolor=INK, zorder=2)
    axes.set(xlim=(-0.3, len(study.accept) + 0.7), ylim=(max(rows.values()) + 0.7, -0.7))
    heads = range(1, len(study.accept) + 1)
    axes.set_xticks([0, *heads], ["text", *(f"head {head}" for head in heads)])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_title(f"{len(tree)} nodes: {study.tokens_per_step(tree):.2f} tokens per step")


def _draw_curves(axes: Axes, study: TreeStudy, tree: Sequence[NodePath]) -> None:
    """Draw tokens, cost and speedup of the best tree of each size, and of this one."""
    best = study.best_trees()
    for words, value, color, stroke, mark in (
        ("tokens per step", study.tokens_per_step, HUES[2], "--", "o"),
        ("cost of a step", study.cost, HUES[1], ":", "s"),
        ("speedup", study.speedup, HUES[0], "-", "D"),
    ):
        axes.plot([value(each) for each in best], stroke, color=color, label=words)
        axes.plot(len(tree), value(tree), mark, color=color)
    axes.axhline(1, color=FAINT, linewidth=0.8)
    axes.set(xlabel="nodes", ylim=(0, None), title=f"speedup {study.speedup(tree):.2f} predicted")
    axes.legend(fontsize=8.5)
