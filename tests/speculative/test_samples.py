"""Samples for a Bayes decision, drawn by speculation."""

from __future__ import annotations

import pytest

from labkit import Decoder, LabkitError, Sampling
from labkit.mbr.decide import decode
from labkit.speculative.drafters.mlp import MLPDrafter
from labkit.speculative.samples import draw_samples


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return Decoder("tiny")


def test_the_samples_are_ready_for_a_decision(decoder):
    drawn = draw_samples(decoder, "Hello! How are", 6, 8)
    assert len(drawn.samples) == 6
    assert all(sample.logprob < 0 and 1 <= sample.tokens <= 8 for sample in drawn.samples)
    assert decode(drawn.samples, utility="chrf", weighting="model").best in range(6)


def test_the_same_seed_draws_the_same_samples_and_another_draws_others(decoder):
    first, again, other = (
        draw_samples(decoder, "Hello! How are", 4, 8, seed=seed).samples for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_drafts_make_the_passes_fewer_whoever_drafts(decoder):
    warm = Sampling(temperature=0.3)
    chain = MLPDrafter(decoder.heads, max_nodes=1, width=1, top_k=1)
    plain, tree, own = (
        draw_samples(decoder, "The people of the United States", 4, 24, warm, method=method)
        for method in ("vanilla", "mlp", chain)
    )
    assert plain.samples == tree.samples == own.samples
    assert plain.passes == 24  # the prompt's pass gives the first token
    assert 8 <= tree.passes < own.passes < plain.passes  # one draft gives two tokens at the most
    assert own.passes >= 12


def test_a_strange_way_to_draw_is_named(decoder):
    with pytest.raises(LabkitError, match="no method 'guess'"):
        draw_samples(decoder, "Hello", 2, 4, method="guess")


@pytest.mark.parametrize(
    ("count", "sampling", "says"), [(0, None, "at least 1"), (2, Sampling(), "temperature")]
)
def test_a_count_below_one_and_greedy_decoding_are_refused(decoder, count, sampling, says):
    with pytest.raises(LabkitError, match=says):
        draw_samples(decoder, "Hello", count, 4, sampling)
