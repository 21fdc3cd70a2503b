"""Checks of the exercises on accepting and rejecting draft tokens.

p is the base model's distribution and q the drafter's. Rules that draw at random are checked by
what many draws give: the table of mistakes then holds a distribution for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from labkit.checks import Finding, answers
from labkit.checks.answers import Answer, Floats, NotUsable, exercise, listed, refuse, verdict

DRAWS = 4000
TOLERANCE, JOINT_TOLERANCE, CHAIN_TOLERANCE = 0.06, 0.2, 0.16
"""Sums of differences that 4,000 draws stay under, except about once in 10,000 times: of tokens, of
drafts and tokens together, and of what a step over two drafts and three tokens commits."""


def _nearest(
    seen: Floats, tolerance: float, good: str, otherwise: str, *laws: answers.Mistake
) -> Finding:
    """Return what the law says that is nearest to the shares ``seen`` (the right one has ""), or
    ``otherwise`` if none is as near as ``tolerance``."""
    distance, says = min((_distance(law, seen), says) for law, says in laws)
    if distance > tolerance:
        says = otherwise
    return Finding(not says, f"{says or good}.")


def _distance(one: Floats, other: Floats) -> float:
    return float(np.abs(one - other).sum())


def _least_distance(laws: Sequence[answers.Mistake]) -> float:
    return min(_distance(one, other) for i, (one, _) in enumerate(laws) for other, _ in laws[:i])


def _counted(out: Sequence[int], vocabulary: int) -> Floats:
    """Return the share of each token; `NotUsable` if one is not in the vocabulary."""
    for token in out:
        known = 0 <= token < vocabulary
        refuse((not known, f"it wrote {token}, which is not one of the {vocabulary} tokens"))
    return np.bincount(np.array(out, int), minlength=vocabulary) / len(out)


@exercise
def certain_drafter(rule: Answer) -> Finding:
    """Check ``rule(x, p, rng)`` for a certain drafter (q is 1 on its draft x), by its output.

    The right rule keeps the draft x with probability p(x), and otherwise draws from p without x, so
    that its output is distributed as p.
    """
    rng, p, x = np.random.default_rng(0), np.array([0.4, 0.3, 0.2, 0.1]), 1
    share = _counted([answers.whole(rule(x, p, rng)) for _ in range(DRAWS)], len(p))
    keep, draft, last = p[x], np.eye(len(p))[x], np.eye(len(p))[-1]
    left = p * (1 - draft)
    rest = left / left.sum()
    return _nearest(
        share, TOLERANCE,
        "the output is distributed as p, although the drafter always proposes the same token",
        f"out comes {listed(share)}, where p is {listed(p)}: keep x with probability p(x), "
        "otherwise draw from p without x",
        (p, ""),
        (draft, "the draft is always kept, so the drafter decides alone: keep it with probability "
         "p(x)"),
        (rest, "the draft never comes out, although p gives it a share: keep it with probability "
         "p(x)"),
        (keep * draft + (1 - keep) * p, "the draft comes out too often, because a rejected draft "
         "gets a second chance in the replacement: draw that from p without x"),
        ((1 - keep) * draft + keep * rest, "the draft is kept when it should be rejected and the "
         "other way round: keep it if the random number is below p(x)"),
        (keep * draft + (1 - keep) * (left + (1 - left.sum()) * last), "the last token comes out "
         "too often, because the rest of p is not divided by its sum before the draw"),
    )  # fmt: skip


@exercise
def expected_tokens(expect: Answer) -> Finding:
    """Check a step's expected tokens, from acceptance a and a chain of k drafts: 1 + a + ... + a^k,
    equation 1 of Leviathan et al. (2023)."""

    def guarded(a: float, k: int) -> float:
        try:
            return expect(a, k)
        except ZeroDivisionError:
            raise NotUsable(
                f"it divides by zero at a = {a:g}, where every draft is accepted and a step gives "
                f"{k + 1} tokens: sum the {k + 1} terms, or treat a = 1 separately."
            ) from None

    cases = [(0.5, 1), (0.5, 2), (0.8, 4), (0.0, 3), (1.0, 4)]
    right = np.array([sum(a**i for i in range(k + 1)) for a, k in cases])
    a, k = np.array(cases).T
    return answers.formula(
        guarded, cases, right, "1 + a + a² + … + aᵏ, the bonus token included", "a = {} and k = {}",
        (right - 1, "this counts accepted drafts alone: the base model adds one token of its own "
         "to every step"),
        (1 + a * k, "this adds a for each draft, but the second counts only if the first was "
         "accepted, with probability a times a"),
        (1 + a**k, "this counts only steps in which all drafts are accepted: a step in which two "
         "of them are accepted still gives those two"),
        (right - a**k, "this stops a term early: after k accepted drafts the base model adds its "
         "bonus token"),
    )  # fmt: skip


@exercise
def greedy_chain(step: Answer, seed: int = 0, drafted: int = 4, vocabulary: int = 9) -> Finding:
    """Check greedy verification of a chain: ``step`` from drafts (K,) and logits (K + 1, V).

    Row 0 of the logits follows the last committed token, row i follows draft i. Drafts are kept as
    long as each is the most probable token of the row before it; then one token of the base model's
    own follows: the replacement of the first rejected draft, or else the bonus token.
    """
    rng = np.random.default_rng(seed)
    cases = [_greedy_case(kept, drafted, vocabulary, rng) for kept in range(drafted + 1)]
    found = [answers.tokens(step(draft, logits)) for draft, logits in cases]
    rows = [(draft, own := _choices(logits), _committed(draft, own)) for draft, logits in cases]
    right = [out for *_, out in rows]
    late, across = map(list, zip(*(_misread(*case) for case in cases), strict=True))
    off = next((case for case in range(len(cases)) if found[case] != right[case]), 0)
    return verdict(
        found, right, "it commits what is kept, and then one token of the base model's own",
        ([out[:-1] for *_, out in rows], "the tokens kept are right, and the base model's own "
         "token after them is missing: each step ends with one, a replacement or a bonus"),
        ([out[:drafted] for *_, out in rows], "the bonus token after a draft that was kept to its "
         "end is missing"),
        ([draft[: len(out)] if len(out) <= drafted else out for draft, _, out in rows], "the draft "
         "that was rejected is written: the base model's token takes its place"),
        ([out + draft[len(out) :] for draft, _, out in rows], "drafts after the rejected one are "
         "kept: they were drafted for another text, so drop them"),
        ([[x for x, y in zip(draft, own, strict=False) if x == y] for draft, own, _ in rows],
         "each draft that is the base model's choice is kept, also behind one that is not: end at "
         "the first that is not, with the base model's token in its place"),
        ([own for _, own, _ in rows], "this is the base model's choice at every place, but after a "
         "rejection its choices are for another text: stop there"),
        ([draft for draft, *_ in rows], "all of the draft is written, whatever the base model "
         "chose"),
        (late, "each draft is compared with the row after it: draft i is judged by row i, which "
         "follows the tokens before it"),
        (across, "this takes the largest logit along the wrong axis: a row holds the vocabulary of "
         "one place"),
        otherwise=f"it should give {right[off]}",
    ).about(
        f"for the draft {cases[off][0]}, of which {off} should be kept, it gives {found[off]}"
    )  # fmt: skip


def _greedy_case(
    kept: int, drafted: int, vocabulary: int, rng: np.random.Generator
) -> tuple[list[int], Floats]:
    """Return drafts of which ``kept`` are right, the next is wrong, and those behind it right."""
    while True:  # until reading the logits wrongly shows
        logits = rng.normal(size=(drafted + 1, vocabulary))
        choices = _choices(logits)
        draft = choices[:drafted]
        if kept < drafted:
            draft[kept] = (choices[kept] + 1 + int(rng.integers(vocabulary - 1))) % vocabulary
        if _committed(draft, choices) not in _misread(draft, logits):
            return draft, logits


def _choices(logits: Floats) -> list[int]:
    return logits.argmax(axis=1).tolist()


def _misread(draft: list[int], logits: Floats) -> tuple[list[int], list[int]]:
    """Return what is committed if rows are read one too late, and along the wrong axis."""
    late = _choices(np.vstack([logits[1:], logits[-1:]]))
    return _committed(draft, late), _committed(draft, _choices(logits[:, : len(logits)].T))


def _committed(draft: Sequence[int], choices: Sequence[int]) -> list[int]:
    """Return what greedy verification commits if the base model's choices are ``choices``."""
    kept = 0
    while kept < len(draft) and choices[kept] == draft[kept]:
        kept += 1
    return [*list(draft)[:kept], choices[kept]]


