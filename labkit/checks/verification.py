"""Checks of the exercises on accepting and rejecting drafts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labkit.checks import NOT_WRITTEN, Finding
from labkit.checks.answers import (
    Floats,
    NotUsable,
    exercise,
    looks_like,
    number,
    numbers,
    parts,
    tokens,
    whole,
)

Rule = Callable[[int, NDArray[np.float64], np.random.Generator], int]
"""From a draft that its drafter was certain of, and p (V,), to the token that is written."""

P = np.array([0.4, 0.3, 0.2, 0.1])
DRAFT = 1
DRAWS = 4000


@exercise
def certain_drafter(rule: Rule) -> Finding:
    """Check a rule for a drafter that is certain (q is 1 on its draft, 0 elsewhere), by its output.

    The right rule keeps the draft x with probability p(x), and else draws from p without x, so
    that what comes out is distributed as p.
    """
    generator = np.random.default_rng(0)
    first = rule(DRAFT, P, generator)
    if first is None or isinstance(first, EllipsisType):
        return NOT_WRITTEN
    written = [rule(DRAFT, P, generator) for _ in range(DRAWS)]
    strange = next((token for token in written if token not in range(len(P))), None)
    if strange is not None:
        return Finding(False, f"it wrote {strange!r}, which is not one of the {len(P)} tokens.")
    share = np.bincount(np.array(written, int), minlength=len(P)) / DRAWS
    name = min(LOOKS, key=lambda name: float(np.abs(LOOKS[name] - share).sum()))
    if np.abs(LOOKS[name] - share).sum() > TOLERANCE:
        return Finding(
            False,
            f"out comes {_listed(share)}, where p is {_listed(P)}: with probability p(x) keep x, "
            "else draw from p without x.",
        )
    return Finding(name == "p", SAYS[name])


def _without(p: NDArray[np.float64], token: int) -> NDArray[np.float64]:
    left = p.copy()
    left[token] = 0
    return left / left.sum()


def _listed(shares: NDArray[np.float64]) -> str:
    return ", ".join(f"{share:.2f}" for share in shares)


TOLERANCE = 0.06
"""Sum of differences that 4,000 draws stay under, but for one time in 10,000 or so."""

ONE = np.eye(len(P))[DRAFT]
LOOKS = {
    "p": P,
    "always": ONE,
    "never": _without(P, DRAFT),
    "from p": P[DRAFT] * ONE + (1 - P[DRAFT]) * P,
    "turned": (1 - P[DRAFT]) * ONE + P[DRAFT] * _without(P, DRAFT),
    "last": P[DRAFT] * ONE
    + (1 - P[DRAFT]) * np.append(_without(P, DRAFT)[:-1] * (1 - P[DRAFT]), 0)
    + (1 - P[DRAFT]) * np.eye(len(P))[-1] * (1 - (_without(P, DRAFT)[:-1] * (1 - P[DRAFT])).sum()),
}
"""What comes out of the right rule, and of the common mistakes."""

SAYS = {
    "p": "what comes out is distributed as p, though the drafter always proposes the same token.",
    "always": "the draft is always kept, so the drafter decides alone: keep it with probability "
    "p(x).",
    "never": "the draft never comes out at all, which p gives a share to: keep it with probability "
    "p(x).",
    "from p": "the draft comes out too often, because a rejected draft gets a second chance in the "
    "replacement: draw that from p without x.",
    "turned": "the draft is kept when it should be rejected and the other way round: keep it if "
    "the number drawn is below p(x).",
    "last": "the last token comes out too often, because what is left of p is not divided by its "
    "sum before it is drawn from.",
}


@exercise
def expected_tokens(formula: Callable[[float, int], float]) -> Finding:
    """Check a formula for the expected tokens of a step: acceptance a, a chain of k drafts.

    1 + a + a^2 + ... + a^k, as Leviathan et al. (2023) have it in their equation 1.
    """
    first = formula(0.5, 2)
    if first is None or isinstance(first, EllipsisType):
        return NOT_WRITTEN
    for a, k in ((0.5, 1), (0.5, 2), (0.8, 4), (0.0, 3), (1.0, 4)):
        try:
            value = float(formula(a, k))
        except ZeroDivisionError:
            return Finding(
                False,
                f"it divides by zero at a = {a:g}, where every draft is accepted and a step "
                f"gives {k + 1} tokens: sum the {k + 1} terms, or treat a = 1 by itself.",
            )
        right = sum(a**i for i in range(k + 1))
        if abs(value - right) < 1e-9:
            continue
        for seen, says in (
            (right - 1, "this counts accepted drafts alone: the base model adds one token of its "
             "own to every step"),
            (1 + a * k, "this adds a for each draft, but the second counts only if the first was "
             "accepted, with probability a times a"),
            (1 + a**k, "this counts only steps in which all drafts are accepted: a step in which "
             "two of them are still gives those two"),
            (right - a**k, "this stops a term early: after k accepted drafts the base model adds "
             "its bonus"),
        ):  # fmt: skip
            if abs(value - seen) < 1e-9:
                return Finding(False, f"at a = {a:g}, k = {k} {says}.")
        return Finding(
            False, f"at a = {a:g}, k = {k} it gives {value:.4g}, and the answer is {right:.4g}."
        )
    return Finding(True, "1 + a + a² + … + aᵏ, the bonus included.")


Step = Callable[[list[int], Floats], Sequence[int]]
"""From a chain of drafts (K,) and logits (K + 1, V) to the tokens that the step commits."""


@exercise
def greedy_chain(step: Step, seed: int = 0, drafted: int = 4, vocabulary: int = 9) -> Finding:
    """Check greedy verification of a chain: ``step`` from drafts and logits to committed tokens.

    Row 0 of the logits stands after the last committed token, row i after draft i. Drafts are kept
    as long as each is the most probable token of the row before it; then one token of the base
    model's own follows: the replacement of the first draft that is not, or else the bonus.
    """
    rng = np.random.default_rng(seed)
    cases = [_greedy_case(kept, drafted, vocabulary, rng) for kept in range(drafted + 1)]
    found = [tokens(step(draft, logits)) for draft, logits in cases]
    right = [_committed(draft, logits.argmax(axis=1).tolist()) for draft, logits in cases]
    if found == right:
        return Finding(True, "what is kept, and after it one token of the base model's own.")
    off = next(case for case in range(len(cases)) if found[case] != right[case])
    asked = f"for the draft {cases[off][0]}, of which {off} should be kept, it gives {found[off]}"
    says = next(
        (
            says
            for says, wrong in GREEDY_MISTAKES.items()
            if found == [wrong(draft, logits) for draft, logits in cases]
        ),
        f"it should give {right[off]}",
    )
    return Finding(False, f"{asked}: {says}.")


def _choices(logits: Floats) -> list[int]:
    return logits.argmax(axis=1).tolist()


def _kept(draft: Sequence[int], logits: Floats) -> int:
    return len(_committed(draft, _choices(logits))) - 1


GREEDY_MISTAKES: dict[str, Callable[[list[int], Floats], list[int]]] = {
    "the tokens kept are right, and the base model's own token after them is missing: each step "
    "ends with one, a replacement or a bonus": lambda draft, logits: draft[: _kept(draft, logits)],
    "all that is kept is right, and the bonus after a draft that was kept to its end is missing": (
        lambda draft, logits: _committed(draft, _choices(logits))[: len(draft)]
    ),
    "the draft that was rejected is written: the base model's token takes its place": (
        lambda draft, logits: (
            draft[: _kept(draft, logits) + 1]
            if _kept(draft, logits) < len(draft)
            else _committed(draft, _choices(logits))
        )
    ),
    "drafts after the rejected one are kept: they were drafted for another text, so drop them": (
        lambda draft, logits: [
            *_committed(draft, _choices(logits)),
            *draft[_kept(draft, logits) + 1 :],
        ]
    ),
    "each draft that is the base model's choice is kept, also behind one that is not: end at the "
    "first that is not, with the base model's token in its place": lambda draft, logits: [
        token for token, choice in zip(draft, _choices(logits), strict=False) if token == choice
    ],
    "this is the base model's choice at every place, but after a rejection its choices are for "
    "another text: stop there": lambda draft, logits: _choices(logits),
    "all of the draft is written, whatever the base model thought of it": lambda draft, _: draft,
    "each draft is compared with the row after it: draft i is judged by row i, which saw what "
    "stands before it": lambda draft, logits: _committed(
        draft, [*_choices(logits)[1:], _choices(logits)[-1]]
    ),
    "this takes the largest logit along the wrong axis: a row holds the vocabulary of one place": (
        lambda draft, logits: _committed(draft, logits[:, : len(draft) + 1].argmax(axis=0).tolist())
    ),
}
"""What the common mistakes commit, and what to say of each."""


def _greedy_case(
    kept: int, drafted: int, vocabulary: int, rng: np.random.Generator
) -> tuple[list[int], Floats]:
    """Drafts of which ``kept`` are right; the one after is wrong, and those behind it right again.

    No two neighbouring choices are the same, so that looking one place off is seen.
    """
    while True:
        logits = rng.normal(size=(drafted + 1, vocabulary))
        choices = logits.argmax(axis=1).tolist()
        draft = choices[:drafted]
        if kept < drafted:
            draft[kept] = (choices[kept] + 1 + int(rng.integers(vocabulary - 1))) % vocabulary
        off = _committed(draft, [*choices[1:], choices[-1]])
        across = _committed(draft, logits[:, : drafted + 1].argmax(axis=0).tolist())
        right = _committed(draft, choices)
        if len({tuple(off), tuple(right)}) == 2 and across != right:
            return draft, logits


def _committed(draft: Sequence[int], choices: Sequence[int]) -> list[int]:
    """What greedy verification commits where the base model's choices are ``choices``."""
    kept = 0
    while kept < len(draft) and draft[kept] == choices[kept]:
        kept += 1
    return [*draft[:kept], choices[kept]]


