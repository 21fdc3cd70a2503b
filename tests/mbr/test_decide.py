"""The risk of every hypothesis and the minimiser."""

import numpy as np
import pytest
from hypothesis import given, settings
from sacrebleu.metrics import CHRF

from labkit.errors import LabkitError
from labkit.mbr.decide import decode, expected_loss, minimiser
from labkit.records import RiskTable, Sample

from .strategies import sample_lists

DRAWN = [
    Sample(text="a cat sat on the mat", logprob=-2.0, tokens=6),
    Sample(text="the cat sat on a mat", count=3, logprob=-3.0, tokens=6),
    Sample(text="dogs bark", logprob=-4.0, tokens=2),
    Sample(text="a cat sat on the mat", logprob=-2.0, tokens=6),
]


@pytest.mark.parametrize("weighting", ["uniform", "counts", "model", "unique"])
def test_risk_is_the_weighted_loss_by_sacrebleu(weighting):
    table = decode(DRAWN, weighting=weighting)
    metric = CHRF()
    for hypothesis, risk in zip(table.hypotheses, table.risk, strict=True):
        loss = [
            1 - metric.sentence_score(hypothesis.text, [e.text]).score / 100 for e in table.evidence
        ]
        assert risk == pytest.approx(np.dot(table.weights, loss), abs=1e-9)
    assert table.best == int(np.argmin(table.risk))


@settings(deadline=None, max_examples=40)
@given(hypotheses=sample_lists, evidence=sample_lists)
def test_the_record_survives_a_round_trip_and_names_the_least_risk(hypotheses, evidence):
    table = decode(hypotheses, evidence, utility="bleu", weighting="model")
    assert RiskTable.from_json(table.to_json()) == table
    assert table.risk[table.best] == min(table.risk)
    assert min(table.risk) not in table.risk[: table.best]


def test_exact_match_under_counts_decides_for_the_most_frequent():
    table = decode(DRAWN, utility="exact", weighting="counts")
    assert table.hypotheses[table.best].text == "the cat sat on a mat"
    np.testing.assert_allclose(table.risk, [1 - 2 / 6, 1 - 3 / 6, 1 - 1 / 6])


def test_exact_match_under_model_weights_decides_for_the_mode():
    table = decode(DRAWN, utility="exact", weighting="model")
    assert table.hypotheses[table.best].text == "a cat sat on the mat"


def test_evidence_can_be_another_set_than_the_hypotheses():
    table = decode(DRAWN, [Sample(text="dogs bark loudly")])
    assert table.hypotheses[table.best].text == "dogs bark"
    assert len(table.hypotheses) == 3
    assert len(table.evidence) == 1


def test_a_single_empty_sample_has_a_defined_risk():
    table = decode([Sample(text="")])
    assert (table.risk, table.best) == ((1.0,), 0)


def test_identical_samples_are_one_hypothesis_without_risk():
    table = decode([Sample(text="same")] * 5)
    assert table.risk == (0.0,)
    assert len(table.evidence) == 5


def test_ties_go_to_the_first():
    assert minimiser(np.array([0.5, 0.25, 0.25])) == 1


def test_equal_rows_have_equal_risk_to_the_last_bit():
    rng = np.random.default_rng(0)
    row, weights = rng.random(1001), rng.random(1001)
    risk = expected_loss(np.stack([row] * 7), weights / weights.sum())
    assert len(set(risk.tolist())) == 1


@pytest.mark.parametrize(
    ("loss", "weights", "says"),
    [
        (np.zeros((2, 3)), [0.5, 0.5], "2 weights were given for 3 evidence items"),
        (np.zeros((1, 2)), [0.5, 0.6], "sum to 1.1"),
        (np.zeros((1, 2)), [1.5, -0.5], "-0.5"),
        (np.zeros((0, 2)), [0.5, 0.5], "shape"),
        (np.zeros(2), [0.5, 0.5], "shape"),
        (np.array([[np.nan, 0]]), [0.5, 0.5], "finite"),
        (np.zeros((1, 2)), [np.nan, 1], "sum to"),
    ],
)
def test_what_has_no_risk_is_said_in_one_sentence(loss, weights, says):
    with pytest.raises(LabkitError, match=says):
        expected_loss(loss, np.array(weights))


def test_no_hypotheses_is_refused():
    with pytest.raises(LabkitError, match="at least one"):
        decode([])


@pytest.mark.parametrize(("ill", "best"), [(0.1, "wait"), (0.3, "treat"), (0.9, "treat")])
def test_a_dear_mistake_is_avoided_long_before_it_is_likely(ill, best):
    # treating costs 0.2 (1 - p), waiting p: treat above p = 1/6
    risk = expected_loss(np.array([[0.0, 0.2], [1.0, 0.0]]), np.array([ill, 1 - ill]))
    assert ("treat", "wait")[minimiser(risk)] == best


def test_under_zero_one_loss_the_most_probable_class_wins():
    risk = expected_loss(1 - np.eye(3), np.array([0.25, 0.45, 0.3]))
    assert minimiser(risk) == 1
    assert risk == pytest.approx((0.75, 0.55, 0.7))
