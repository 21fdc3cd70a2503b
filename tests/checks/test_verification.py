from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare

from labkit.checks import verification
from labkit.checks.verification import certain_drafter, expected_tokens


def rest(x, p):
    left = p.copy()
    left[x] = 0
    return left


def right(x, p, rng):
    if rng.random() < p[x]:
        return x
    left = rest(x, p)
    return rng.choice(len(p), p=left / left.sum())


def unnormalised(x, p, rng):
    if rng.random() < p[x]:
        return x
    return min(int(np.searchsorted(np.cumsum(rest(x, p)), rng.random())), len(p) - 1)


WRONG = {
    "always kept": lambda x, p, rng: x,
    "never comes out": lambda x, p, rng: rng.choice(4, p=rest(x, p) / rest(x, p).sum()),
    "second chance": lambda x, p, rng: x if rng.random() < p[x] else rng.choice(4, p=p),
    "the other way round": lambda x, p, rng: (
        x if rng.random() > p[x] else rng.choice(4, p=rest(x, p) / rest(x, p).sum())
    ),
    "divided by its sum": unnormalised,
    "not one of the 4 tokens": lambda x, p, rng: 4,
    "out comes": lambda x, p, rng: rng.integers(4),
}


def test_the_right_rule_is_right():
    assert certain_drafter(right).right


@pytest.mark.parametrize("says", WRONG)
def test_each_common_mistake_is_named(says):
    finding = certain_drafter(WRONG[says])
    assert not finding.right
    assert says in repr(finding)


@pytest.mark.parametrize("answer", [None, ...])
def test_an_exercise_not_begun_is_no_mistake(answer):
    assert "returns nothing so far" in repr(certain_drafter(lambda x, p, rng: answer))
    assert "returns nothing so far" in repr(expected_tokens(lambda a, k: answer))


def test_both_forms_of_the_formula_are_right():
    assert expected_tokens(lambda a, k: sum(a**i for i in range(k + 1))).right
    assert expected_tokens(lambda a, k: k + 1 if a == 1 else (1 - a ** (k + 1)) / (1 - a)).right


@pytest.mark.parametrize(
    ("formula", "says"),
    [
        (lambda a, k: (1 - a ** (k + 1)) / (1 - a), "divides by zero"),
        (lambda a, k: sum(a**i for i in range(1, k + 1)), "accepted drafts alone"),
        (lambda a, k: 1 + a * k, "only if the first was accepted"),
        (lambda a, k: 1 + a**k, "all drafts are accepted"),
        (lambda a, k: sum(a**i for i in range(k)), "stops a term early"),
        (lambda a, k: 7.0, "the answer is 1.5"),
    ],
)
def test_each_wrong_formula_is_named(formula, says):
    finding = expected_tokens(formula)
    assert not finding.right
    assert says in finding.text


def greedy(draft, logits):
    out = []
    for i, choice in enumerate(logits.argmax(axis=1).tolist()):
        out.append(choice)
        if i == len(draft) or draft[i] != choice:
            return out
    raise AssertionError("the last row is the bonus's")


def off_by_one(draft, logits):
    return greedy(draft, np.vstack([logits[1:], logits[-1:]]))


@pytest.mark.parametrize("seed", [0, 5])
def test_greedy_verification_is_right(seed):
    assert verification.greedy_chain(greedy, seed=seed, drafted=5).right


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (lambda d, z: ..., "returns nothing"),
        (lambda d, z: greedy(d, z)[:-1], "own token after them is missing"),
        (lambda d, z: greedy(d, z)[: len(d)], "kept to its end is missing"),
        (lambda d, z: [*d, z[-1].argmax()][: len(greedy(d, z))], "the draft that was rejected"),
        (lambda d, z: z.argmax(1).tolist(), "stop there"),
        (
            lambda d, z: [x for x, row in zip(d, z, strict=False) if x == row.argmax()],
            "also behind one that is not",
        ),
        (lambda d, z: [*greedy(d, z), *d[len(greedy(d, z)) :]], "drop them"),
        (lambda d, z: d, "all of the draft is written"),
        (off_by_one, "the row after it"),
        (lambda d, z: greedy(d, z[:, : len(d) + 1].T), "wrong axis"),
        (lambda d, z: [0], "it should give"),
        (lambda d, z: "abc", "a str, and a list is needed"),
        (lambda d, z: [0.5], "a list of token ids"),
    ],
)
def test_each_wrong_greedy_step_is_named(step, says):
    finding = verification.greedy_chain(step)
    assert not finding.right
    assert says in finding.text