@exercise
def keeping(
    keep: Callable[[int, Floats, Floats], float], seed: int = 0, vocabulary: int = 5
) -> Finding:
    """Check the probability of keeping a draft x, from x, p and q (V,): min(1, p(x) / q(x))."""
    rng = np.random.default_rng(seed)
    p, q = _pair(rng, vocabulary)
    found = np.array([number(keep(x, p, q)) for x in range(vocabulary)])
    right = np.minimum(1, p / q)
    off = int(np.abs(found - right).argmax())
    if abs(found[off] - right[off]) < 1e-9:
        return Finding(True, "min(1, p(x) / q(x)).")
    says = looks_like(
        found,
        {
            "p and q are swapped: what the drafter proposes too often (q > p) is to be thinned "
            "out, so p is above": np.minimum(1, q / p),
            "p and q are swapped, and a probability is at most 1": q / p,
            "a probability is at most 1: cap the ratio": p / q,
            "this is the share of all cases in which x is drafted and kept; once it is drafted, "
            "divide by q(x)": np.minimum(p, q),
            "this is p(x) alone, which is the rule for a drafter that is certain": p,
            "this is the probability of rejecting it": 1 - right,
            "this keeps every draft": np.ones(vocabulary),
        },
    )
    at = f"at p(x) = {p[off]:.3f} and q(x) = {q[off]:.3f} it gives {found[off]:.3f}"
    return Finding(False, f"{at}: {says or f'it should give {right[off]:.3f}'}.")