@exercise
def keeping(keep: Answer, seed: int = 0, vocabulary: int = 5) -> Finding:
    """Check the probability of keeping a draft x, from x, p and q (V,): min(1, p(x) / q(x))."""
    p, q = _pair(np.random.default_rng(seed), vocabulary)
    found = np.array([answers.number(keep(x, p, q)) for x in range(vocabulary)])
    right = np.minimum(1, p / q)
    off = int(np.abs(found - right).argmax())
    return verdict(
        found, right, "min(1, p(x) / q(x))",
        (np.minimum(1, q / p), "p and q are swapped: what the drafter proposes too often (q > p) "
         "has to be kept less often, so p is above"),
        (q / p, "p and q are swapped, and a probability is at most 1"),
        (p / q, "a probability is at most 1: cap the ratio"),
        (np.minimum(p, q), "this is the share of all cases in which x is drafted and kept; once it "
         "is drafted, divide by q(x)"),
        (p, "this is p(x) alone, which is the rule for a drafter that is certain"),
        (1 - right, "this is the probability of rejecting it"),
        (np.ones(vocabulary), "this keeps every draft"),
        otherwise=f"it should give {right[off]:.3f}",
    ).about(f"at p(x) = {p[off]:.3f} and q(x) = {q[off]:.3f} it gives "
            f"{found[off]:.3f}")  # fmt: skip


