"""Each exercise's check takes the right answer, and names each common mistake."""

from __future__ import annotations

import numpy as np
import pytest

from labkit.checks import measures as checks


def size(v, d, i, k):
    """A published speculator's weights, head by head."""
    total = 0
    for head in range(k):
        total += v * i + (d if head == 0 else i) * i + 2 * i + i * v
    return total


def tpot(sent, arrivals, tokens):
    return (arrivals[-1] - arrivals[0]) / (tokens - 1)


RIGHT = {
    "decoding_limit": lambda w, b, speed: speed / (w * b),
    "ridge": lambda b, bandwidth, speed: b / bandwidth * speed / 2,
    "published_size": size,
    "time_per_token": tpot,
    "room_for_drafts": lambda free, nodes: free // (1 + nodes),
}

WRONG = [
    ("decoding_limit", lambda w, b, speed: w * b / speed, "turn the fraction over"),
    ("decoding_limit", lambda w, b, speed: speed / w, "counted as one byte"),
    ("decoding_limit", lambda w, b, speed: speed / (2 * w * b), "belongs to arithmetic"),
    ("decoding_limit", lambda w, b, speed: 8 * speed / (w * b), "there is no 8"),
    ("decoding_limit", lambda w, b, speed: speed / w * b, "below the line"),
    ("decoding_limit", lambda w, b, speed: 1.0, "the answer is 100"),
    ("decoding_limit", lambda w, b, speed: ..., "returns nothing"),
    ("decoding_limit", lambda w, b, speed: "fast", "it gives a str"),
    ("decoding_limit", lambda w, b, speed: [w, b], "one number is needed"),
    ("ridge", lambda b, bandwidth, speed: b * speed / bandwidth, "two operations a token"),
    ("ridge", lambda b, bandwidth, speed: 2 * b * speed / bandwidth, "2 belongs below"),
    ("ridge", lambda b, bandwidth, speed: 2 * bandwidth / (b * speed), "turned over"),
    ("ridge", lambda b, bandwidth, speed: speed / (2 * bandwidth), "bytes a weight are missing"),
    ("ridge", lambda b, bandwidth, speed: speed / (2 * bandwidth * b), "above the line"),
    ("ridge", lambda b, bandwidth, speed: 7, "the answer is 10"),
    ("published_size", lambda v, d, i, k: size(v, d, i, k) - 2 * k * i, "norms are missing"),
    ("published_size", lambda v, d, i, k: size(v, d, i, k) - k * i, "a scale and a shift"),
    ("published_size", lambda v, d, i, k: size(v, d, i, k) - k * v * i, "two tables is missing"),
    ("published_size", lambda v, d, i, k: k * (2 * v * i + d * i + 2 * i), "only the first head"),
    ("published_size", lambda v, d, i, k: k * (2 * v * i + i * i + 2 * i), "first head reads Z"),
    ("published_size", lambda v, d, i, k: size(v, d, i, k) - 2 * (k - 1) * v * i, "share their"),
    ("published_size", lambda v, d, i, k: size(v, d, i, k) + 2 * k * v * (d - i), "inner width"),
    ("published_size", lambda v, d, i, k: v, "the answer is"),
    ("time_per_token", lambda s, at, n: np.diff(at).mean(), "mean gap between outputs"),
    ("time_per_token", lambda s, at, n: (at[-1] - at[0]) / n, "divide by tokens - 1"),
    ("time_per_token", lambda s, at, n: (at[-1] - s) / n, "take that off"),
    ("time_per_token", lambda s, at, n: (at[-1] - s) / (n - 1), "begin at the first output"),
    ("time_per_token", lambda s, at, n: 1 / tpot(s, at, n), "tokens a second"),
    ("time_per_token", lambda s, at, n: 0, "the answer is 0.5"),
    ("room_for_drafts", lambda free, nodes: free / nodes, "with the drafts"),
    ("room_for_drafts", lambda free, nodes: free - nodes, "divide"),
    ("room_for_drafts", lambda free, nodes: free / (nodes + 2), "nothing else"),
    ("room_for_drafts", lambda free, nodes: free * (1 + nodes), "fewer users"),
    ("room_for_drafts", lambda free, nodes: free, "leaves the drafts out"),
    ("room_for_drafts", lambda free, nodes: 3, "the answer is 6"),
]  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_the_right_answer_is_right(name):
    finding = getattr(checks, name)(RIGHT[name])
    assert finding.right, finding


@pytest.mark.parametrize(("name", "answer", "says"), WRONG)
def test_each_common_mistake_is_named(name, answer, says):
    finding = getattr(checks, name)(answer)
    assert not finding.right
    assert says in finding.text, finding


def test_a_case_is_told_in_words_and_in_numbers_as_one_writes_them():
    right = RIGHT["decoding_limit"]
    finding = checks.decoding_limit(lambda w, b, speed: right(w, b, speed) if w < 1e9 else 1.0)
    case = "for 7e9 weights of 2 bytes at 2e12 bytes a second it gives 1, and the answer is 142.9."
    assert finding.text == case
    finding = checks.time_per_token(lambda sent, arrivals, tokens: 0)
    assert "for a request sent at 0, outputs at 1, 1.5 and 2, 3 tokens in all" in finding.text


def test_two_sizes_that_agree_to_four_digits_are_not_told_as_the_same():
    finding = checks.published_size(lambda v, d, i, k: size(v, d, i, k) + 1)
    assert "gives 132225, and the answer is 132224" in finding.text
