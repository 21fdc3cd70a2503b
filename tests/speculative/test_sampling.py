"""Sampling with drafts gives the base model's own distribution, and the test can tell if not.

Every comparison is a chi-square test over all texts of three tokens, its seed fixed. A correct
program would fail one such test by chance with probability `ALARM`; a planted bug must be so far
off that chance would do it with less than `CERTAIN`, on as many samples of the same drafts.
"""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from labkit.sampling import Sampling
from labkit.speculative import verify
from labkit.speculative.generate import generate
from labkit.speculative.tree import Draft, chain
from tests.speculative.fakes import Dice, ToyEngine

ALARM = 1e-3
CERTAIN = 1e-6
SAMPLES = 1200
VOCABULARY = 4
PROMPT = [2, 0]

DRAFTS: dict[str, tuple[tuple[int, ...], tuple[bool, ...]]] = {
    "chain, drawn": ((1, 1), (True, True)),
    "chain, outright": ((1, 1), (False, False)),
    "tree, drawn": ((3, 2), (True, True)),
    "tree, outright": ((2, 2), (False, False)),
    "tree, drawn then outright": ((2, 2), (True, False)),
    "whole vocabulary, drawn": ((4, 1), (True, True)),
}


def expected_shares(engine: ToyEngine, how: Sampling, length: int) -> dict[tuple[int, ...], float]:
    """The base model's probability of every text of ``length`` tokens after the prompt."""
    shares = {}
    for text in product(range(engine.vocabulary), repeat=length):
        share = 1.0
        for i, token in enumerate(text):
            before = (*PROMPT, *text[:i])
            share *= float(how.probabilities(engine.after(before)[None])[0, token])
        shares[text] = share
    return shares


def chance(
    engine: ToyEngine, drafter: Any, how: Sampling, samples: int, seed: int = 5, beyond: int = 2
) -> float:
    """The chi-square test's p-value: how often chance alone would be as far off as this.

    ``beyond`` more tokens are generated and left out: drafts are cut at the end of an output.
    """
    generator = torch.Generator().manual_seed(seed)
    length = 3
    seen = Counter(
        tuple(generate(engine, PROMPT, length + beyond, drafter, how, generator=generator).tokens)[
            :length
        ]
        for _ in range(samples)
    )
    shares = expected_shares(engine, how, length)
    common = [text for text, share in shares.items() if share * samples >= 5]
    counts = [seen[text] for text in common]
    hopes = [shares[text] * samples for text in common]
    rest, rest_hope = samples - sum(counts), samples - sum(hopes)
    if rest_hope > 1:
        counts, hopes = [*counts, rest], [*hopes, rest_hope]
    elif rest > 10 * max(rest_hope, 0.1):
        return 0.0  # texts that the base model never writes
    scale = sum(counts) / sum(hopes)
    return float(chisquare(counts, [hope * scale for hope in hopes]).pvalue)


@pytest.mark.parametrize(
    ("kind", "temperature"),
    [
        *((kind, 1.0) for kind in DRAFTS),
        *((kind, t) for kind in ("chain, drawn", "tree, drawn") for t in (0.6, 1.8)),
    ],
)
def test_distribution_is_the_base_models_own(kind: str, temperature: float) -> None:
    shape, drawn = DRAFTS[kind]
    engine, drafter = ToyEngine(VOCABULARY), Dice(VOCABULARY, shape, drawn)
    assert chance(engine, drafter, Sampling(temperature=temperature), SAMPLES) > ALARM


@pytest.mark.parametrize(
    "how",
    [
        Sampling(temperature=1.0, top_k=2),
        Sampling(temperature=1.3, top_p=0.7),
        Sampling(temperature=1.5, min_p=0.3),
    ],
    ids=["top-k", "top-p", "min-p"],
)
def test_distribution_is_the_base_models_own_under_filters(how: Sampling) -> None:
    shape, drawn = DRAFTS["tree, drawn"]
    engine, drafter = ToyEngine(VOCABULARY), Dice(VOCABULARY, shape, drawn)
    assert chance(engine, drafter, how, SAMPLES) > ALARM


