"""One matplotlib figure per record, imported when first named; nothing here opens a window."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labkit.plots.loss import loss_curves
    from labkit.plots.risk import risk_matrix
    from labkit.plots.serving import serving_curves
    from labkit.plots.trace import race, token_steps
    from labkit.plots.tree import tree_study

__all__ = [
    "loss_curves",
    "race",
    "risk_matrix",
    "serving_curves",
    "token_steps",
    "tree_study",
]

_FILES = {
    "loss_curves": "loss",
    "race": "trace",
    "risk_matrix": "risk",
    "serving_curves": "serving",
    "token_steps": "trace",
    "tree_study": "tree",
}


def __getattr__(name: str) -> object:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
