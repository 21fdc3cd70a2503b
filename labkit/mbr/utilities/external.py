"""Metrics from elsewhere: any function of two texts, and COMET-class models where installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from labkit.errors import LabkitError

Utility = Callable[[Sequence[str], Sequence[str]], np.ndarray]


def pairwise(metric: Callable[[str, str], float], scale: float = 1.0) -> Utility:
    """Make a utility of a function of (hypothesis, reference) with values on 0..``scale``.

    >>> same_length = pairwise(lambda hypothesis, reference: len(hypothesis) == len(reference))
    >>> same_length(["ab"], ["cd", "e"])
    array([[1., 0.]])
    """

    def utility(hypotheses: Sequence[str], evidence: Sequence[str]) -> np.ndarray:
        values = [metric(one, other) / scale for one, other in product(hypotheses, evidence)]
        return np.array(values, dtype=np.float64).reshape(len(hypotheses), len(evidence))

    utility.__name__ = getattr(metric, "__name__", "pairwise")
    return utility


def comet(source: str, model: Any = None) -> Utility:
    """Make COMET (Rei et al. 2020) a utility for texts from one source, which it also reads.

    Its scores lie about on 0..1; what lies outside is cut off. ``model`` is one loaded before,
    else wmt22-comet-da is fetched from a hub by the package unbabel-comet. Raises `LabkitError`
    where that is not installed.
    """
    model = model or _comet_model()

    def utility(hypotheses: Sequence[str], evidence: Sequence[str]) -> np.ndarray:
        rows = [
            {"src": source, "mt": one, "ref": other} for one, other in product(hypotheses, evidence)
        ]
        scores = np.array(model.predict(rows, progress_bar=False).scores, dtype=np.float64)
        return np.clip(scores, 0, 1).reshape(len(hypotheses), len(evidence))

    utility.__name__ = "comet"
    return utility


@cache
def _comet_model() -> Any:
    if importlib.util.find_spec("comet") is None:
        raise LabkitError(
            "The utility comet needs the package unbabel-comet, which asks for an older "
            "transformers and so for an environment of its own; give any Python function instead "
            "(see `labkit.mbr.utilities.external.pairwise`)."
        )
    from comet import download_model, load_from_checkpoint

    return load_from_checkpoint(download_model("Unbabel/wmt22-comet-da"))
