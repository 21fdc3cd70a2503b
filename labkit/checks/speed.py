"""Checks of the exercises on what decoding costs: limits, sizes, times and room for drafts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from labkit.checks import Finding
from labkit.checks.answers import exercise, formula


@exercise
def decoding_limit(answer: Callable[[float, float, float], float]) -> Finding:
    """Check tokens a second at most, from weights, bytes a weight and bytes a second."""
    return formula(
        answer, [(1e8, 4, 4e10), (7e9, 2, 2e12), (3e9, 1, 6e10)],
        lambda weights, size, bandwidth: bandwidth / (weights * size),
        "bandwidth over the bytes of all weights; the speed of arithmetic is not in it",
        [
            (lambda n, b, speed: n * b / speed, "these are the seconds that a token takes: turn "
             "the fraction over"),
            (lambda n, b, speed: speed / n, "a weight is counted as one byte: multiply by the "
             "bytes that it has"),
            (lambda n, b, speed: speed / (2 * n * b), "the 2 belongs to arithmetic, two operations "
             "a weight: each weight is read once"),
            (lambda n, b, speed: 8 * speed / (n * b), "everything is in bytes already: there is "
             "no 8"),
            (lambda n, b, speed: speed * b / n, "more bytes a weight make it slower: they belong "
             "below the line"),
        ],
        "{} weights of {} bytes at {} bytes a second",
    )  # fmt: skip


@exercise
def ridge(answer: Callable[[float, float, float], float]) -> Finding:
    """Check the tokens at which arithmetic takes as long as reading, from the three sizes.

    Bytes a weight, bytes a second, operations a second; two operations a weight and token.
    """
    return formula(
        answer, [(4, 4e10, 2e11), (2, 2e12, 3e14), (0.5, 1e11, 4e11)],
        lambda size, bandwidth, speed: size * speed / (2 * bandwidth),
        "reading a weight takes bytes / bandwidth, using it 2 / speed for each token; how many "
        "weights there are cancels",
        [
            (lambda b, read, speed: b * speed / read, "a weight costs two operations a token, a "
             "multiplication and an addition"),
            (lambda b, read, speed: 2 * b * speed / read, "two operations a token make arithmetic "
             "slower, so the 2 belongs below the line"),
            (lambda b, read, speed: 2 * read / (b * speed), "this is the fraction turned over: "
             "faster arithmetic must give more free tokens"),
            (lambda b, read, speed: speed / (2 * read), "the bytes a weight are missing: the "
             "longer it takes to read one, the more is free"),
            (lambda b, read, speed: speed / (2 * read * b), "the more bytes a weight has, the "
             "longer reading takes and the more is free: they belong above the line"),
        ],
        "{} bytes a weight, {} bytes and {} operations a second",
    )  # fmt: skip


@exercise
def published_size(answer: Callable[[int, int, int, int], float]) -> Finding:
    """Check the number of weights of a published speculator, with tables of its own.

    ``answer(vocabulary, width, inner, heads)``; each head has an embedding, a projection, a norm
    of a scale and a shift, and a table of logits.
    """

    def size(v: int, d: int, i: int, k: int) -> int:
        return 2 * k * v * i + d * i + (k - 1) * i * i + 2 * k * i

    return formula(
        answer, [(1000, 64, 64, 1), (1000, 64, 128, 3), (500, 96, 32, 4)], size,
        "nearly all of it is tables: two for each head, as long as the vocabulary",
        [
            (lambda v, d, i, k: size(v, d, i, k) - 2 * k * i, "the norms are missing: a scale and "
             "a shift of the inner width for each head"),
            (lambda v, d, i, k: size(v, d, i, k) - k * i, "a norm has a scale and a shift: two "
             "numbers for each of the inner width"),
            (lambda v, d, i, k: size(v, d, i, k) - k * v * i, "one of the two tables is missing: a "
             "head embeds the token that it is given, and scores every token that it could guess"),
            (lambda v, d, i, k: size(v, d, i, k) + (k - 1) * (d * i - i * i), "only the first head "
             "reads Z, which has the base model's width: the others read a state of the inner "
             "width"),
            (lambda v, d, i, k: size(v, d, i, k) + i * i - d * i, "the first head reads Z, which "
             "has the base model's width and not the inner one"),
            (lambda v, d, i, k: size(v, d, i, k) - 2 * (k - 1) * v * i, "the heads share their "
             "tables here: as published, each has its own"),
            (lambda v, d, i, k: size(v, d, i, k) + 2 * k * v * (d - i), "the tables have the inner "
             "width, not the base model's"),
        ],
        "a vocabulary of {}, a width of {}, an inner width of {} and heads: {}",
    )  # fmt: skip


@exercise
def time_per_token(answer: Callable[[float, Sequence[float], int], float]) -> Finding:
    """Check TPOT, from the time of sending, the times of the outputs, and the number of tokens."""

    def right(sent: float, at: Sequence[float], tokens: int) -> float:
        return (at[-1] - at[0]) / (tokens - 1)

    return formula(
        answer,
        [(0.0, [1.0, 1.5, 2.0], 3), (10.0, [10.5, 10.75, 11.5], 7), (2.0, [2.25, 3.25, 3.75], 6)],
        right, "from the first output to the last, over all tokens but the first",
        [
            (lambda sent, at, tokens: (at[-1] - at[0]) / (len(at) - 1), "this is the mean gap "
             "between outputs (ITL): with speculation an output holds several tokens, so divide by "
             "tokens"),
            (lambda sent, at, tokens: (at[-1] - at[0]) / tokens, "the first token came with TTFT: "
             "this time is that of the others, so divide by tokens - 1"),
            (lambda sent, at, tokens: (at[-1] - sent) / tokens, "the time to the first token is in "
             "it: take that off, and the first token with it"),
            (lambda sent, at, tokens: (at[-1] - sent) / (tokens - 1), "the time to the first token "
             "is in it: begin at the first output"),
            (lambda sent, at, tokens: 1 / right(sent, at, tokens), "these are tokens a second: "
             "turn the fraction over"),
        ],
        "a request sent at {}, outputs at {}, {} tokens in all",
    )  # fmt: skip


@exercise
def room_for_drafts(answer: Callable[[float, int], float]) -> Finding:
    """Check for how many users a pass checks tokens and drafts free, from ridge and nodes."""
    return formula(
        answer, [(24, 3), (150, 4), (16, 7)], lambda free, nodes: free / (1 + nodes),
        "each user brings one token and the drafts",
        [
            (lambda free, nodes: free / nodes, "each user's own last token is processed too, "
             "with the drafts"),
            (lambda free, nodes: free - nodes, "every user has drafts of his own: divide"),
            (lambda free, nodes: free / (nodes + 2), "each user has one token and the drafts, "
             "nothing else"),
            (lambda free, nodes: free * (1 + nodes), "more drafts leave room for fewer users"),
            (lambda free, nodes: free, "this leaves the drafts out: each user brings 1 + nodes"),
        ],
        "a ridge of {} and {} drafts a user",
    )  # fmt: skip