@pytest.mark.parametrize("kind", DRAFTS)
def test_distribution_is_the_base_models_own_where_drafts_are_cut_to_the_room_left(
    kind: str,
) -> None:
    shape, drawn = DRAFTS[kind]
    engine, drafter = ToyEngine(VOCABULARY), Dice(VOCABULARY, shape, drawn)
    how = Sampling(temperature=1.0)
    assert chance(engine, drafter, how, SAMPLES, beyond=0) > ALARM
    assert chance(engine, drafter, how, SAMPLES, beyond=1) > ALARM


def not_renormalised(p: torch.Tensor, q: torch.Tensor | None, x: int) -> torch.Tensor:
    taken = torch.nn.functional.one_hot(torch.tensor(x), len(p)) if q is None else q
    left = (p - taken).clamp_min(0)
    return left if left.sum() > 0 else p


def swapped(p: torch.Tensor, q: torch.Tensor | None, x: int) -> torch.Tensor:
    left = (torch.nn.functional.one_hot(torch.tensor(x), len(p)) if q is None else q) - p
    left = left.clamp_min(0)
    return left / left.sum() if left.sum() > 0 else p


def mass_kept(p: torch.Tensor, q: torch.Tensor | None, x: int) -> torch.Tensor:
    return p


BUGS = {
    "residual not renormalised, siblings drawn": ("residual", not_renormalised, "tree, drawn"),
    "residual not renormalised, siblings outright": (
        "residual",
        not_renormalised,
        "tree, outright",
    ),
    "p and q swapped in the residual": ("residual", swapped, "chain, drawn"),
    "p and q swapped in the test": ("acceptance", lambda p, q: min(1, q / p), "chain, drawn"),
    "rejected token's mass not removed from p": ("residual", mass_kept, "chain, drawn"),
    "sibling's mass not removed from q": ("without", lambda q, x: q, "tree, drawn"),
    "every draft accepted": ("acceptance", lambda p, q: 1.0, "chain, drawn"),
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bug_is_found_out(monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    name, wrong, kind = BUGS[bug]
    shape, drawn = DRAFTS[kind]
    engine, drafter = ToyEngine(VOCABULARY), Dice(VOCABULARY, shape, drawn)
    monkeypatch.setattr(verify, name, wrong)
    assert chance(engine, drafter, Sampling(temperature=1.0), SAMPLES) < CERTAIN


def test_typical_acceptance_leaves_the_base_models_distribution() -> None:
    how = Sampling(temperature=1.0, typical=True)
    engine = ToyEngine(VOCABULARY)
    drafter = Dice(VOCABULARY, (2, 2), (False, False))
    assert chance(engine, drafter, how, SAMPLES) < CERTAIN


def test_typical_acceptances_deviation_is_measured() -> None:
    probs = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.25] * 4], dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    draft = chain([1], "example")
    firsts = Counter()
    for _ in range(500):
        verdict = verify.typical_acceptance(probs, draft, generator)
        firsts[draft.tokens[0] if verdict.path else verdict.token] += 1
    shares = np.array([firsts[token] / 500 for token in range(4)])
    away = 0.5 * np.abs(shares - probs[0].numpy()).sum()
    assert away == pytest.approx(0.7)  # the draft is always taken, and p gives it 0.3


def test_typical_acceptance_takes_the_longest_path_above_its_bar() -> None:
    sure = torch.tensor([0.9, 0.1, 0.0, 0.0])
    even = torch.full((4,), 0.25)
    draft = Draft((1, 0, 2, 0), (-1, -1, 1, 2), (None,) * 4, ("",) * 4)
    probs = torch.stack([sure, even, even, sure, even])
    verdict = verify.typical_acceptance(probs, draft, torch.Generator().manual_seed(0))
    # Of the sure row's tokens 0.1 is above 0.09 / e^0.33; of an even one's, 0.25 above 0.0225
    assert verdict.path == (1, 2, 3)
    assert verdict.ending == "bonus"
    strict = verify.typical_acceptance(
        probs, draft, torch.Generator().manual_seed(0), epsilon=0.3, delta=2.0
    )
    assert strict.path == (1,)
    assert strict.ending == "replacement"