@exercise
def owed(rest: Answer, seed: int = 0, vocabulary: int = 5) -> Iterator[Finding]:
    """Check the residual (V,) from p and q: norm(max(0, p - q)), or p if p = q: nothing is owed."""
    rng = np.random.default_rng(seed)
    for _ in range(3):
        p, q = _pair(rng, vocabulary)
        found = answers.numbers(rest(p, q), (vocabulary,), "a number for each token")
        left, back, away = np.maximum(p - q, 0), np.maximum(q - p, 0), np.abs(p - q)
        common, soft = np.minimum(p, q), np.exp(p - q)
        yield verdict(
            found, left / left.sum(), "max(0, p - q), divided by its sum",
            (left, "it is not divided by its sum, so it is not a distribution"),
            (back / back.sum(), "p and q are swapped: owed is what the drafter proposes too "
             "rarely, p - q"),
            (back, "p and q are swapped, and it is not divided by its sum"),
            (away / away.sum(), "it also holds the tokens that were proposed too often: take "
             "max(0, p - q), not the absolute difference"),
            (p - q, "negative numbers are left in it: a token proposed too often is owed nothing"),
            (p, "this is p itself: a draft that was rejected because it comes too often would come "
             "straight back"),
            (common / common.sum(), "this is what drafts and output have in common, not what is "
             "still missing"),
            (soft / soft.sum(), "a softmax gives every token a share: tokens that are owed nothing "
             "must get nothing, so divide by the sum instead"),
            otherwise=f"for p = {listed(p)} and q = {listed(q)} it gives {listed(found)} and not "
                      f"{listed(left / left.sum())}", tolerance=1e-7,
        )  # fmt: skip
    try:
        with np.errstate(invalid="ignore", divide="ignore"):
            total = answers.numbers(rest(p, p), (vocabulary,)).sum()
    except NotUsable:
        raise NotUsable(
            "if q equals p nothing is owed, and it divides 0 by 0: give p there, which is as good "
            "as any because nothing is ever rejected."
        ) from None
    refuse((abs(total - 1) > 1e-9, f"if q equals p it sums to {total:.3g}: give p there"))


@exercise
def lossless(rule: Answer, seed: int = 0, vocabulary: int = 5) -> Finding:
    """Check a rule by what comes out of many drafts, which are drawn from q.

    ``rule`` gets a draft x, p and q (V,) and a generator, and gives the token that is written. The
    output has to be distributed as p, and a draft has to be kept as often as possible: in the
    share sum(min(p, q)) of the cases.
    """
    rng = np.random.default_rng(seed)
    p, q = _apart(rng, vocabulary)
    drafts = rng.choice(vocabulary, size=DRAWS, p=q)
    out = np.array([answers.whole(rule(int(x), p, q, rng)) for x in drafts])
    share = _counted(out.tolist(), vocabulary)
    seen = np.zeros((vocabulary, vocabulary))  # (drafts, tokens)
    np.add.at(seen, (drafts, out), 1 / DRAWS)
    if _distance(share, p) <= TOLERANCE:
        kept, most = float(np.trace(seen)), float(np.minimum(p, q).sum())
        refuse((kept <= most - TOLERANCE, "the output is distributed as p, but it keeps the draft "
                f"in only {kept:.0%} of the cases where {most:.0%} are possible: keep it with "
                "probability min(1, p(x) / q(x)) instead of drawing anew"))  # fmt: skip
        return Finding(True, "the output is distributed as p; no rule keeps more drafts.")
    return _nearest(
        seen, JOINT_TOLERANCE, "",
        f"out comes {listed(share)}, where p is {listed(p)}: keep x with probability "
        "min(1, p(x) / q(x)), otherwise draw from the residual", *_laws(p, q),
    )  # fmt: skip