@pytest.mark.parametrize(
    ("keep", "says"),
    [
        (lambda x, p, q: q[x] / p[x], "p and q are swapped"),
        (lambda x, p, q: min(1, q[x] / p[x]), "p and q are swapped"),
        (lambda x, p, q: p[x] / q[x], "cap the ratio"),
        (lambda x, p, q: min(p[x], q[x]), "divide by q(x)"),
        (lambda x, p, q: p[x], "certain"),
        (lambda x, p, q: 1 - min(1, p[x] / q[x]), "rejecting it"),
        (lambda x, p, q: 1.0, "keeps every draft"),
        (lambda x, p, q: 0.123, "it should give"),
        (lambda x, p, q: np.minimum(1, p / q), "one number is needed"),
        (lambda x, p, q: float("nan"), "has to be finite"),
        (lambda x, p, q: None, "returns nothing"),
    ],
)
def test_each_wrong_probability_of_keeping_is_named(keep, says):
    assert verification.keeping(lambda x, p, q: min(1, p[x] / q[x])).right
    finding = verification.keeping(keep)
    assert not finding.right
    assert says in finding.text


def residual(p, q):
    left = np.maximum(p - q, 0)
    return left / left.sum() if left.any() else p


def normed(x):
    return x / x.sum()


@pytest.mark.parametrize(
    ("rest", "says"),
    [
        (lambda p, q: np.maximum(p - q, 0), "not divided by its sum"),
        (lambda p, q: residual(q, p), "p and q are swapped: owed"),
        (lambda p, q: np.maximum(q - p, 0), "and it is not divided"),
        (lambda p, q: normed(np.abs(p - q)), "absolute difference"),
        (lambda p, q: p - q, "negative numbers"),
        (lambda p, q: p, "straight back"),
        (lambda p, q: normed(np.minimum(p, q)), "in common"),
        (lambda p, q: normed(np.exp(p - q)), "softmax"),
        (lambda p, q: normed(np.maximum(p - q, 0)), "divides 0 by 0"),
        (lambda p, q: residual(p, q) if (p != q).any() else 0 * p, "sums to 0"),
        (lambda p, q: np.ones(len(p)), "and not"),
        (lambda p, q: residual(p, q)[:-1], "shape (5,), a number for each token, is needed"),
    ],
)
def test_each_wrong_residual_is_named(rest, says):
    assert verification.owed(residual, seed=3).right
    finding = verification.owed(rest)
    assert not finding.right
    assert says in finding.text


def pick(weights, u):
    return min(int(np.searchsorted(np.cumsum(weights), u, side="right")), len(weights) - 1)


def sampling(keep=lambda x, p, q: p[x] / q[x], rest=residual):
    def rule(x, p, q, rng):
        return x if rng.random() < keep(x, p, q) else pick(rest(p, q), rng.random())

    return rule


def one_number(x, p, q, rng):
    u = rng.random()
    return x if u < p[x] / q[x] else pick(residual(p, q), u)


RULES = {
    "always kept": lambda x, p, q, rng: x,
    "never kept": lambda x, p, q, rng: pick(residual(p, q), rng.random()),
    "straight back": sampling(rest=lambda p, q: p),
    "swapped in the test": sampling(keep=lambda x, p, q: q[x] / p[x]),
    "in the test and in the residual": lambda x, p, q, rng: sampling()(x, q, p, rng),
    "swapped in the residual": sampling(rest=lambda p, q: residual(q, p)),
    "the other way round": sampling(keep=lambda x, p, q: 1 - p[x] / q[x]),
    "not divided by its sum": sampling(rest=lambda p, q: np.maximum(p - q, 0)),
    "owed most": sampling(rest=lambda p, q: np.eye(len(p))[(p - q).argmax()]),
    "used again": one_number,
    "instead of drawing anew": lambda x, p, q, rng: pick(p, rng.random()),
    "not one of the 5 tokens": lambda x, p, q, rng: 5,
    "keep x with probability": lambda x, p, q, rng: int(rng.integers(5)),
    "returns nothing": lambda x, p, q, rng: None,
}


@pytest.mark.parametrize("seed", range(4))
def test_the_lossless_rule_is_right_at_every_seed(seed):
    assert verification.lossless(sampling(), seed=seed, vocabulary=4 + seed).right


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("says", RULES)
def test_each_wrong_rule_is_named_by_what_comes_out(says, seed):
    finding = verification.lossless(RULES[says], seed=seed)
    assert not finding.right
    assert says in finding.text


def chain(draft, p, q, rng, bonus=-1, row=0, replaces=True, ends=True):
    out = []
    for i, x in enumerate(draft):
        if rng.random() < p[i + row][x] / q[i][x]:
            out.append(x)
            continue
        if replaces:
            out.append(pick(residual(p[i + row], q[i]), rng.random()))
        if ends:
            return out
    return out if bonus is None else [*out, pick(p[bonus], rng.random())]


