"""Six views of records, each in a folder of its own; imported when first named."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labkit.widgets.loss_curves import LossCurves
    from labkit.widgets.race import Race
    from labkit.widgets.risk_matrix import RiskMatrix
    from labkit.widgets.serving_curves import ServingCurves
    from labkit.widgets.token_stepper import TokenStepper
    from labkit.widgets.tree_lab import TreeLab

__all__ = ["LossCurves", "Race", "RiskMatrix", "ServingCurves", "TokenStepper", "TreeLab"]

_FOLDERS = {
    "LossCurves": "loss_curves",
    "Race": "race",
    "RiskMatrix": "risk_matrix",
    "ServingCurves": "serving_curves",
    "TokenStepper": "token_stepper",
    "TreeLab": "tree_lab",
}


def __getattr__(name: str) -> object:
    if name not in _FOLDERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FOLDERS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