@exercise
def owed(rest: Callable[[Floats, Floats], Any], seed: int = 0, vocabulary: int = 5) -> Finding:
    """Check the residual, from p and q (V,): what replacements are drawn from, (V,).

    norm(max(0, p - q)), and p itself where p equals q, since nothing is owed then.
    """
    rng = np.random.default_rng(seed)
    for _ in range(3):
        p, q = _pair(rng, vocabulary)
        found = numbers(rest(p, q), (vocabulary,), "a number for each token")
        left = np.maximum(p - q, 0)
        if np.abs(found - left / left.sum()).max() < 1e-9:
            continue
        back = np.maximum(q - p, 0)
        away = np.abs(p - q)
        says = looks_like(
            found,
            {
                "it is not divided by its sum, so it is no distribution": left,
                "p and q are swapped: owed is what the drafter proposes too seldom, p - q": back
                / back.sum(),
                "p and q are swapped, and it is not divided by its sum": back,
                "the tokens that were proposed too often are in it as well: take max(0, p - q), "
                "not the absolute difference": away / away.sum(),
                "negative numbers are left in it: what is proposed too often is owed nothing": p
                - q,
                "this is p itself: a draft that was rejected because it comes too often would come "
                "straight back": p,
                "this is what drafts and output have in common, not what is still missing": (
                    np.minimum(p, q) / np.minimum(p, q).sum()
                ),
                "a softmax makes something of every token: tokens that are owed nothing must get "
                "nothing, so divide by the sum instead": np.exp(p - q) / np.exp(p - q).sum(),
            },
            tolerance=1e-7,
        )
        asked = f"for p = {_listed(p)} and q = {_listed(q)} it gives {_listed(found)}"
        return Finding(False, f"{says or f'{asked} and not {_listed(left / left.sum())}'}.")
    with np.errstate(invalid="ignore", divide="ignore"):
        same = rest(p, p)
    try:
        found = numbers(same, (vocabulary,))
    except NotUsable:
        return Finding(
            False,
            "where q equals p nothing is owed, and it divides 0 by 0: give p "
            "there, which is as good as any since nothing is ever rejected.",
        )
    if abs(found.sum() - 1) > 1e-9:
        return Finding(False, f"where q equals p it sums to {found.sum():.3g}: give p there.")
    return Finding(True, "max(0, p - q), divided by its sum.")


