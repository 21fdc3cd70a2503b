"""Beyond one best text: uncertainty, sets, clusters, the family of decoders, errors, mixtures."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import LabkitError
from labkit.mbr.decide import choose, decode
from labkit.mbr.evaluate import Edit, compare_on_edits, read_edits
from labkit.mbr.family import (
    Member,
    choose_as,
    decoders,
    most_frequent,
    most_probable,
    nothing,
    same_answer,
)
from labkit.mbr.pairs import Case
from labkit.mbr.sets import (
    best_set,
    best_singles,
    cluster_texts,
    compare_sets,
    decide_in_cluster,
    diverse_set,
    set_risk,
)
from labkit.mbr.uncertainty import (
    answered,
    compare_areas,
    confidences,
    decompose,
    error_of,
    judge,
    risk_coverage,
    threshold_for,
)
from labkit.mbr.utilities.learned import hidden_states, of_model
from labkit.mbr.weights import pool, weigh
from labkit.records import Sample

from .models import llama, marian
from .strategies import sample_lists

CERTAIN = [(Sample(text="a", count=3, logprob=-0.1, tokens=2),)]
EMPTY = [(Sample(text="", logprob=-0.1, tokens=1), Sample(text="b", logprob=-3.0, tokens=2))]
ONE = [(Sample(text="a b c", logprob=-1.0, tokens=4),)]
EDGES = pytest.mark.parametrize("drawn", CERTAIN + EMPTY + ONE, ids=("same", "empty", "one"))


def finite(value):
    """Every number within a nest of tuples, dictionaries and dataclasses is finite."""
    if isinstance(value, (float, int)):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, (list, tuple, np.ndarray)):
        return all(map(finite, value))
    return finite(vars(value)) if hasattr(value, "__dataclass_fields__") else True


# Uncertainty


def area_by_all_orders(confidence, loss):
    """The mean area over every order of the decisions that sorts their confidence."""
    areas = []
    for order in itertools.permutations(range(len(loss))):
        sure = [confidence[i] for i in order]
        if sure == sorted(sure, reverse=True):
            lost = np.array([loss[i] for i in order])
            areas.append(np.mean(np.cumsum(lost) / np.arange(1, len(lost) + 1)))
    return np.mean(areas)


@given(
    st.lists(st.tuples(st.sampled_from([0.1, 0.5, 0.9]), st.floats(0, 1)), min_size=1, max_size=6)
)
@settings(max_examples=60, deadline=None)
def test_the_area_is_the_mean_over_all_orders_of_equal_confidence(pairs):
    confidence, loss = zip(*pairs, strict=True)
    expected = area_by_all_orders(confidence, loss)
    assert risk_coverage(confidence, loss).area == pytest.approx(expected)


def test_a_confidence_that_says_nothing_has_the_mean_loss_at_every_coverage():
    curve = risk_coverage([0.3] * 4, [0.0, 1.0, 0.5, 0.1])
    np.testing.assert_allclose(curve.risk, 0.4)
    np.testing.assert_allclose(curve.coverage, [0.25, 0.5, 0.75, 1.0])


def test_a_perfect_confidence_has_the_smallest_area_and_its_opposite_the_largest():
    loss = np.random.default_rng(0).random(30)
    rows = compare_areas({"right": -loss, "none": loss * 0, "wrong": loss}, loss, resamples=200)
    right, none, wrong = rows
    assert right.area < none.area < wrong.area
    assert none.excess_low > 0
    assert all(row.low <= row.area <= row.high for row in rows)


def test_abstaining_keeps_the_loss_below_what_was_asked():
    confidence, loss = [0.9, 0.8, 0.8, 0.1], [0.0, 0.1, 0.5, 1.0]
    threshold = threshold_for(confidence, loss, 0.2)
    assert answered(confidence, threshold).tolist() == [True, True, True, False]
    assert threshold_for(confidence, loss, 0.1) == 0.9  # equal ones are answered together or not
    assert threshold_for(confidence, [1.0] * 4, 0.5) == math.inf


@EDGES
def test_confidences_of_any_decision_are_finite(drawn):
    assert finite(confidences(decode(drawn, weighting="counts")))


def test_identical_samples_are_the_surest_decision():
    sure = confidences(decode(CERTAIN[0]))["minimum risk"]
    assert sure == 1
    assert sure > confidences(decode(EMPTY[0]))["minimum risk"]


def test_judged_cases_carry_the_true_loss():
    cases = [Case("x", "a", CERTAIN[0]), Case("y", "zzz", CERTAIN[0])]
    found = judge(cases)
    assert found.loss == [0.0, 1.0]
    assert set(found.scores) == {
        "minimum risk",
        "log-probability",
        "log-probability per token",
        "random",
    }


@pytest.mark.parametrize(
    ("confidence", "loss", "says"),
    [([], [], "at least one"), ([1.0], [], "one of each"), ([math.nan], [0.0], "finite")],
)
def test_what_makes_no_curve_gets_one_sentence(confidence, loss, says):
    with pytest.raises(LabkitError, match=says):
        risk_coverage(confidence, loss)


# Sets


def matrices(many=7, much=9, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((many, much)), rng.dirichlet(np.ones(much))


@pytest.mark.parametrize("seed", range(12))
def test_the_greedy_set_gains_at_least_its_guaranteed_share_of_the_best(seed):
    loss, weights = matrices(seed=seed)
    gain = {
        chosen: 1 - set_risk(loss, weights, chosen)
        for chosen in itertools.combinations(range(7), 3)
    }
    greedy = 1 - set_risk(loss, weights, best_set(loss, weights, 3))
    assert (1 - 1 / math.e) * max(gain.values()) <= greedy <= max(gain.values()) + 1e-12


def test_a_set_grows_by_what_it_lacks_and_singles_by_what_they_have():
    loss = np.array([[0.0, 0.0, 0.9], [0.0, 0.1, 0.9], [0.9, 0.9, 0.0]])
    weights = np.array([0.4, 0.3, 0.3])
    assert best_set(loss, weights, 2) == (0, 2)
    assert best_singles(loss, weights, 2) == (0, 1)
    alike = 1 - np.array([[0.0, 0.1, 0.9], [0.1, 0.0, 0.9], [0.9, 0.9, 0.0]])
    assert diverse_set(loss, weights, alike, 2, 0.0) == (0, 1)
    assert diverse_set(loss, weights, alike, 2, 1.0) == (0, 2)


def test_a_set_adds_no_twin_while_anything_else_helps():
    loss = np.array([[0.1, 0.9], [0.1, 0.9], [0.9, 0.5]])
    assert best_set(loss, np.array([0.9, 0.1]), 2) == (0, 2)


def test_a_set_of_one_is_the_minimiser_and_a_large_set_takes_all():
    loss, weights = matrices()
    assert best_set(loss, weights, 1) == (int((loss @ weights).argmin()),)
    assert sorted(best_set(loss, weights, 99)) == list(range(7))


@EDGES
@pytest.mark.parametrize("size", [1, 3])
def test_sets_of_any_samples_are_scored_without_nan(drawn, size):
    rows = compare_sets([Case("x", "a", drawn), Case("y", "", drawn)], size, resamples=20)
    assert finite(rows)
    assert rows[1].risk <= rows[0].risk + 1e-12


# Clusters

TWO_WAYS = (
    Sample(text="Turn left at the church and go straight on.", count=3),
    Sample(text="Turn left at the church, then go straight on.", count=1),
    Sample(text="Follow the river until you see a white mill.", count=3),
    Sample(text="Turn left at the church until you see a white mill.", count=2),
)
"""Two ways to the same place, and a blend of both, which leads nowhere."""


def test_plain_mbr_picks_the_average_that_pleases_nobody_and_clusters_do_not():
    found = decide_in_cluster(TWO_WAYS, 0.3)
    assert found.hypotheses[found.plain].text == TWO_WAYS[3].text
    assert found.hypotheses[found.best].text == TWO_WAYS[0].text
    assert found.cluster == (0, 0, 1, 2)
    assert found.mass == pytest.approx((4 / 9, 3 / 9, 2 / 9))


@given(sample_lists, st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_clusters_share_out_the_weight_and_hold_the_choice(drawn, distance):
    found = decide_in_cluster(drawn, distance)
    assert finite(found.risk)
    assert sum(found.mass) == pytest.approx(1)
    assert list(found.mass) == sorted(found.mass, reverse=True)
    assert found.cluster[found.best] == 0
    assert set(found.cluster) == set(range(len(found.mass)))


def test_one_cluster_is_plain_mbr_and_single_texts_are_the_most_frequent():
    drawn = [Sample(text=t, count=c) for t, c in (("a b c", 2), ("a b d", 2), ("x", 3))]
    whole = decide_in_cluster(drawn, 1.0)
    assert whole.best == whole.plain
    alone = decide_in_cluster(drawn, 0.0)
    assert alone.hypotheses[alone.best] == most_frequent(drawn)


@EDGES
def test_clusters_of_any_samples_are_without_nan(drawn):
    assert finite(decide_in_cluster(drawn))


def test_a_distance_that_cannot_be_is_named():
    with pytest.raises(LabkitError, match=r"distance is 1\.5"):
        cluster_texts(np.eye(2), 1.5)


# The family


@given(sample_lists)
@settings(max_examples=60, deadline=None)
def test_the_family_holds_map_the_most_frequent_and_mbr(drawn):
    chosen = {one.name: choose_as(drawn, one) for one in decoders()}
    top = chosen["MAP among the samples"].text
    probability = {s.text: w for s, w in zip(*weigh(drawn, "model"), strict=True)}
    assert probability[top] == pytest.approx(probability[most_probable(drawn).text])
    assert chosen["most frequent sample"].text == most_frequent(drawn).text
    mbr = choose_as(drawn, Member("MBR", "chrf", "counts"))
    table = decode(drawn, weighting="counts")
    assert mbr.value == pytest.approx(1 - min(table.risk))
    assert finite([one.value for one in chosen.values()])


def test_exact_match_on_extracted_answers_is_the_majority_vote():
    drawn = [Sample(text=t) for t in ("so 4", "thus 4", "it is 5", "5 ", "no idea", "4!")]
    vote = same_answer(lambda text: "".join(c for c in text if c.isdigit()))
    assert choose_as(drawn, Member("vote", vote, "counts")).text == "so 4"
    assert choose_as([Sample(text="")], Member("vote", vote, "counts")).value == 0


def test_a_score_alone_is_best_of_n_and_added_to_a_utility_it_tilts_the_choice():
    drawn = [Sample(text="a b c", count=3), Sample(text="a b"), Sample(text="z z z z")]
    longest = lambda sample: len(sample.text)  # noqa: E731
    assert choose_as(drawn, Member("best of n", nothing, "counts", longest)).text == "z z z z"
    tilted = [
        choose_as(drawn, Member("both", "chrf", "counts", longest, strength)).text
        for strength in (0, 1)
    ]
    assert tilted == [choose(drawn).text, "z z z z"]
    with pytest.raises(LabkitError, match="finite"):
        choose_as(drawn, Member("bad", "chrf", "counts", lambda sample: math.nan))


# Errors of the estimate, mixtures of evidence, edits


@given(st.integers(0, 1000), st.integers(1, 6), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_error_is_bias_minus_diversity(seed, many, much):
    utility, weights = matrices(many, much, seed)
    true = np.random.default_rng(seed + 1).random(many)
    parts = decompose(utility, weights, true)
    assert parts.error == pytest.approx(parts.bias - parts.diversity, abs=1e-12)
    assert parts.error == pytest.approx(float(((utility @ weights - true) ** 2).mean()))
    assert min(parts.error, parts.bias, parts.diversity) >= 0


def test_identical_evidence_has_no_diversity():
    parts = error_of([Case("x", "a b d", CERTAIN[0]), Case("y", "a", CERTAIN[0])])
    assert parts.diversity == pytest.approx(0)
    assert parts.error == pytest.approx(parts.bias)


@EDGES
def test_the_error_of_any_samples_is_finite(drawn):
    assert finite(error_of([Case("x", "", drawn)], [EMPTY[0]]))


@given(sample_lists, sample_lists, st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_pooled_evidence_is_the_mixture_of_both_distributions(one, other, share):
    items, weights = pool([one, other], [share, 1 - share])
    assert weights.sum() == pytest.approx(1)
    assert len({item.text for item in items}) == len(items)
    table = decode([*one, *other], items, weights=weights, weighting="counts")
    risks = {}
    for part in (one, other):
        alone = decode([*one, *other], part, weighting="counts")
        risks[id(part)] = np.array(alone.risk)
    expected = share * risks[id(one)] + (1 - share) * risks[id(other)]
    np.testing.assert_allclose(table.risk, expected, atol=1e-9)


@pytest.mark.parametrize("shares", [[1], [0, 0], [-1, 2], [math.nan, 1]])
def test_shares_that_cannot_be_are_named(shares):
    with pytest.raises(LabkitError, match="shares"):
        pool([CERTAIN[0], ONE[0]], shares)


def test_a_utility_that_follows_meaning_is_told_from_one_that_follows_letters():
    edits = read_edits()
    assert len(edits) == 24
    kept = {edit.preserving for edit in edits}

    def meaning(hypotheses, evidence):
        return np.array([[float(h in kept or h in evidence) for _ in evidence] for h in hypotheses])

    letters, oracle = compare_on_edits({"chrf": "chrf", "meaning": meaning}, edits)
    assert letters.share < 0.1 and letters.preserving < letters.changing
    assert oracle.share == 1
    tie = compare_on_edits(["exact"], [Edit("a", "b", "c")])
    assert (tie[0].share, tie[0].low, tie[0].high) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("make", [llama, marian])
def test_hidden_states_are_the_mean_over_a_texts_own_tokens_whatever_stands_next_to_it(make):
    base = make()
    base.config, base.device, base.name = base.module.config, base.module.device, "tiny"
    base.encode = lambda text, chat=False: [2 + int(word) for word in text.split()]
    encode = hidden_states(base)
    together = encode(["1 2 3", "", "4 5 6 7 8", "9"])
    np.testing.assert_allclose(together[0], encode(["1 2 3"])[0], atol=1e-5)
    assert not together[1].any() and together[3].any()
    inputs = torch.tensor([base.encode("1 2 3")])
    if base.config.is_encoder_decoder:
        states = base.module.get_encoder()(input_ids=inputs).last_hidden_state
    else:
        states = base.module(inputs, output_hidden_states=True).hidden_states[-1]
    np.testing.assert_allclose(together[0], states[0].mean(0).detach(), atol=1e-5)
    utility = of_model(base)
    assert utility(["1 2", ""], ["1 2", ""]).diagonal() == pytest.approx([1, 0.5])
