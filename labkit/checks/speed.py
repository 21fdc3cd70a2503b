"""Checks of the exercises in the notebooks on speculative decoding.

Each knows the right answer and the common mistakes as formulas: an answer that agrees with a
mistake in every case is told which one it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from labkit.checks import Finding
from labkit.checks.answers import exercise, number

Mistake = tuple[Callable[..., Any], str]
"""What a mistake gives for a case, and the sentence that names it."""


@exercise
def decoding_limit(formula: Callable[[float, float, float], float]) -> Finding:
    """Check tokens a second at most, from weights, bytes a weight and bytes a second."""
    return _judge(
        formula,
        [(1e8, 4, 4e10), (7e9, 2, 2e12), (3e9, 1, 6e10)],
        lambda weights, size, bandwidth: bandwidth / (weights * size),
        [
            (lambda weights, size, bandwidth: weights * size / bandwidth,
             "these are the seconds that a token takes: turn the fraction over"),
            (lambda weights, size, bandwidth: bandwidth / weights,
             "a weight is counted as one byte: multiply by the bytes that it has"),
            (lambda weights, size, bandwidth: bandwidth / (2 * weights * size),
             "the 2 belongs to arithmetic, two operations a weight: each weight is read once"),
            (lambda weights, size, bandwidth: 8 * bandwidth / (weights * size),
             "everything is in bytes already: there is no 8"),
            (lambda weights, size, bandwidth: bandwidth * size / weights,
             "more bytes a weight make it slower: they belong below the line"),
        ],
        "bandwidth over the bytes of all weights; how fast the processor computes is not in it.",
        "{} weights of {} bytes at {} bytes a second",
    )  # fmt: skip


@exercise
def ridge(formula: Callable[[float, float, float], float]) -> Finding:
    """Check the tokens at which arithmetic takes as long as reading, from the three sizes.

    Bytes a weight, bytes a second, operations a second; two operations a weight and token.
    """
    return _judge(
        formula,
        [(4, 4e10, 2e11), (2, 2e12, 3e14), (0.5, 1e11, 4e11)],
        lambda size, bandwidth, speed: size * speed / (2 * bandwidth),
        [
            (lambda size, bandwidth, speed: size * speed / bandwidth,
             "a weight costs two operations a token, a multiplication and an addition"),
            (lambda size, bandwidth, speed: 2 * size * speed / bandwidth,
             "two operations a token make arithmetic slower, so the 2 belongs below the line"),
            (lambda size, bandwidth, speed: 2 * bandwidth / (size * speed),
             "this is the fraction turned over: more arithmetic must give more free tokens"),
            (lambda size, bandwidth, speed: speed / (2 * bandwidth),
             "the bytes a weight are missing: the longer it takes to read one, the more is free"),
            (lambda size, bandwidth, speed: speed / (2 * bandwidth * size),
             "the more bytes a weight has, the longer reading takes and the more is free: they "
             "belong above the line"),
        ],
        "reading a weight takes bytes / bandwidth, using it 2 / speed for each token; how many "
        "weights there are cancels.",
        "{} bytes a weight, {} bytes and {} operations a second",
    )  # fmt: skip


@exercise
def published_size(formula: Callable[[int, int, int, int], float]) -> Finding:
    """Check the number of weights of a published speculator, its tables its own.

    ``formula(vocabulary, width, inner, heads)``; each head has an embedding, a projection, a norm
    of a scale and a shift, and a table of logits.
    """

    def size(vocabulary: int, width: int, inner: int, heads: int) -> int:
        projections = width * inner + (heads - 1) * inner * inner
        return 2 * heads * vocabulary * inner + projections + 2 * heads * inner

    return _judge(
        formula,
        [(1000, 64, 64, 1), (1000, 64, 128, 3), (500, 96, 32, 4)],
        size,
        [
            (lambda v, d, i, k: size(v, d, i, k) - 2 * k * i,
             "the norms are missing: a scale and a shift of the inner width for each head"),
            (lambda v, d, i, k: size(v, d, i, k) - k * i,
             "a norm has a scale and a shift: two numbers for each of the inner width"),
            (lambda v, d, i, k: size(v, d, i, k) - k * v * i,
             "one of the two tables is missing: a head embeds the token that it hears, and scores "
             "every token that it could guess"),
            (lambda v, d, i, k: size(v, d, i, k) + (k - 1) * (d * i - i * i),
             "only the first head reads Z, which has the base model's width: the others read a "
             "state of the inner width"),
            (lambda v, d, i, k: size(v, d, i, k) + i * i - d * i,
             "the first head reads Z, which has the base model's width and not the inner one"),
            (lambda v, d, i, k: size(v, d, i, k) - 2 * (k - 1) * v * i,
             "the heads share their tables here: as published, each has its own"),
            (lambda v, d, i, k: size(v, d, i, k) + 2 * k * v * (d - i),
             "the tables have the inner width, not the base model's"),
        ],
        "nearly all of it is tables: two for each head, as long as the vocabulary.",
        "a vocabulary of {}, a width of {}, an inner width of {} and heads: {}",
    )  # fmt: skip


@exercise
def time_per_token(formula: Callable[[float, Sequence[float], int], float]) -> Finding:
    """Check TPOT, from the time of sending, the times of the outputs, and the number of tokens."""

    def ends(sent: float, arrivals: Sequence[float]) -> tuple[float, float]:
        return arrivals[0] - sent, arrivals[-1] - sent  # TTFT, end to end

    def right(sent: float, arrivals: Sequence[float], tokens: int) -> float:
        ttft, e2e = ends(sent, arrivals)
        return (e2e - ttft) / (tokens - 1)

    return _judge(
        formula,
        [(0.0, [1.0, 1.5, 2.0], 3), (10.0, [10.5, 10.75, 11.5], 7), (2.0, [2.25, 3.25, 3.75], 6)],
        right,
        [
            (lambda sent, arrivals, tokens: (arrivals[-1] - arrivals[0]) / (len(arrivals) - 1),
             "this is the mean gap between outputs (ITL): with speculation an output holds several "
             "tokens, so divide by tokens"),
            (lambda sent, arrivals, tokens: (arrivals[-1] - arrivals[0]) / tokens,
             "the first token came with TTFT: only the others were waited for here, so divide by "
             "tokens - 1"),
            (lambda sent, arrivals, tokens: ends(sent, arrivals)[1] / tokens,
             "the time to the first token is in it: take that off, and the first token with it"),
            (lambda sent, arrivals, tokens: ends(sent, arrivals)[1] / (tokens - 1),
             "the time to the first token is in it: begin at the first output"),
            (lambda sent, arrivals, tokens: 1 / right(sent, arrivals, tokens),
             "these are tokens a second: turn the fraction over"),
        ],
        "from the first output to the last, over all tokens but the first.",
        "a request sent at {}, outputs at {}, {} tokens in all",
    )  # fmt: skip


@exercise
def room_for_drafts(formula: Callable[[float, int], float]) -> Finding:
    """Check how many users' tokens and drafts a pass looks at for nothing, from ridge and nodes."""
    return _judge(
        formula,
        [(24, 3), (150, 4), (16, 7)],
        lambda free, nodes: free / (1 + nodes),
        [
            (lambda free, nodes: free / nodes,
             "each user's own last token is looked at, too, beside the drafts"),
            (lambda free, nodes: free - nodes, "every user has drafts of his own: divide"),
            (lambda free, nodes: free / (nodes + 2),
             "each user has one token of his own and the drafts, nothing else"),
            (lambda free, nodes: free * (1 + nodes), "more drafts leave room for fewer users"),
            (lambda free, nodes: free, "this leaves the drafts out: each user brings 1 + nodes"),
        ],
        "each user brings one token and the drafts.",
        "a ridge of {} and {} drafts a user",
    )  # fmt: skip