@exercise
def lossless(
    rule: Callable[[int, Floats, Floats, np.random.Generator], int],
    seed: int = 0,
    vocabulary: int = 5,
    draws: int = 4000,
) -> Finding:
    """Check a rule, from x, p, q and a generator to a token, by what comes out of many drafts.

    The drafts x are drawn from q. What comes out has to be distributed as p, and a draft has to be
    kept as often as it can: in the share sum(min(p, q)) of the cases.
    """
    rng = np.random.default_rng(seed)
    p, q = _apart(rng, vocabulary)
    drafts = rng.choice(vocabulary, size=draws, p=q)
    out = [whole(rule(int(x), p, q, rng)) for x in drafts]
    strange = next((token for token in out if not 0 <= token < vocabulary), None)
    if strange is not None:
        return Finding(False, f"it wrote {strange}, which is none of the {vocabulary} tokens.")
    seen = np.zeros((vocabulary, vocabulary))  # (drafts, tokens)
    np.add.at(seen, (drafts, np.array(out)), 1 / draws)
    if np.abs(seen.sum(axis=0) - p).sum() <= TOLERANCE:
        kept, most = float(np.trace(seen)), float(np.minimum(p, q).sum())
        if kept > most - TOLERANCE:
            return Finding(True, "what comes out is distributed as p; no rule keeps more drafts.")
        return Finding(
            False,
            f"what comes out is distributed as p, but the draft stands in only {kept:.0%} of the "
            f"cases where {most:.0%} are possible: keep it with probability min(1, p(x) / q(x)) "
            "instead of drawing anew.",
        )
    laws = _laws(p, q)
    name = min(laws, key=lambda name: float(np.abs(laws[name] - seen).sum()))
    if np.abs(laws[name] - seen).sum() <= JOINT_TOLERANCE:
        return Finding(False, f"{name}.")
    return Finding(
        False,
        f"out comes {_listed(seen.sum(axis=0))}, where p is {_listed(p)}: keep x with probability "
        "min(1, p(x) / q(x)), else draw from the residual.",
    )


