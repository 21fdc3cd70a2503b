"""Meaning or letters: what a utility follows, on edits that keep a meaning or change it.

Each of `data/edits`' sentences has an edit that keeps its meaning in other words, and one that
changes it with few letters ("never" to "always"). A utility that follows meaning rates the first
one higher. Metrics of overlap are known to fail here (Callison-Burch et al. 2006).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labkit.bootstrap import interval, resampled
from labkit.mbr.utilities import Utility, matrix, name_of
from labkit.paths import data_dir


@dataclass(frozen=True)
class Edit:
    """A sentence, an edit that preserves its meaning, and one that changes it."""

    text: str
    preserving: str
    changing: str


def read_edits() -> list[Edit]:
    """Read the lab's own edits."""
    lines = (data_dir() / "edits" / "eng.tsv").read_text(encoding="utf-8").splitlines()
    return [Edit(*line.split("\t")) for line in lines[1:]]


@dataclass(frozen=True)
class EditScore:
    """A utility on the edits: its mean for each kind, and how often the preserving one is higher.

    ``unrelated`` is the mean against the other sentences, the scale's lower end. ``share`` lies
    between ``low`` and ``high`` in 95% of resamples of the sentences; equal values count one half.
    Chance is 0.5.
    """

    utility: str
    preserving: float
    changing: float
    unrelated: float
    share: float
    low: float
    high: float


def compare_on_edits(
    utilities: dict[str, str | Utility] | list[str | Utility], edits: list[Edit] | None = None
) -> list[EditScore]:
    """Score both edits of every sentence against the sentence, under each utility."""
    edits = read_edits() if edits is None else edits
    named = utilities if isinstance(utilities, dict) else {name_of(one): one for one in utilities}
    drawn = resampled(len(edits), 1000)
    rows = []
    own = np.arange(len(edits))
    texts = [one.text for one in edits]
    edited = [*(one.preserving for one in edits), *(one.changing for one in edits)]
    for name, utility in named.items():
        table = matrix(utility, edited, texts).reshape(2, len(edits), len(edits))
        kept, changed = table[:, own, own]  # (edits,) each
        others = (table.sum() - kept.sum() - changed.sum()) / max(table.size - 2 * len(edits), 1)
        wins = (np.sign(kept - changed) + 1) / 2
        means = (float(each.mean()) for each in (kept, changed, others, wins))
        rows.append(EditScore(name, *means, *interval(wins[drawn].mean(axis=1)).tolist()))
    return rows
