"""How samples stand for p(y|x)."""

import math

import numpy as np
import pytest
from hypothesis import given

from labkit.errors import LabkitError
from labkit.mbr.weights import distinct, weigh
from labkit.records import Sample

from .strategies import sample_lists

DRAWN = [
    Sample(text="a", count=2, logprob=math.log(0.5), tokens=1),
    Sample(text="b", logprob=math.log(0.2), tokens=2),
    Sample(text="a", logprob=math.log(0.5), tokens=1),
]


@pytest.mark.parametrize("weighting", ["uniform", "counts", "model", "unique"])
@given(drawn=sample_lists)
def test_weights_sum_to_one_and_number_the_evidence(weighting, drawn):
    evidence, weights = weigh(drawn, weighting)
    assert len(evidence) == len(weights)
    assert np.all(weights >= 0)
    assert weights.sum() == pytest.approx(1, abs=1e-12)


def test_uniform_lists_duplicates_as_often_as_drawn():
    evidence, weights = weigh(DRAWN, "uniform")
    assert [item.text for item in evidence] == ["a", "a", "b", "a"]
    assert {item.count for item in evidence} == {1}
    np.testing.assert_allclose(weights, 1 / 4)


def test_counts_weigh_distinct_texts_by_how_often_they_were_drawn():
    evidence, weights = weigh(DRAWN, "counts")
    assert [(item.text, item.count) for item in evidence] == [("a", 3), ("b", 1)]
    np.testing.assert_allclose(weights, [3 / 4, 1 / 4])


def test_unique_forgets_the_counts():
    np.testing.assert_allclose(weigh(DRAWN, "unique")[1], [1 / 2, 1 / 2])


def test_model_renormalises_probability_over_distinct_texts():
    np.testing.assert_allclose(weigh(DRAWN, "model")[1], [5 / 7, 2 / 7])


def test_temperature_flattens_and_length_power_divides_by_tokens():
    flat = np.sqrt([0.5, 0.2])
    np.testing.assert_allclose(weigh(DRAWN, "model", temperature=2)[1], flat / flat.sum())
    per_token = np.array([0.5, math.sqrt(0.2)])
    weights = weigh(DRAWN, "model", length_power=1)[1]
    np.testing.assert_allclose(weights, per_token / per_token.sum())


def test_model_weights_survive_probabilities_that_underflow():
    tiny = [Sample(text="a", logprob=-2000.0), Sample(text="b", logprob=-2001.0)]
    np.testing.assert_allclose(weigh(tiny, "model")[1], [1 / (1 + math.exp(-1)), 0.26894142])


@given(drawn=sample_lists)
def test_counts_and_uniform_are_the_same_distribution_over_texts(drawn):
    listed, uniform = weigh(drawn, "uniform")
    merged, counts = weigh(drawn, "counts")
    for item, weight in zip(merged, counts, strict=True):
        total = sum(w for one, w in zip(listed, uniform, strict=True) if one.text == item.text)
        assert total == pytest.approx(weight)


def test_equal_texts_keep_the_larger_log_probability():
    drawn = [Sample(text="a", logprob=-3.0), Sample(text="a", logprob=-1.0), Sample(text="a")]
    assert distinct(drawn) == (Sample(text="a", count=3, logprob=-1.0),)


@pytest.mark.parametrize(
    ("drawn", "weighting", "options", "says"),
    [
        ([], "uniform", {}, "at least one"),
        (DRAWN, "fair", {}, "'fair'; there are uniform"),
        ([Sample(text="a" * 99)], "model", {}, "'a{39}…' has no log-probability"),
        ([Sample(text="a", logprob=-1.0)], "model", {"length_power": 1}, "no token count"),
        (DRAWN, "model", {"temperature": 0}, "must be positive"),
        (DRAWN, "model", {"temperature": math.nan}, "must be positive"),
    ],
)
def test_what_cannot_be_weighed_is_said_in_one_sentence(drawn, weighting, options, says):
    with pytest.raises(LabkitError, match=says):
        weigh(drawn, weighting, **options)