def _laws(p: Floats, q: Floats) -> dict[str, Floats]:
    """How often each draft and each token come together, (V, V), under the common mistakes."""
    keep, turned = np.minimum(1, p / q), np.minimum(1, q / p)
    left, right_back = np.maximum(p - q, 0), np.maximum(q - p, 0)
    rest, back = left / left.sum(), right_back / right_back.sum()
    last = np.eye(len(p))[-1]

    def law(kept: Floats, instead: Floats) -> Floats:
        return np.diag(q * kept) + (q * (1 - kept))[:, None] * instead

    return {
        "the draft is always kept, so the drafter decides alone": law(np.ones_like(q), p),
        "the draft is never kept: every token comes from the residual": law(0 * q, rest),
        "a rejected draft is replaced by a draw from p itself: draw from the residual, or what was "
        "rejected for coming too often comes straight back": law(keep, p),
        "p and q are swapped in the test: a draft that comes too often is always kept, one that "
        "comes too seldom thinned out": law(turned, rest),
        "p and q are swapped, in the test and in the residual": law(turned, back),
        "p and q are swapped in the residual: owed is p - q, where that is positive": law(
            keep, back
        ),
        "the draft is kept when it should be rejected and the other way round: keep it if the "
        "number drawn is below the probability of keeping it": law(1 - keep, rest),
        "the last token comes out too often: the residual is not divided by its sum before it is "
        "drawn from": law(keep, left + (1 - left.sum()) * last),
        "the replacement is always the token that is owed most: draw it from the residual": law(
            keep, np.eye(len(p))[int(rest.argmax())]
        ),
        "the number that decided the test is used again to draw the replacement; it is known to be "
        "large by then, so draw a new one": _one_number(q, keep, rest),
    }


def _one_number(q: Floats, keep: Floats, rest: Floats) -> Floats:
    """The law (V, V) where one number on 0..1 decides the test and then picks the replacement."""
    edges = np.append(0, np.cumsum(rest))
    low = np.maximum(edges[:-1][None, :], keep[:, None])
    picked = np.maximum(edges[1:][None, :] - low, 0)  # (drafts, tokens)
    return np.diag(q * keep) + q[:, None] * picked


@exercise
def sampled_chain(
    step: Callable[[list[int], Floats, Floats, np.random.Generator], Sequence[int]],
    seed: int = 0,
    vocabulary: int = 3,
    draws: int = 4000,
) -> Finding:
    """Check lossless verification of a chain of two drafts, by what it commits in many steps.

    ``step`` gets the drafts (K,), p (K + 1, V), q (K, V) and a generator. Row i of p and of q
    stands for the place of draft i; the last row of p for the bonus.
    """
    rng = np.random.default_rng(seed)
    while True:
        p = rng.dirichlet(np.full(vocabulary, 2.0), size=3)
        q = rng.dirichlet(np.full(vocabulary, 2.0), size=2)
        laws = _chain_laws(p, q)
        if _least_distance([law for law, _ in laws.values()]) > 2 * CHAIN_TOLERANCE:
            break
    counts: dict[tuple[int, ...], float] = {}
    for draft in np.stack([rng.choice(vocabulary, size=draws, p=row) for row in q], 1).tolist():
        out = tuple(tokens(step(draft, p, q, rng)))
        counts[out] = counts.get(out, 0) + 1 / draws
    name = min(laws, key=lambda name: _distance(laws[name][0], counts))
    law, says = laws[name]
    if _distance(law, counts) > CHAIN_TOLERANCE:
        sizes = {len(out) for out in counts}
        if sizes - {1, 2, 3}:
            return Finding(
                False,
                f"a step over two drafts commits 1 to 3 tokens, and this one "
                f"sometimes commits {max(sizes - {1, 2, 3})}.",
            )
        return Finding(
            False,
            "what it commits is distributed neither as it should be nor as a "
            "common mistake would have it: test the drafts in order with row i of "
            "p and q for draft i, end at the first rejection with its replacement, "
            "and after the last draft with a draw from the last row of p.",
        )
    return Finding(
        not says, f"{says}." if says else "each place is distributed as p, to the bonus."
    )