@given(
    weights=st.lists(st.floats(0.01, 1), min_size=5, max_size=5),
    others=st.lists(st.floats(0.01, 1), min_size=5, max_size=5),
)
@settings(deadline=None)
def test_acceptance_and_residual_together_are_p(weights: list[float], others: list[float]) -> None:
    """q(x) min(1, p/q) + P(reject) residual(x) = p(x): the identity that makes it lossless."""
    p, q = (torch.tensor(w, dtype=torch.float64) for w in (weights, others))
    p, q = p / p.sum(), q / q.sum()
    taken = torch.tensor(
        [float(q[x]) * verify.acceptance(float(p[x]), float(q[x])) for x in range(5)]
    ).double()
    left = verify.residual(p, q, 0)
    torch.testing.assert_close(taken + (1 - taken.sum()) * left, p, atol=1e-6, rtol=0)


def test_residual_of_equal_distributions_is_p_itself() -> None:
    p = torch.tensor([0.5, 0.5])
    assert torch.equal(verify.residual(p, p, 0), p)


def test_what_is_drawn_is_not_put_back() -> None:
    q = torch.tensor([0.5, 0.3, 0.2])
    torch.testing.assert_close(verify.without(q, 0), torch.tensor([0.0, 0.6, 0.4]))
    assert not verify.without(torch.tensor([0.0, 1.0]), 1).any()


def test_rejected_draft_is_replaced_by_a_token_that_the_draft_left_over() -> None:
    probs = torch.tensor([[0.0, 0.5, 0.5], [1.0, 0.0, 0.0]], dtype=torch.float64)
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        verdict = verify.speculative_sampling(probs, chain([0], "example"), generator)
        assert verdict.path == ()
        assert verdict.token in {1, 2}
        assert verdict.ending == "replacement"
        assert verdict.tests[0].p == 0


def test_record_of_a_test_holds_p_and_q_as_they_stood_at_its_turn() -> None:
    """Siblings 0 and 1 drawn from q: the second's test sees p and q without the first."""
    p = torch.tensor([[0.1, 0.6, 0.3], *[[1 / 3] * 3] * 2], dtype=torch.float64)
    q = torch.tensor([0.8, 0.1, 0.1], dtype=torch.float64)
    draft = Draft((0, 1), (-1, -1), (0.8, 0.1), ("", ""), {-1: (torch.arange(3), q)})
    for seed in range(30):
        verdict = verify.speculative_sampling(p, draft, torch.Generator().manual_seed(seed))
        first, *others = verdict.tests
        assert (first.p, first.q) == pytest.approx((0.1, 0.8))
        assert first.threshold == pytest.approx(0.125)
        assert first.accepted == (first.draw < first.threshold)
        if others:
            assert (others[0].p, others[0].q) == pytest.approx((0.5 / 0.7, 0.5))
            assert others[0].accepted


def brute_force(logits: np.ndarray, how: Sampling) -> np.ndarray:
    """Temperature, then top-k, top-p and min-p, one token after another in plain Python."""
    scaled = logits.astype(float) / how.temperature
    order = sorted(range(len(scaled)), key=lambda token: -scaled[token])
    kept = order[: how.top_k] if how.top_k else order
    mass = {token: np.exp(scaled[token] - scaled.max()) for token in kept}
    total = sum(mass.values())
    probs = {token: m / total for token, m in mass.items()}
    nucleus, so_far = {}, 0.0
    for token in kept:
        if so_far < how.top_p:
            nucleus[token] = probs[token]
        so_far += probs[token]
    top = max(nucleus.values())
    nucleus = {token: p for token, p in nucleus.items() if p >= how.min_p * top}
    result = np.zeros(len(scaled))
    for token, p in nucleus.items():
        result[token] = p / sum(nucleus.values())
    return result


@given(
    seed=st.integers(0, 1000),
    temperature=st.floats(0.2, 3),
    top_k=st.integers(0, 12),
    top_p=st.floats(0.1, 1),
    min_p=st.floats(0, 0.9),
)
@settings(max_examples=80, deadline=None)
def test_filters_are_those_of_the_definitions(
    seed: int, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    how = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    logits = np.random.default_rng(seed).normal(size=(3, 9)).astype(np.float32)
    got = how.probabilities(torch.from_numpy(logits))
    expected = np.stack([brute_force(row, how) for row in logits])
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-9)