CHAINS = {
    "bonus is missing": lambda *a: chain(*a, bonus=None),
    "from the drafter's distribution": lambda d, p, q, rng: chain(
        d, np.vstack([p[:2], q[1:]]), q, rng
    ),
    "from the row of the last draft": lambda *a: chain(*a, bonus=1),
    "one row too late": lambda *a: chain(*a, row=1),
    "nothing takes its place": lambda *a: chain(*a, replaces=False),
    "goes on with the drafts behind": lambda *a: chain(*a, ends=False),
    "and this one sometimes commits 4": lambda d, *a: [*d, 0, 0],
    "distributed neither": lambda d, p, q, rng: [int(rng.integers(3))],
}


@pytest.mark.parametrize("seed", [0, 1])
def test_the_lossless_chain_is_right(seed):
    assert verification.sampled_chain(chain, seed=seed, vocabulary=3 + seed).right


@pytest.mark.parametrize("says", CHAINS)
def test_each_wrong_chain_is_named(says):
    finding = verification.sampled_chain(CHAINS[says])
    assert not finding.right
    assert says in finding.text


def judge(rule, p, q, draws, rng, of=None, against=None):
    drafts = rng.choice(len(p), size=draws, p=q if of is None else of)
    counts = np.bincount([rule(x, p, q, rng) for x in drafts], minlength=len(p))
    return chisquare(counts, (p if against is None else against) * draws).pvalue


@pytest.mark.parametrize(
    ("test", "says"),
    [
        (lambda r, p, q, n, g: judge(r, p, q, n, g, of=p), "drawn from p"),
        (lambda r, p, q, n, g: judge(r, p, q, n, g, of=np.ones(5) / 5), "drawn otherwise"),
        (lambda r, p, q, n, g: judge(r, p, q, n, g, against=q), "as if it were wrong"),
        (lambda r, p, q, n, g: max(judge(r, p, q, n, g), 0.5), "keeps every draft"),
        (lambda r, p, q, n, g: 1 + judge(r, p, q, n, g), "between 0 and 1"),
        (lambda r, p, q, n, g: judge(r, p, q, 100, g), "tried the rule 100 times"),
        (lambda r, p, q, n, g: ..., "returns nothing"),
    ],
)
def test_a_test_of_rules_is_tested_itself(test, says):
    assert verification.chi_square(judge, seed=2).right
    finding = verification.chi_square(test)
    assert not finding.right
    assert says in finding.text


def speculate(base, drafter, context, new, drafted, bonus=True, cut=True):
    text, steps = list(context), 0
    while len(text) < len(context) + new:
        draft = list(text)
        for _ in range(drafted):
            draft.append(int(drafter(draft).argmax()))
        kept = len(text)
        while kept < len(draft) and draft[kept] == base(draft[:kept]).argmax():
            kept += 1
        if bonus or kept < len(draft):
            text = [*draft[:kept], int(base(draft[:kept]).argmax())]
        else:
            text = draft
        steps += 1
    return text[len(context) :][: new if cut else None], steps


def plain(model, context, new):
    text = list(context)
    for _ in range(new):
        text.append(int(model(text).argmax()))
    return text[len(context) :]


LOOPS = {
    "the drafter writes alone": lambda b, d, c, n, k: (plain(d, c, n), 1),
    "cut what is too much": lambda b, d, c, n, k: (plain(b, c, n + 2), 1),
    "where 40 were asked for.": lambda b, d, c, n, k: (plain(b, c, n - 2), 1),
    "no draft is kept": lambda b, d, c, n, k: (plain(b, c, n), n),
    "kept to its end is missing": lambda b, d, c, n, k: speculate(b, d, c, n, k, bonus=False),
    "the tokens are right, and they took 3 steps": lambda b, d, c, n, k: (plain(b, c, n), 3),
    "the first 5 tokens": lambda b, d, c, n, k: ([*plain(b, c, 5), -1, *plain(b, c, n - 6)], 9),
    "give the new ones only": lambda b, d, c, n, k: ([*c, *plain(b, c, n)], 3),
    "two things": lambda b, d, c, n, k: plain(b, c, n),
}


@pytest.mark.parametrize("seed", range(3))
def test_the_greedy_loop_is_right(seed):
    assert verification.speculation(speculate, seed=seed, new=30 + seed, drafted=2 + seed).right


@pytest.mark.parametrize("says", LOOPS)
def test_each_wrong_loop_is_named(says):
    finding = verification.speculation(LOOPS[says], seed=1)
    assert not finding.right
    assert says in finding.text
