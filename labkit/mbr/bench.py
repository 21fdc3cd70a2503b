"""Measuring: utility matrices against sacrebleu and fastchrf, and whole translations end to end."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np
from sacrebleu.metrics import BLEU, CHRF

from labkit.errors import LabkitError
from labkit.mbr import utilities

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
    chosen = rng.integers(size, size=(min(PAIRS, size * size), 2)).tolist()
    sentence_score = peers[utility].sentence_score
    scores, peer_seconds = timed(
        lambda: [sentence_score(hypotheses[h], [evidence[r]]).score for h, r in chosen]
    )
    ours_of = [100 * values[h, r] for h, r in chosen]
    difference = np.abs(np.array(ours_of) - np.array(scores)).max()
    result: dict[str, Any] = {
        "utility": utility,
        "size": size,
        "seconds": seconds,
        "ratio_sacrebleu": peer_seconds / len(chosen) * size * size / seconds,
        "pairs_sacrebleu": len(chosen),
        "ratio_fastchrf": None,
        "max_abs_difference": float(difference),
    }
    if utility == "chrf" and importlib.util.find_spec("fastchrf") is None:
        result["note"] = "fastchrf is not installed; `pip install fastchrf` adds the comparison."
    elif utility == "chrf":
        import fastchrf

        _, fast = timed(lambda: fastchrf.pairwise_chrf([hypotheses], [evidence]))
        result["ratio_fastchrf"] = fast / seconds
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
