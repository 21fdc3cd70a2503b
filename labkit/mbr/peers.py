"""Decisions against other MBR libraries', each run in a Python of its own.

mbrs and mbr need older versions of transformers than the lab does, so neither can be imported here.
Hypotheses and evidence go to `labkit.mbr.peer_script` as JSON, run by the Python that has them.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labkit.errors import LabkitError
from labkit.mbr import peer_script
from labkit.mbr.approximate import Problem, aggregation, centroids, exact, low_rank, pruning

PEERS = ("mbrs", "mbr")
TIE = 1e-4
"""Expected scores, on 0 to 100, that lie closer than this count as equal."""

SHARED: dict[str, Callable[[Problem], Any]] = {
    "mbr": exact,
    "aggregate_mbr": aggregation,
    "centroid_mbr": lambda task: centroids(task, np.random.default_rng(0)),
    "pruning_mbr": lambda task: pruning(task, np.random.default_rng(0)),
    "probabilistic_mbr": lambda task: low_rank(task, np.random.default_rng(0)),
}
"""Decoders that the lab has too, by mbrs' names."""

REASONS = {
    "mbr": "the same sum; equal scores are decided by order of summation",
    "aggregate_mbr": "the same average; float32 there",
    "centroid_mbr": "k-means starts elsewhere",
    "pruning_mbr": "evidence and resamples are drawn in another order",
    "probabilistic_mbr": "1/8 of the pairs there, 1/4 here, drawn at random",
}
"""Why decisions of a decoder may differ."""


@dataclass(frozen=True)
class Agreement:
    """One metric and decoder in both libraries.

    ``same`` of ``cases`` decisions chose the same text, ``ties`` chose another of equal expected
    score (within `TIE` of 100), the others differ. ``apart`` is the largest difference of expected
    scores on 0 to 100, where the peer gives them. ``missing`` says why there is no comparison.
    """

    metric: str
    decoder: str
    cases: int
    same: int = 0
    ties: int = 0
    apart: float | None = None
    seconds: float = math.nan
    peer_seconds: float = math.nan
    reason: str = ""
    missing: str = ""


def compare_with_peer(
    cases: Sequence[tuple[Sequence[str], Sequence[str]]],
    peer: str,
    python: str | os.PathLike[str],
    metrics: Sequence[str] = ("chrf", "bleu", "ter"),
    decoders: Sequence[str] = tuple(SHARED),
) -> list[Agreement]:
    """Decide every case, hypotheses and evidence with duplicates as drawn, here and by ``peer``.

    Raises `LabkitError` for an unknown peer, or where its Python cannot be run or answers nothing.
    """
    ways = [(m, d) for d in decoders for m in metrics if d == "mbr" or m == "chrf"]
    answers = _ask(peer, python, cases, ways)
    return [_agreement(cases, *way, answer) for way, answer in zip(ways, answers, strict=True)]


def _agreement(
    cases: Sequence[tuple[Sequence[str], Sequence[str]]],
    metric: str,
    decoder: str,
    answer: dict[str, Any],
) -> Agreement:
    if "error" in answer:
        return Agreement(metric, decoder, len(cases), missing=f"not offered: {answer['error']}")
    same = ties = 0
    seconds = 0.0
    apart = None
    for (hypotheses, evidence), (best, scores) in zip(cases, answer["decided"], strict=True):
        weights = np.full(len(evidence), 1 / len(evidence))
        task = Problem(hypotheses, evidence, weights, metric)
        started = time.perf_counter()
        ours = SHARED[decoder](task)
        seconds += time.perf_counter() - started
        risk = 100 * np.asarray(exact(task).risk if decoder != "mbr" else ours.risk)
        if scores is not None:
            given = np.clip(np.array(scores), 0, 100)
            theirs = 100 - given if metric != "ter" else given
            apart = max(apart or 0.0, float(np.abs(theirs - risk).max()))
        if hypotheses[best] == hypotheses[ours.best]:
            same += 1
        elif abs(risk[best] - risk[ours.best]) < TIE:
            ties += 1
    told = (same, ties, apart, seconds, float(answer["seconds"]))
    reason = REASONS[decoder] if metric != "ter" else "a pair's TER above 100 counts as 100 here"
    return Agreement(metric, decoder, len(cases), *told, reason=reason)


def _ask(
    peer: str,
    python: str | os.PathLike[str],
    cases: Sequence[tuple[Sequence[str], Sequence[str]]],
    ways: Sequence[tuple[str, str]],
) -> list[dict[str, Any]]:
    if peer not in PEERS:
        raise LabkitError(f"No peer is named {peer!r}; there are {', '.join(PEERS)}.")
    listed = [{"hypotheses": list(h), "evidence": list(r)} for h, r in cases]
    script = Path(peer_script.__file__)
    try:
        done = subprocess.run(
            [os.fspath(python), "-I", str(script)],
            input=json.dumps({"peer": peer, "cases": listed, "ways": ways}),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=3600,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabkitError(f"The Python {python} cannot be run for {peer}: {error}") from None
    lines = done.stdout.strip().splitlines()
    try:
        answers = json.loads(lines[-1])["answers"]
    except (IndexError, ValueError, KeyError, TypeError):
        said = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise LabkitError(f"{peer} by {python} gave no answer: {said[:200]}") from None
    if len(answers) != len(ways):
        raise LabkitError(f"{peer} gave {len(answers)} answers to {len(ways)} questions.")
    return answers
