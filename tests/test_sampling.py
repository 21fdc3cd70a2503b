"""Filters keep what transformers' own keep, and always something."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import EpsilonLogitsWarper, MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from labkit import LabkitError, Sampling, sampling

LOGITS = torch.randn(200, 37, generator=torch.Generator().manual_seed(0)) * 3


@pytest.mark.parametrize("many", [1, 5, 37, 99])
def test_top_k_equals_transformers(many):
    torch.testing.assert_close(sampling.top_k(LOGITS, many), TopKLogitsWarper(many)(None, LOGITS))


@pytest.mark.parametrize("mass", [0.01, 0.5, 0.9, 0.999])
def test_top_p_equals_transformers(mass):
    torch.testing.assert_close(sampling.top_p(LOGITS, mass), TopPLogitsWarper(mass)(None, LOGITS))


@pytest.mark.parametrize("least", [0.001, 0.02, 0.9])
def test_epsilon_equals_transformers(least):
    ours = sampling.epsilon(LOGITS, least)
    torch.testing.assert_close(ours, EpsilonLogitsWarper(least)(None, LOGITS))


@pytest.mark.parametrize("share", [0.001, 0.05, 0.9])
def test_min_p_equals_transformers(share):
    torch.testing.assert_close(sampling.min_p(LOGITS, share), MinPLogitsWarper(share)(None, LOGITS))


@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=9), st.floats(0.001, 0.999))
def test_the_most_probable_token_always_stays(row, value):
    logits = torch.tensor([row])
    for kept in (
        sampling.top_k(logits, 1),
        sampling.top_p(logits, value),
        sampling.min_p(logits, value),
        sampling.epsilon(logits, value),
        sampling.temperature(logits, value),
    ):
        assert torch.isfinite(kept[0, logits.argmax()])
        assert not torch.isnan(kept).any()


def test_temperature_is_a_power_of_the_probabilities():
    p = torch.tensor([[0.7, 0.2, 0.1]])
    cold = sampling.temperature(p.log(), 0.5).softmax(-1)
    torch.testing.assert_close(cold, p**2 / (p**2).sum())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"temperature": -1}, "temperature is -1"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"temperature": 1e-39}, "temperature is 1e-39; it must be 0, or at least 1e-06"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"min_p": 1}, "min_p is 1"),
        ({"epsilon": 1}, "epsilon is 1"),
    ],
)
def test_settings_that_cannot_be_are_named(settings, says):
    with pytest.raises(LabkitError, match=says):
        Sampling(**settings)


def test_greedy_gives_all_probability_to_the_first_of_the_most_probable_tokens():
    tied = torch.tensor([[1.0, 3.0, 3.0], [2.0, 0.0, 1.0]])
    assert Sampling().probabilities(tied).tolist() == [[0, 1, 0], [1, 0, 0]]


def test_filters_are_applied_in_transformers_order():
    how = Sampling(temperature=1.7, top_k=20, top_p=0.9, min_p=0.02, epsilon=0.03)
    expected = TopPLogitsWarper(0.9)(None, TopKLogitsWarper(20)(None, LOGITS.double() / 1.7))
    expected = EpsilonLogitsWarper(0.03)(None, MinPLogitsWarper(0.02)(None, expected))
    torch.testing.assert_close(how.probabilities(LOGITS), expected.softmax(-1))
