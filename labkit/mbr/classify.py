"""Bayes risk where everything fits on a page: a few classes, a few actions, a loss matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from labkit.errors import LabkitError
from labkit.mbr.decide import expected_loss, minimiser
from labkit.records import RiskTable, Sample


def bayes_action(
    actions: Sequence[str],
    classes: Sequence[str],
    posterior: Sequence[float],
    loss: Sequence[Sequence[float]],
    question: str = "",
) -> RiskTable:
    """Return the action with the least expected loss, given how probable each class is.

    ``posterior`` p(class | what was seen) sums to 1; ``loss[action][class]`` lies on 0..1: divide
    by the largest, which changes no decision. The record's hypotheses are the actions, its
    evidence the classes, its weights the posterior. Raises `LabkitError` where these do not fit
    together.

    Eat a mushroom that is poisonous with probability 0.1? The likeliest class says yes:

    >>> table = bayes_action(["eat", "leave"], ["edible", "poisonous"], [0.9, 0.1],
    ...                      [[0.0, 1.0], [0.05, 0.0]])
    >>> table.hypotheses[table.best].text, [round(risk, 3) for risk in table.risk]
    ('leave', [0.1, 0.045])
    """
    losses = np.array([list(row) for row in loss], dtype=object)
    if losses.shape != (len(actions), len(classes)):
        raise LabkitError(
            f"The losses do not make {len(actions)} rows, one an action, of {len(classes)} values, "
            "one a class."
        )
    losses = losses.astype(np.float64)
    if losses.size and not np.all((losses >= 0) & (losses <= 1)):
        raise LabkitError(
            f"The losses go from {losses.min()} to {losses.max()}; divide them by the largest, so "
            "that they lie on 0..1."
        )
    risk = expected_loss(losses, np.array(posterior))
    return RiskTable(
        base="",
        source=question,
        utility="1 - loss",
        weighting="model",
        hypotheses=tuple(Sample(text=action) for action in actions),
        evidence=tuple(
            Sample(text=name, logprob=math.log(p) if p else None)
            for name, p in zip(classes, posterior, strict=True)
        ),
        weights=tuple(posterior),
        loss=tuple(map(tuple, losses.tolist())),
        risk=tuple(risk.tolist()),
        best=minimiser(risk),
    )


def zero_one(classes: Sequence[str]) -> list[list[float]]:
    """Return the loss of naming a class: 0 for the right one, 1 for any other.

    Under it the least risk is the most probable class: MAP is MBR with this loss.
    """
    return [[float(one != other) for other in classes] for one in classes]
