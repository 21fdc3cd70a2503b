"""One matplotlib figure per record, and the course's own; nothing here opens a window."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labkit.plots.ablations import plot_ablations
    from labkit.plots.lesson import plot_against, plot_lines, plot_overlap, plot_points
    from labkit.plots.loss import plot_loss
    from labkit.plots.risk import plot_risk
    from labkit.plots.serving import plot_serving
    from labkit.plots.trace import plot_race, plot_trace
    from labkit.plots.tree import plot_tree

__all__ = [
    "plot_ablations",
    "plot_against",
    "plot_lines",
    "plot_loss",
    "plot_overlap",
    "plot_points",
    "plot_race",
    "plot_risk",
    "plot_serving",
    "plot_trace",
    "plot_tree",
]

_FILES = {
    "plot_ablations": "ablations",
    "plot_against": "lesson",
    "plot_lines": "lesson",
    "plot_loss": "loss",
    "plot_overlap": "lesson",
    "plot_points": "lesson",
    "plot_race": "trace",
    "plot_risk": "risk",
    "plot_serving": "serving",
    "plot_trace": "trace",
    "plot_tree": "tree",
}


def __getattr__(name: str) -> object:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