def _laws(p: Floats, q: Floats) -> list[answers.Mistake]:
    """Return how often each draft and token come together, (V, V), under each common mistake."""
    keep, turned = np.minimum(1, p / q), np.minimum(1, q / p)
    left, back = np.maximum(p - q, 0), np.maximum(q - p, 0)
    rest, back = left / left.sum(), back / back.sum()
    last = np.eye(len(p))[-1]
    # If one number on 0..1 decides the test and picks the replacement too, it is above keep.
    edges = np.append(0, np.cumsum(rest))
    picked = np.maximum(edges[1:] - np.maximum(edges[:-1], keep[:, None]), 0)  # (drafts, tokens)

    def law(kept: Floats, instead: Floats) -> Floats:
        return np.diag(q * kept) + (q * (1 - kept))[:, None] * instead

    return [
        (law(np.ones_like(q), p), "the draft is always kept, so the drafter decides alone"),
        (law(0 * q, rest), "the draft is never kept: every token comes from the residual"),
        (law(keep, p), "a rejected draft is replaced by a draw from p itself: draw from the "
         "residual, or what was rejected for coming too often comes straight back"),
        (law(turned, rest), "p and q are swapped in the test: a draft that comes too often is "
         "always kept, and one that comes too rarely is often rejected"),
        (law(turned, back), "p and q are swapped, in the test and in the residual"),
        (law(keep, back), "p and q are swapped in the residual: owed is p - q, where that is "
         "positive"),
        (law(1 - keep, rest), "the draft is kept when it should be rejected and the other way "
         "round: keep it if the random number is below the probability of keeping it"),
        (law(keep, left + (1 - left.sum()) * last), "the last token comes out too often: the "
         "residual is not divided by its sum before the draw"),
        (law(keep, np.eye(len(p))[int(rest.argmax())]), "the replacement is always the token that "
         "is owed most: draw it from the residual"),
        (np.diag(q * keep) + q[:, None] * picked, "the random number that decided the test is used "
         "again to draw the replacement; it is known to be large by then, so draw a new one"),
    ]  # fmt: skip


@exercise
def sampled_chain(step: Answer, seed: int = 0, vocabulary: int = 3) -> Finding:
    """Check lossless verification of a chain of two drafts, by what it commits in many steps.

    ``step`` gets the drafts (K,), p (K + 1, V), q (K, V) and a generator. Row i of p and of q
    belongs to the place of draft i; the last row of p to the bonus token.
    """
    rng = np.random.default_rng(seed)
    laws: list[answers.Mistake] = []
    while not laws or _least_distance(laws) <= 2 * CHAIN_TOLERANCE:
        p = rng.dirichlet(np.full(vocabulary, 2.0), size=3)
        q = rng.dirichlet(np.full(vocabulary, 2.0), size=2)
        laws = _chain_laws(p, q)
    seen = np.zeros((vocabulary + 1,) * 3)
    for draft in np.stack([rng.choice(vocabulary, size=DRAWS, p=row) for row in q], 1).tolist():
        out = answers.tokens(step(draft, p, q, rng))
        refuse((len(out) > 3, "a step over two drafts commits 1 to 3 tokens, and this one "
                f"sometimes commits {len(out)}"))  # fmt: skip
        _counted(out or [0], vocabulary)
        seen[*out, *[vocabulary] * (3 - len(out))] += 1 / DRAWS
    return _nearest(
        seen, CHAIN_TOLERANCE, "each place is distributed as p, to the bonus token",
        "what it commits is distributed neither as it should be nor as a common mistake would have "
        "it: test the drafts in order with row i of p and q for draft i, end at the first "
        "rejection with its replacement, and after the last draft with a draw from the last row of "
        "p", *laws,
    )  # fmt: skip