Outcomes = dict[tuple[int, ...], float]


def _chain_law(
    p: Floats, q: Floats, tests: Floats, bonus: Floats | None, ends: bool = True
) -> Outcomes:
    """What a step over two drafts commits, with its probability.

    ``tests`` (2, V) stands in for p at the two tests, ``bonus`` (V,) is drawn from after them. Not
    ``ends``: a rejection writes its replacement and goes on with the next draft.
    """
    law: Outcomes = {}
    heads: Outcomes = {(): 1.0}
    for place in range(2):
        kept = np.minimum(tests[place], q[place])
        left = np.maximum(tests[place] - q[place], 0)
        longer: Outcomes = {}
        for head, chance in heads.items():
            for token in range(p.shape[1]):
                go = chance * float(kept[token])
                stop = chance * float(left[token])
                if ends:
                    law[*head, token] = law.get((*head, token), 0) + stop
                else:
                    go += stop
                longer[*head, token] = longer.get((*head, token), 0) + go
        heads = longer
    for head, chance in heads.items():
        ways = {(): 1.0} if bonus is None else {(t,): float(b) for t, b in enumerate(bonus)}
        for tail, share in ways.items():
            law[*head, *tail] = law.get((*head, *tail), 0) + chance * share
    return law


def _chain_laws(p: Floats, q: Floats) -> dict[str, tuple[Outcomes, str]]:
    rejected: Outcomes = {}
    for out, chance in _chain_law(p, q, p[:2], p[2]).items():
        short = out if len(out) == 3 else out[:-1]
        rejected[short] = rejected.get(short, 0) + chance
    return {
        "right": (_chain_law(p, q, p[:2], p[2]), ""),
        "no bonus": (
            _chain_law(p, q, p[:2], None),
            "after two kept drafts the base model's bonus is missing: it has already said what "
            "comes next, in the last row of p",
        ),
        "bonus of q": (
            _chain_law(p, q, p[:2], q[1]),
            "the bonus is drawn from the drafter's distribution: draw it from the last row of p",
        ),
        "bonus before": (
            _chain_law(p, q, p[:2], p[1]),
            "the bonus is drawn from the row of the last draft: the row after it, the last of p, "
            "has seen that draft",
        ),
        "one off": (
            _chain_law(p, q, p[1:], p[2]),
            "the drafts are tested one row too late: draft i is tested with row i of p",
        ),
        "no replacement": (
            rejected,
            "where a draft is rejected nothing takes its place: write a draw from the residual",
        ),
        "goes on": (
            _chain_law(p, q, p[:2], p[2], ends=False),
            "after a rejection it goes on with the drafts behind: they were drafted for another "
            "text, so end the step with the replacement",
        ),
    }


def _distance(one: Outcomes, other: Outcomes) -> float:
    return sum(abs(one.get(key, 0) - other.get(key, 0)) for key in {*one, *other})


def _least_distance(laws: Sequence[Outcomes]) -> float:
    pairs = [(a, b) for i, a in enumerate(laws) for b in laws[:i]]
    return min(_distance(a, b) for a, b in pairs)


