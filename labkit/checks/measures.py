"""Checks of the exercises that measure: costs of decoding, training, samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from labkit.checks import Finding, answers
from labkit.checks.answers import Answer, Floats, exercise, formula, listed, refuse, verdict


@exercise
def decoding_limit(answer: Answer) -> Finding:
    """Check tokens a second at most, from weights, bytes a weight and bytes a second."""
    cases = [(1e8, 4, 4e10), (7e9, 2, 2e12), (3e9, 1, 6e10)]
    n, b, speed = np.array(cases).T
    return formula(
        answer, cases, speed / (n * b),
        "bandwidth over the bytes of all weights; the speed of arithmetic is not in it",
        "{} weights of {} bytes at {} bytes a second",
        (n * b / speed, "these are the seconds that a token takes: turn the fraction over"),
        (speed / n, "a weight is counted as one byte: multiply by the bytes that it has"),
        (speed / (2 * n * b), "the 2 belongs to arithmetic, two operations a weight: each weight "
         "is read once"),
        (8 * speed / (n * b), "everything is in bytes already: there is no 8"),
        (speed * b / n, "more bytes a weight make it slower: they belong below the line"),
    )  # fmt: skip


@exercise
def ridge(answer: Answer) -> Finding:
    """Check the tokens at which arithmetic takes as long as reading, from bytes a weight, bytes and
    operations a second; a weight takes two operations a token."""
    cases = [(4, 4e10, 2e11), (2, 2e12, 3e14), (0.5, 1e11, 4e11)]
    b, read, speed = np.array(cases).T
    return formula(
        answer, cases, b * speed / (2 * read),
        "reading a weight takes bytes / bandwidth, using it 2 / speed for each token; how many "
        "weights there are cancels",
        "{} bytes a weight, {} bytes and {} operations a second",
        (b * speed / read, "a weight costs two operations a token, a multiplication and an "
         "addition"),
        (2 * b * speed / read, "two operations a token make arithmetic slower, so the 2 belongs "
         "below the line"),
        (2 * read / (b * speed), "this is the fraction turned over: faster arithmetic must give "
         "more free tokens"),
        (speed / (2 * read), "the bytes a weight are missing: the longer it takes to read one, the "
         "more is free"),
        (speed / (2 * read * b), "the more bytes a weight has, the longer reading takes and the "
         "more is free: they belong above the line"),
    )  # fmt: skip


@exercise
def published_size(answer: Answer) -> Finding:
    """Check the number of weights of a published speculator, with tables of its own.

    ``answer(vocabulary, width, inner, heads)``; each head has an embedding, a projection, a norm
    of a scale and a shift, and a table of logits.
    """
    cases = [(1000, 64, 64, 1), (1000, 64, 128, 3), (500, 96, 32, 4)]
    v, d, i, k = np.array(cases).T
    size = 2 * k * v * i + d * i + (k - 1) * i * i + 2 * k * i
    return formula(
        answer, cases, size,
        "nearly all of it is tables: two for each head, as long as the vocabulary",
        "a vocabulary of {}, a width of {}, an inner width of {} and heads: {}",
        (size - 2 * k * i, "the norms are missing: a scale and a shift of the inner width for each "
         "head"),
        (size - k * i, "a norm has a scale and a shift: two numbers for each of the inner width"),
        (size - k * v * i, "one of the two tables is missing: a head embeds the token that it is "
         "given, and scores every token that it could guess"),
        (size + (k - 1) * (d * i - i * i), "only the first head reads Z, which has the base "
         "model's width: the others read a state of the inner width"),
        (size + i * i - d * i, "the first head reads Z, which has the base model's width and not "
         "the inner one"),
        (size - 2 * (k - 1) * v * i, "the heads share their tables here: as published, each has "
         "its own"),
        (size + 2 * k * v * (d - i), "the tables have the inner width, not the base model's"),
    )  # fmt: skip


@exercise
def time_per_token(answer: Answer) -> Finding:
    """Check TPOT, from the time of sending, the times of the outputs, and the number of tokens."""
    cases = [
        (0.0, [1.0, 1.5, 2.0], 3),
        (10.0, [10.5, 10.75, 11.5], 7),
        (2.0, [2.25, 3.25, 3.75], 6),
    ]
    sent, at, tokens = map(np.array, zip(*cases, strict=True))
    first, last, outputs = at[:, 0], at[:, -1], at.shape[1]
    right = (last - first) / (tokens - 1)
    return formula(
        answer, cases, right, "from the first output to the last, over all tokens but the first",
        "a request sent at {}, outputs at {}, {} tokens in all",
        ((last - first) / (outputs - 1), "this is the mean gap between outputs (ITL): with "
         "speculation an output holds several tokens, so divide by tokens"),
        ((last - first) / tokens, "the first token came with TTFT: this time is that of the "
         "others, so divide by tokens - 1"),
        ((last - sent) / tokens, "the time to the first token is in it: take that off, and the "
         "first token with it"),
        ((last - sent) / (tokens - 1), "the time to the first token is in it: begin at the first "
         "output"),
        (1 / right, "these are tokens a second: turn the fraction over"),
    )  # fmt: skip


@exercise
def room_for_drafts(answer: Answer) -> Finding:
    """Check for how many users a pass checks tokens and drafts free, from ridge and nodes."""
    cases = [(24, 3), (150, 4), (16, 7)]
    free, nodes = np.array(cases).T
    return formula(
        answer, cases, free / (1 + nodes), "each user brings one token and the drafts",
        "a ridge of {} and {} drafts a user",
        (free / nodes, "each user's own last token is processed too, with the drafts"),
        (free - nodes, "every user has drafts of his own: divide"),
        (free / (nodes + 2), "each user has one token and the drafts, nothing else"),
        (free * (1 + nodes), "more drafts leave room for fewer users"),
        (free, "this leaves the drafts out: each user brings 1 + nodes"),
    )  # fmt: skip


@exercise
def head_targets(targets: Answer) -> Finding:
    """Check head i's targets in a text's tokens: at place t the token at t + 1 + i, where it is."""
    heads, text = (1, 3), list(range(11, 21))
    found = [targets(text, head) for head in heads]
    for head, answer in zip(heads, found, strict=True):
        gaps = isinstance(answer, (list, tuple)) and None in answer
        refuse((gaps, f"head {head} gets None where there is no target: leave these places out, so "
                "that the list ends with the last token"))  # fmt: skip
    found = [answers.tokens(answer) for answer in found]

    def both(of: Callable[[int], list[int]]) -> list[list[int]]:
        return list(map(of, heads))

    return verdict(
        found, both(lambda i: text[1 + i :]),
        "head i at place t predicts the token at t + 1 + i, if there is one",
        (both(lambda i: text[i:]), "every target is one place too early: the base model's own head "
         "already gives the token at t + 1, so head 1 should give the one at t + 2"),
        (both(lambda i: text[2 + i :]), "every target is one place too far: head 1 at place t "
         "predicts the token at t + 2"),
        (both(lambda i: text[1 + i : len(text) - 3 + i]), "all heads get as many places as the "
         "last one: a nearer head has more places with a target"),
        (both(lambda i: text[2:]), "all heads get the same targets: head i predicts i places "
         "beyond the base model's own next token"),
        (both(lambda i: text[:-1 - i]), "these are the tokens at the places themselves; their "
         "targets are 1 + i places on"),
        otherwise=f"of {text} head 1 gets {found[0]}, and should get {text[2:]}: the token at "
                  "t + 1 + i for each place t that has one",
    )  # fmt: skip


@exercise
def learning_rate(rate: Answer) -> Finding:
    """Check a rate from step (from 0), steps, peak, warm-up's share, last rate's share: a straight
    line from 0 up to the peak, then half a cosine down to the last share of it."""
    steps, peak, warm, last = 200, 2.0, 0.1, 0.25
    places = [0, 9, 19, 20, 65, 110, 155, 199]
    found = np.array([answers.number(rate(step, steps, peak, warm, last)) for step in places])

    def cosine(done: Floats) -> Floats:
        return (1 + np.cos(np.pi * done)) / 2

    def course(floor: float = last, start: float = warm, fall: Answer = cosine) -> Floats:
        """Return the schedule with its end, its warm-up or its fall from 1 to 0 changed."""
        step, warmup = np.array(places), round(start * steps)
        height = floor + (1 - floor) * fall((step - warmup) / (steps - warmup))
        return peak * np.where(step < warmup, (step + 1) / max(warmup, 1), height)

    right, cold = course(), course(start=0)
    whole_course = cold * np.minimum(1, (np.array(places) + 1) / (warm * steps))
    off = int(np.abs(found - right).argmax())
    return verdict(
        found, right, "up in a straight line, down by half a cosine to a share of the peak",
        (course(floor=0), "it falls to 0: it should end at a share of the peak"),
        (cold, "it starts at the peak: warm up first, in a straight line from 0, over the share "
         "`warmup` of all steps"),
        (course(fall=lambda done: 1 - done), "it falls in a straight line: take half a cosine"),
        (course(fall=lambda done: 1 - cosine(done)), "the cosine is upside down: after the warm-up "
         "it is at the peak, at the end at its least"),
        (course(fall=lambda done: 2 * cosine(done)), "the half is forgotten: 1 + cos is 2 where "
         "the cosine begins, so the rate jumps above the peak; divide it by 2"),
        *((np.append(first, cold[1:]), "`warmup` is taken as a number of steps, so that it ends "
           "with the first: it is a share, so multiply it by the number of steps")
          for first in (0, peak / warm)),
        (course(floor=last / peak), "`last` is taken as a rate: it is a share, so multiply it by "
         "the peak"),
        (whole_course, "the cosine runs from step 0: it begins where the warm-up ends"),
        (right / peak, "the peak is left out: this is a share of it"),
        otherwise=f"with {steps} steps, peak {peak:g}, a tenth of warm-up and a quarter at the "
                  f"end, step {places[off]} has {found[off]:.4g}, and should have {right[off]:.4g}",
        tolerance=0.06 * peak,  # a warm-up may begin at 0 or a little above
    )  # fmt: skip


@exercise
def soft_labels(loss: Answer) -> Iterator[Finding]:
    """Check the cross-entropy -sum p log q in nats, from the base's p (V,) and a head's logits
    (V,), whose softmax is q."""
    p, logits = np.array([0.5, 0.3, 0.15, 0.05]), np.array([1.2, 0.4, -0.3, 0.9])
    found, logs = answers.number(loss(p, logits)), logits - np.log(np.exp(logits).sum())
    q, right = np.exp(logs), float(-(p * logs).sum())
    good = "the base model's probabilities weigh the head's surprise at each token"
    yield verdict(
        found, right, good,
        (-right, "the sign is missing: a loss falls as the head gets better"),
        (right / len(p), "this is the mean over the vocabulary: sum over it, since p is already "
         "weights that sum to 1"),
        (-logs[p.argmax()], "this is the hard label: it uses the base model's most probable token "
         "alone"),
        (-(q * np.log(p)).sum(), "p and q are exchanged: the base model's p weighs, the logarithm "
         "is the head's"),
        ((p * (np.log(p) - logs)).sum(), "this is the divergence from p to q, the cross-entropy "
         "less p's own entropy: it has the same gradient, but the loss should be comparable with "
         "that against a token"),
        (-(p * logits).sum(), "logits are no logarithms of probabilities yet: subtract the "
         "logarithm of the sum of their exponentials"),
        (-(p * q).sum(), "the logarithm is forgotten: p weighs the logarithms of q, not q itself"),
        (right / math.log(2), "this is in bits: take the natural logarithm"),
        tolerance=1e-6,
    )  # fmt: skip
    far = float(loss(p, logits + 800.0))
    yield verdict(
        far, right, good,
        otherwise="right for small logits, but with 800 added to all of them, which changes no "
                  f"probability, it gives {far:.4g}: subtract the greatest logit first",
        tolerance=1e-6,
    )  # fmt: skip


RIGHT = np.array(
    [[0, 1], [0, 1], [0, 1], [1, 1], [1, 1], [1, 1], [1, 0], [1, 1], [0, 0], [0, 0]], bool
)
"""Whether each of two heads guessed right at each of ten places of an answer."""


@exercise
def chain_steps(count: Answer) -> Finding:
    """Check the tokens per step of a chain of drafts, from right guesses (N, K): a step at place n
    commits one token and the leading run of right guesses, and the next step is as many places on;
    a guess after a wrong one does not count."""
    found, leading = answers.number(count(RIGHT)), RIGHT.cumprod(axis=1).sum(axis=1)
    right = _walk(leading)
    return verdict(
        found, right, "each step jumps as far as it commits, so good places are met less often",
        (_walk(RIGHT.sum(axis=1)), "a guess after a wrong one is counted: only the leading run of "
         "right guesses is accepted"),
        (1 + leading.mean(), "every place is counted as if a step began there: a step that accepts "
         "two drafts jumps over the two places after it"),
        (1 + RIGHT.sum(axis=1).mean(), "every place is counted as if a step began there, and a "
         "guess after a wrong one as well"),
        (right - 1, "the base model's own token is left out: every step commits one"),
        (leading.mean(), "the base model's own token is left out, and every place is counted as if "
         "a step began there"),
        tolerance=1e-6,
    )  # fmt: skip


def _walk(accepted: NDArray[np.int64]) -> float:
    """Return tokens per step if a step at place n commits 1 + accepted[n], within the answer."""
    place = steps = 0
    while place < len(accepted):
        place += 1 + int(accepted[place])
        steps += 1
    return place / steps


@exercise
def model_weights(weigh: Answer) -> Iterator[Finding]:
    """Check weights p^(1/T), renormalised, (R,), from log-probabilities (R,) and a temperature T:
    computed with logarithms, since probabilities of texts underflow."""
    logs, temperature = np.array([-1.2, -0.7, -3.0]), 2.0
    found = answers.numbers(weigh(logs, temperature), logs.shape, "a weight for each text")

    def softmax(logs: Floats) -> Floats:
        weights = np.exp(logs - logs.max())
        return weights / weights.sum()

    right = softmax(logs / temperature)
    yield verdict(
        found, right, "",
        (np.exp(logs / temperature), "the weights do not sum to 1: divide by their sum"),
        (softmax(logs), "the temperature has no effect: divide the logarithms by it"),
        (softmax(logs * temperature), "the temperature is upside down: a higher one makes the "
         "weights more equal, so divide by it"),
        (logs / logs.sum(), "these are the logarithms over their sum: the least probable text "
         "weighs the most; take exponentials first"),
        (np.exp((logs - logs.max()) / temperature), "the greatest weight is 1 here, so the weights "
         "do not sum to 1: divide by their sum after subtracting the greatest logarithm"),
        (softmax(logs) ** (1 / temperature), "the temperature comes after the weights were "
         "normalised, so they no longer sum to 1: divide the logarithms by it first"),
        (softmax(logs) / temperature, "the weights are divided by the temperature: divide the "
         "logarithms by it, before the exponentials"),
        (softmax(-logs / temperature), "the sign is turned: the least probable text weighs the "
         "most"),
        (np.full(len(logs), 1 / len(logs)), "all weigh the same: that is the weighting called "
         "unique"),
    )  # fmt: skip
    with np.errstate(all="ignore"):
        far = np.asarray(weigh(logs - 2000, temperature), np.float64)  # as of long texts
    yield verdict(
        far, right, "renormalised in logarithms, so long texts can be weighted too",
        otherwise="right for short texts, but with log-probabilities near -2,000, as long texts "
                  f"have, it gives {listed(far, 3)}: exponentials of such numbers are 0, so "
                  "subtract the greatest one first",
    )  # fmt: skip


@exercise
def paired_gains(gains: Answer) -> Finding:
    """Check a's gains over b (B,) from scores a, b (n,) and drawn numbers (B, n): in each resampled
    test set the mean of a less the mean of b, on the same sentences."""
    a, b = np.array([0.9, 0.2, 0.7, 0.4]), np.array([0.5, 0.1, 0.9, 0.4])
    picks = np.array([[0, 0, 1, 3], [2, 2, 2, 1], [3, 1, 0, 2]])
    found, each = answers.numbers(gains(a, b, picks)), (a - b)[picks]
    right, all_ = each.mean(axis=1), a.mean() - b.mean()
    return verdict(
        found, right, "the same sentences for both, so what is hard for both cancels",
        (-right, "the sign is turned: a's mean less b's"),
        (right * a.size, "these are sums: take the mean of each test set"),
        *((gain, f"only {name} is resampled: draw both on the same sentences, or the sentences' "
           "own difficulty does not cancel")
          for name, gain in (("a", a[picks].mean(axis=1) - b.mean()),
                             ("b", a.mean() - b[picks].mean(axis=1)))),
        (np.full(len(picks), all_), "this is the gain on the whole test set every time: use the "
         "drawn numbers"),
        (each.mean(), "this is one mean over all the drawn test sets: give one for each, the mean "
         "of its row"),
        (all_, "this is one gain: give one for each drawn test set"),
        (each.mean(axis=0), "the mean is over the drawn test sets: each of their rows is a test "
         "set, so average within the row"),
        ((a > b)[picks].mean(axis=1), "these are shares of sentences on which a wins: a gain says "
         "by how much, so average the differences"),
        (right > 0, "these say only whether a wins a test set: give by how much"),
        ((right > 0).mean(), "this is the share of test sets that a wins: give the gain on each of "
         "them"),
        (each, "these are the differences sentence by sentence: average each row"),
    )  # fmt: skip