def _chain_laws(p: Floats, q: Floats) -> list[answers.Mistake]:
    """Return how often a step over two drafts commits which tokens, (V + 1, V + 1, V + 1).

    The last index of an axis stands for no token.
    """
    nothing = np.eye(p.shape[1] + 1)[-1]

    def law(
        bonus: Floats | None, tests: Floats = p, ends: bool = True, replaces: bool = True
    ) -> Floats:
        """Return the law with another distribution of the bonus or for the tests, (2, V), or one
        whose rejections do not end the step, or do not replace the draft."""
        kept = np.pad(np.minimum(tests[:2], q), ((0, 0), (0, 1)))
        left = np.pad(np.maximum(tests[:2] - q, 0), ((0, 0), (0, 1)))
        if not ends:
            kept, left = kept + left, 0 * left
        if not replaces:
            left = left.sum(axis=1, keepdims=True) * nothing
        third = nothing if bonus is None else np.append(bonus, 0)
        outs = [(left[0], nothing, nothing), (kept[0], left[1], nothing), (kept[0], kept[1], third)]
        return sum(np.einsum("i,j,k->ijk", *out) for out in outs)

    return [
        (law(p[2]), ""),
        (law(None), "after two kept drafts the base model's bonus is missing: it has already "
         "computed what comes next, in the last row of p"),
        (law(q[1]), "the bonus is drawn from the drafter's distribution: draw it from the last row "
         "of p"),
        (law(p[1]), "the bonus is drawn from the row of the last draft: the row after it, the last "
         "of p, follows that draft"),
        (law(p[2], tests=p[1:]), "the drafts are tested one row too late: draft i is tested with "
         "row i of p"),
        (law(p[2], replaces=False), "if a draft is rejected nothing takes its place: write a draw "
         "from the residual"),
        (law(p[2], ends=False), "after a rejection it goes on with the drafts behind: they were "
         "drafted for another text, so end the step with the replacement"),
    ]  # fmt: skip


@exercise
def chi_square(judge: Answer, seed: int = 0, vocabulary: int = 5, draws: int = 1500) -> Finding:
    """Check a test, ``judge(rule, p, q, draws, rng)``: its p-value, with drafts drawn from q,
    passes the right rule and fails every wrong one."""
    rng = np.random.default_rng(seed)
    p, q = _apart(rng, vocabulary)
    rules = (  # each wrong one with what it does
        ("", _rule(lambda p, q: p / q, lambda p, q: p - q)),
        ("keeps every draft", _rule(lambda p, q: 1.0, lambda p, q: p - q)),
        ("replaces a rejected draft by a draw from p", _rule(lambda p, q: p / q, lambda p, q: p)),
        ("has p and q swapped", _rule(lambda p, q: q / p, lambda p, q: q - p)),
    )
    for name, rule in rules:
        drafts: list[int] = []
        counted = partial(_counting, rule, drafts)
        value = answers.number(judge(counted, p, q, draws, rng))
        share = np.bincount(drafts or [0], minlength=vocabulary)[:vocabulary] / (len(drafts) or 1)
        from_p = "from p" if _distance(share, p) < 2 * TOLERANCE else "otherwise"
        refuse(
            (not 0 <= value <= 1, f"it gives {value:.3g}, and a p-value lies between 0 and 1: give "
             "the p-value of the test, not its statistic"),
            (len(drafts) < draws // 2, f"it tried the rule {len(drafts)} times, and should draw "
             f"{draws}"),
            (_distance(share, q) > 2 * TOLERANCE, "the drafts have to be drawn from q, and they "
             f"are drawn {from_p}"),
            (not name and value < 1e-4, f"it gives the right rule {value:.2g}, as if it were "
             "wrong: compare counts with counts, p times the number of draws"),
            (name and value > 1e-3, f"it gives {value:.2g} to a rule that {name}: compare the "
             "output with p, not with q or with the drafts"),
        )  # fmt: skip
    return Finding(True, "the right rule passes, and every wrong one fails.")


def _counting(rule: Answer, drafts: list[int], x: Any, *given: Any) -> int:
    """Apply a rule, and note the draft."""
    drafts.append(int(x))
    return rule(int(x), *given)


def _rule(keep: Callable[..., float], rest: Callable[[Floats, Floats], Floats]) -> Answer:
    def rule(x: int, p: Floats, q: Floats, rng: np.random.Generator) -> int:
        weights = np.maximum(rest(p, q), 0)
        kept = rng.random() < keep(p[x], q[x])
        return x if kept else int(rng.choice(len(weights), p=weights / weights.sum()))

    return rule


Toy = Callable[[Sequence[int]], Floats]
"""A model that gives the distribution (V,) after a text."""


