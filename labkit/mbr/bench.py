"""Utilities and decisions against other libraries': sacrebleu, fastchrf, mbrs and mbr.

mbrs and mbr need older versions of transformers than the lab does, so neither can be imported here.
Hypotheses and evidence go to `labkit.mbr.peer_script` as JSON, run by the Python that has them.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from sacrebleu.metrics import BLEU, CHRF

from labkit.errors import LabkitError
from labkit.mbr import peer_script, utilities
from labkit.mbr.approximate import METHODS, Problem, exact

T = TypeVar("T")

PAIRS = 400
"""Pairs that sacrebleu scores; its time for a whole matrix is extrapolated from theirs."""

COMMON = """
the of and to in a is that for it was on as with be by this had not are but from or have an they
which one you were her all she there would their we him been has when who will more no if out so
said what up its about into than them can only other new some could time these two may then do
first any my now such like our over man me even most made after also did many before must through
back years where much your way well down should because each just those people how too little
state good very make world still own see men work long get here between both life being under
never day same another know while last might us great old year off come since against go came
right used take three house school water place night small found left large kept
"""
WORDS = tuple(COMMON.split())
"""English words, about by how often they are used."""


def bench_utility(utility: str = "chrf", size: int = 1024, seed: int = 0) -> dict[str, Any]:
    """Time a ``size`` by ``size`` matrix of ``utility`` (chrf or bleu), and check it.

    ``seconds`` is the median of three matrices over fresh texts, after one small matrix that
    compiles what is compiled; ``ratio_sacrebleu`` says how many times as long sacrebleu would take,
    extrapolated from ``pairs_sacrebleu`` pairs, and ``ratio_fastchrf`` how many times as long
    fastchrf took for the same matrix (null, with a ``note``, where it is not installed, and for
    bleu); ``max_abs_difference`` to sacrebleu is on the 0 to 100 scale, over those pairs.

    Raises `LabkitError` for another utility or a size below 1.
    """
    peers = {"chrf": CHRF(), "bleu": BLEU(effective_order=True)}
    if utility not in peers:
        raise LabkitError(f"The utility {utility!r} has no peer to be timed against: chrf, bleu.")
    if size < 1:
        raise LabkitError(f"The size is {size}; it must be at least 1.")
    rng = np.random.default_rng(seed)
    ours = utilities.get(utility)
    ours(*(sentences(200, rng) for _ in "hr"))
    times = []
    for _ in range(3):
        hypotheses, evidence = sentences(size, rng), sentences(size, rng)
        values, seconds = timed(partial(ours, hypotheses, evidence))
        times.append(seconds)
    seconds = statistics.median(times)
    chosen = rng.integers(size, size=(min(PAIRS, size * size), 2))
    sentence_score = peers[utility].sentence_score
    scores, peer_seconds = timed(
        lambda: [sentence_score(hypotheses[h], [evidence[r]]).score for h, r in chosen]
    )
    difference = np.abs(100 * values[tuple(chosen.T)] - np.array(scores)).max()
    result: dict[str, Any] = {
        "utility": utility,
        "size": size,
        "seconds": seconds,
        "ratio_sacrebleu": peer_seconds / len(chosen) * size * size / seconds,
        "pairs_sacrebleu": len(chosen),
        "ratio_fastchrf": None,
        "max_abs_difference": float(difference),
    }
    if utility == "chrf" and importlib.util.find_spec("fastchrf"):
        import fastchrf

        _, fast = timed(lambda: fastchrf.pairwise_chrf([hypotheses], [evidence]))
        result["ratio_fastchrf"] = fast / seconds
    elif utility == "chrf":
        result["note"] = "fastchrf is not installed; `pip install fastchrf` adds the comparison."
    return result


def sentences(many: int, rng: np.random.Generator) -> list[str]:
    """Make texts with the lengths and word frequencies of ordinary sentences, about 80 letters.

    >>> len(sentences(3, np.random.default_rng(0)))
    3
    """
    chance = 1 / np.arange(2, len(WORDS) + 2)
    made = []
    for length in rng.integers(6, 25, size=many):
        chosen = rng.choice(len(WORDS), size=length, p=chance / chance.sum())
        made.append(" ".join(WORDS[i] for i in chosen).capitalize() + ".")
    return made


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """Return a call's result and the seconds it took."""
    start = time.perf_counter()
    value = call()
    return value, time.perf_counter() - start


PEERS = ("mbrs", "mbr")
TIE = 1e-4
"""Expected scores, on 0 to 100, that lie closer than this count as equal."""

SHARED = {
    "mbr": ("exact", "the same sum; equal scores are decided by order of summation"),
    "aggregate_mbr": ("aggregation", "the same average; float32 there"),
    "centroid_mbr": ("centroids", "k-means starts elsewhere"),
    "pruning_mbr": ("pruning", "evidence and resamples are drawn in another order"),
    "probabilistic_mbr": ("low rank", "1/8 of the pairs there, 1/4 here, drawn at random"),
}
"""Decoders that the lab has too, by mbrs' names: the lab's own, and why decisions may differ."""

Cases = Sequence[tuple[Sequence[str], Sequence[str]]]
"""Hypotheses and evidence of each case."""


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
    cases: Cases,
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


def _agreement(cases: Cases, metric: str, decoder: str, answer: dict[str, Any]) -> Agreement:
    """Decide every case here, and compare with a peer's ``answer``."""
    if "error" in answer:
        return Agreement(metric, decoder, len(cases), missing=f"not offered: {answer['error']}")
    same = ties = 0
    seconds = 0.0
    apart = None
    method, reason = SHARED[decoder]
    for (hypotheses, evidence), (best, scores) in zip(cases, answer["decided"], strict=True):
        weights = np.full(len(evidence), 1 / len(evidence))
        task = Problem(hypotheses, evidence, weights, metric)
        ours, took = timed(partial(METHODS[method], task, np.random.default_rng(0)))
        seconds += took
        risk = 100 * np.asarray(ours.risk if decoder == "mbr" else exact(task).risk)
        if scores is not None:
            given = np.clip(np.array(scores), 0, 100)
            theirs = given if metric == "ter" else 100 - given
            apart = max(apart or 0.0, float(np.abs(theirs - risk).max()))
        if hypotheses[best] == hypotheses[ours.best]:
            same += 1
        elif abs(risk[best] - risk[ours.best]) < TIE:
            ties += 1
    if metric == "ter":
        reason = "a pair's TER above 100 counts as 100 here"
    told = (same, ties, apart, seconds, float(answer["seconds"]))
    return Agreement(metric, decoder, len(cases), *told, reason=reason)


def _ask(
    peer: str, python: str | os.PathLike[str], cases: Cases, ways: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """Return the peer's answer to each of ``ways``, by a process of its own."""
    if peer not in PEERS:
        raise LabkitError(f"No peer is named {peer!r}; there are {', '.join(PEERS)}.")
    listed = [{"hypotheses": list(h), "evidence": list(r)} for h, r in cases]
    try:
        done = subprocess.run(
            [os.fspath(python), "-I", str(peer_script.__file__)],
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
