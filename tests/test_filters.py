"""Filters keep what transformers' own keep, and always something."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import EpsilonLogitsWarper, MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from labkit import filters

LOGITS = torch.randn(200, 37, generator=torch.Generator().manual_seed(0)) * 3


@pytest.mark.parametrize("many", [1, 5, 37, 99])
def test_top_k_equals_transformers(many):
    torch.testing.assert_close(filters.top_k(LOGITS, many), TopKLogitsWarper(many)(None, LOGITS))


@pytest.mark.parametrize("mass", [0.01, 0.5, 0.9, 0.999])
def test_top_p_equals_transformers(mass):
    torch.testing.assert_close(filters.top_p(LOGITS, mass), TopPLogitsWarper(mass)(None, LOGITS))


@pytest.mark.parametrize("least", [0.001, 0.02, 0.9])
def test_epsilon_equals_transformers(least):
    ours = filters.epsilon(LOGITS, least)
    torch.testing.assert_close(ours, EpsilonLogitsWarper(least)(None, LOGITS))


@pytest.mark.parametrize("share", [0.001, 0.05, 0.9])
def test_min_p_equals_transformers(share):
    torch.testing.assert_close(filters.min_p(LOGITS, share), MinPLogitsWarper(share)(None, LOGITS))


@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=9), st.floats(0.001, 0.999))
def test_the_most_probable_token_always_stays(row, value):
    logits = torch.tensor([row])
    for kept in (
        filters.top_k(logits, 1),
        filters.top_p(logits, value),
        filters.min_p(logits, value),
        filters.epsilon(logits, value),
        filters.temperature(logits, value),
    ):
        assert torch.isfinite(kept[0, logits.argmax()])
        assert not torch.isnan(kept).any()


def test_temperature_is_a_power_of_the_probabilities():
    p = torch.tensor([[0.7, 0.2, 0.1]])
    cold = filters.temperature(p.log(), 0.5).softmax(-1)
    torch.testing.assert_close(cold, p**2 / (p**2).sum())