@exercise
def speculation(
    speculate: Answer, seed: int = 0, vocabulary: int = 12, new: int = 40, drafted: int = 3
) -> Finding:
    """Check a greedy loop: ``speculate(base, drafter, context, new, drafted)`` returns the ``new``
    tokens that vanilla decoding gives, and how many steps they took."""
    rng = np.random.default_rng(seed)
    while True:
        base, drafter = _toy_pair(rng, vocabulary)
        context = [int(token) for token in rng.integers(vocabulary, size=3)]
        right = _steps(base, drafter, context, new, drafted)
        without_bonus = _steps(base, drafter, context, new, drafted, bonus=False)
        if right < without_bonus < new:  # every wrong loop takes a number of steps of its own
            break
    vanilla = _plain_text(base, context, new)
    answer = speculate(base, drafter, context, new, drafted)
    answer = answers.parts(answer, 2, "two things: tokens and steps")
    found, steps = answers.tokens(answer[0]), answers.whole(answer[1])
    if found != vanilla:
        alike = (i for i, (a, b) in enumerate(zip(found, vanilla, strict=False)) if a != b)
        place = next(alike, min(len(found), new))
        refuse(
            (found[: len(context)] == context, "the tokens begin with the context: give the new "
             "ones only"),
            (found == _plain_text(drafter, context, new), "this is what the drafter writes alone: "
             "nothing checked it"),
            (found[:new] == vanilla, f"it gives {len(found)} tokens where {new} were asked for: "
             "the last step may commit more than is wanted, so cut what is too much"),
            (vanilla[: len(found)] == found, f"it gives {len(found)} tokens where {new} were asked "
             "for"),
            (True, f"the first {place} tokens are those of vanilla decoding, and then it writes "
             f"{[*found, 'nothing'][place]} where the base model wants {[*vanilla, 0][place]}: is "
             "each draft judged after the text before it, and does the next draft begin after all "
             "that was committed?"),
        )  # fmt: skip
    return verdict(
        steps, right, f"the same {new} tokens as vanilla decoding, in {right} steps",
        (new, "one token a step is vanilla decoding: no draft is kept"),
        (without_bonus, "the bonus token after a draft that was kept to its end is missing"),
        otherwise="a step drafts after all that is committed, and commits what is kept and one "
                  "more",
    ).about(f"the tokens are right, and they took {steps} steps, not {right}")  # fmt: skip


def _toy_pair(rng: np.random.Generator, vocabulary: int) -> tuple[Toy, Toy]:
    """Return a base model that looks back two tokens, and a drafter that often agrees with it."""
    table, wrong = rng.dirichlet(np.full(vocabulary, 0.5), size=(2, vocabulary, vocabulary))
    often = np.where(rng.random((vocabulary, vocabulary, 1)) < 0.7, table, wrong)

    def model(rows: Floats) -> Toy:
        return lambda text: rows[int(text[-2]), int(text[-1])].copy()

    return model(table), model(often)


def _plain_text(model: Toy, context: Sequence[int], new: int) -> list[int]:
    text = list(context)
    for _ in range(new):
        text.append(int(model(text).argmax()))
    return text[len(context) :]


def _steps(
    base: Toy, drafter: Toy, context: Sequence[int], new: int, drafted: int, bonus: bool = True
) -> int:
    """Return the steps of the right loop, or of one that writes no bonus token."""
    text, steps, end = list(context), 0, len(context) + new
    while len(text) < end:
        draft = _plain_text(drafter, text, drafted)
        out = _committed(draft, _plain_text(base, text, drafted + 1))
        text += out if bonus or len(out) <= drafted else out[:-1]
        steps += 1
    return steps


def _pair(rng: np.random.Generator, vocabulary: int) -> tuple[Floats, Floats]:
    """Return two distributions (V,), nowhere near 0."""
    p, q = rng.dirichlet(np.full(vocabulary, 2.0), size=2) * 0.9 + 0.1 / vocabulary
    return p, q


def _apart(rng: np.random.Generator, vocabulary: int) -> tuple[Floats, Floats]:
    """Return p and q for which every mistake shows in the output, so that counting finds it."""
    while True:
        p, q = _pair(rng, vocabulary)
        laws = _laws(p, q)
        seen = min(_distance(law.sum(axis=0), p) for law, _ in laws)
        if min(seen, _least_distance(laws)) > 2 * TOLERANCE:
            return p, q