@exercise
def chi_square(
    judge: Callable[[Any, Floats, Floats, int, np.random.Generator], float],
    seed: int = 0,
    vocabulary: int = 5,
    draws: int = 1500,
) -> Finding:
    """Check a test of rules: from a rule, p, q, a number of draws and a generator to a p-value.

    It has to let the right rule pass and to find out every wrong one, with drafts drawn from q.
    """
    rng = np.random.default_rng(seed)
    p, q = _apart(rng, vocabulary)
    drafts: list[int] = []
    for name, rule in _RULES.items():

        def counted(
            x: Any, p: Floats, q: Floats, rng: np.random.Generator, rule: Any = rule
        ) -> int:
            drafts.append(int(x))
            return rule(int(x), p, q, rng)

        drafts.clear()
        value = number(judge(counted, p, q, draws, rng))
        if not 0 <= value <= 1:
            return Finding(
                False,
                f"it gives {value:.3g}, and a p-value lies between 0 and 1: give "
                "the p-value of the test, not its statistic.",
            )
        if len(drafts) < draws // 2:
            return Finding(
                False, f"it tried the rule {len(drafts)} times, and was to draw {draws}."
            )
        share = np.bincount(drafts, minlength=vocabulary)[:vocabulary] / len(drafts)
        if np.abs(share - q).sum() > 2 * TOLERANCE:
            looks = "from p" if np.abs(share - p).sum() < 2 * TOLERANCE else "otherwise"
            return Finding(
                False, f"the drafts have to be drawn from q, and they are drawn {looks}."
            )
        if name == "right" and value < 1e-4:
            return Finding(
                False,
                f"it gives the right rule {value:.2g}, as if it were wrong: compare "
                "counts with counts, p times the number of draws.",
            )
        if name != "right" and value > 1e-3:
            return Finding(
                False,
                f"it gives {value:.2g} to a rule that {name}: compare what comes "
                "out with p, not with q or with the drafts.",
            )
    return Finding(True, "the right rule passes, and every wrong one is found out.")


def _draw(weights: Floats, rng: np.random.Generator) -> int:
    return int(rng.choice(len(weights), p=weights / weights.sum()))


def _right_rule(x: int, p: Floats, q: Floats, rng: np.random.Generator) -> int:
    return x if rng.random() < p[x] / q[x] else _draw(np.maximum(p - q, 0), rng)


_RULES: dict[str, Callable[[int, Floats, Floats, np.random.Generator], int]] = {
    "right": _right_rule,
    "keeps every draft": lambda x, p, q, rng: x,
    "replaces a rejected draft by a draw from p": lambda x, p, q, rng: (
        x if rng.random() < p[x] / q[x] else _draw(p, rng)
    ),
    "has p and q swapped": lambda x, p, q, rng: (
        x if rng.random() < q[x] / p[x] else _draw(np.maximum(q - p, 0), rng)
    ),
}
"""Rules for a student's test to judge; each wrong one by what it does."""


@exercise
def speculation(
    speculate: Callable[..., Any],
    seed: int = 0,
    vocabulary: int = 12,
    new: int = 40,
    drafted: int = 3,
) -> Finding:
    """Check a greedy loop: ``speculate(base, drafter, context, new, drafted)``.

    ``base`` and ``drafter`` map a list of tokens to the distribution (V,) of the next one. It gives
    the ``new`` tokens that plain decoding gives, and how many steps they took.
    """
    rng = np.random.default_rng(seed)
    while True:
        base, drafter = _toy_pair(rng, vocabulary)
        context = [int(token) for token in rng.integers(vocabulary, size=3)]
        right = _steps(base, drafter, context, new, drafted)
        without_bonus = _steps(base, drafter, context, new, drafted, bonus=False)
        if right < without_bonus < new:  # every loop that is wrong takes steps of its own
            break
    vanilla = _plain_text(base, context, new)
    answer = parts(
        speculate(base, drafter, context, new, drafted), 2, "two things: tokens and steps"
    )
    found, steps = tokens(answer[0]), whole(answer[1])
    if found[: len(context)] == context and found != vanilla:
        return Finding(False, "the tokens begin with the context: give the new ones only.")
    if found != vanilla:
        return Finding(False, _how_it_differs(found, vanilla, _plain_text(drafter, context, new)))
    if steps == right:
        return Finding(True, f"the same {new} tokens as plain decoding, in {right} steps.")
    says = {
        new: "one token a step is plain decoding: nothing that was drafted is kept",
        without_bonus: "the bonus after a draft that was kept to its end is missing",
    }.get(steps)
    why = says or "a step drafts after all that is committed, and commits what is kept and one more"
    return Finding(False, f"the tokens are right, and they took {steps} steps, not {right}: {why}.")