def _judge(
    answer: Callable[..., Any],
    cases: Sequence[tuple[Any, ...]],
    right: Callable[..., float],
    mistakes: Sequence[Mistake],
    good: str,
    asked: str,
) -> Finding:
    """Say whether ``answer`` agrees with ``right`` in every case, or with which of the mistakes.

    ``good`` is said of a right answer; ``asked`` puts a case into words, a pair of braces for each
    of its numbers.
    """
    given = [number(answer(*case)) for case in cases]
    wrong = _disagrees(given, cases, right)
    if wrong is None:
        return Finding(True, good)
    for looks, says in mistakes:
        if _disagrees(given, cases, looks) is None:
            return Finding(False, f"{says}.")
    case = asked.format(*map(in_words, cases[wrong]))
    gives, wanted = in_words(given[wrong]), in_words(right(*cases[wrong]))
    return Finding(False, f"for {case} it gives {gives}, and the answer is {wanted}.")


def in_words(value: float | Sequence[float]) -> str:
    """A number as one writes it by hand, or a list of them.

    >>> in_words(7e9), in_words(1 / 3), in_words(12345.0), in_words([1.0, 1.5])
    ('7e9', '0.3333', '12345', '1 and 1.5')
    """
    if isinstance(value, Sequence):
        *first, last = map(in_words, value)
        return f"{', '.join(first)} and {last}" if first else last
    if abs(value) < 1e7 and value == int(value):
        return str(int(value))
    digits, _, power = f"{value:.4g}".partition("e")
    return f"{digits}e{int(power)}" if power else digits


def _disagrees(
    given: Sequence[float], cases: Sequence[tuple[Any, ...]], formula: Callable[..., float]
) -> int | None:
    """The first case in which an answer is not the formula's, or None."""
    for place, (value, case) in enumerate(zip(given, cases, strict=True)):
        if not math.isclose(value, formula(*case), rel_tol=1e-6):
            return place
    return None