Toy = Callable[[Sequence[int]], Floats]


def _toy_pair(rng: np.random.Generator, vocabulary: int) -> tuple[Toy, Toy]:
    """A base model that looks back two tokens, and a drafter that agrees with it now and then."""
    table = rng.dirichlet(np.full(vocabulary, 0.5), size=(vocabulary, vocabulary))
    wrong = rng.dirichlet(np.full(vocabulary, 0.5), size=(vocabulary, vocabulary))
    agrees = rng.random((vocabulary, vocabulary, 1)) < 0.7
    other = np.where(agrees, table, wrong)

    def model(rows: Floats) -> Toy:
        def distribution(text: Sequence[int]) -> Floats:
            before, last = (int(token) for token in list(text)[-2:])
            return rows[before, last].copy()

        return distribution

    return model(table), model(other)


def _plain_text(model: Toy, context: Sequence[int], new: int) -> list[int]:
    text = list(context)
    for _ in range(new):
        text.append(int(model(text).argmax()))
    return text[len(context) :]


def _steps(
    base: Toy, drafter: Toy, context: Sequence[int], new: int, drafted: int, bonus: bool = True
) -> int:
    """Steps of the right loop, or of one that writes no bonus."""
    text, steps = list(context), 0
    while len(text) < len(context) + new:
        draft = _plain_text(drafter, text, drafted)
        choices = _plain_text(base, text, drafted + 1)
        out = _committed(draft, choices)
        text += out if bonus or len(out) <= drafted else out[:-1]
        steps += 1
    return steps


def _how_it_differs(found: list[int], vanilla: list[int], drafter: list[int]) -> str:
    if found == drafter:
        return "this is what the drafter writes alone: nobody checked it."
    if found[: len(vanilla)] == vanilla:
        return (
            f"it gives {len(found)} tokens where {len(vanilla)} were asked for: the last step may "
            "commit more than is wanted, so cut what is too much."
        )
    if vanilla[: len(found)] == found:
        return f"it gives {len(found)} tokens where {len(vanilla)} were asked for."
    place = next(i for i, (a, b) in enumerate(zip(found, vanilla, strict=False)) if a != b)
    return (
        f"the first {place} tokens are those of plain decoding, and then it writes {found[place]} "
        f"where the base model wants {vanilla[place]}: is each draft judged after the text that "
        "stands before it, and does the next draft begin after all that was committed?"
    )


def _pair(rng: np.random.Generator, vocabulary: int) -> tuple[Floats, Floats]:
    """Two distributions (V,), nowhere near 0."""
    p, q = rng.dirichlet(np.full(vocabulary, 2.0), size=2) * 0.9 + 0.1 / vocabulary
    return p, q


def _apart(rng: np.random.Generator, vocabulary: int) -> tuple[Floats, Floats]:
    """p and q for which every mistake shows in what comes out, so that counting finds it."""
    while True:
        p, q = _pair(rng, vocabulary)
        laws = list(_laws(p, q).values())
        seen = min(np.abs(law.sum(axis=0) - p).sum() for law in laws)
        alike = min(np.abs(a - b).sum() for i, a in enumerate(laws) for b in laws[:i])
        if seen > 2 * TOLERANCE and alike > 2 * TOLERANCE:
            return p, q


JOINT_TOLERANCE = 0.2
"""As `TOLERANCE`, for drafts and tokens together."""

CHAIN_TOLERANCE = 0.16
"""As `TOLERANCE`, for the outcomes of a chain of two drafts over three tokens."""
