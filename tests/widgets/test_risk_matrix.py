from __future__ import annotations

import json

import numpy as np
import pytest
import sacrebleu
import traitlets
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.mbr.sets import annotate, best_set, cluster_texts
from labkit.mbr.uncertainty import Judged
from labkit.mbr.utilities import matrix
from labkit.mbr.weights import weigh
from labkit.plots import plot_beyond
from labkit.records import RecordError, RiskTable, Sample
from labkit.widgets import RiskMatrix
from labkit.widgets.risk_matrix import UTILITIES
from widgets.made import risk_table, sentences
from widgets.node import evaluate, run_tests

BEYOND = ("chosen_set", "clusters", "coverage")
"""What older records lack."""

LOSSES = """Object.fromEntries(Object.keys(m.UTILITIES).map((utility) =>
    [utility, [...m.lossRows(utility, data, data)].filter(Boolean).map((row) => [...row])]))"""

PIECES = (
    *("the", "cat", "sat", "on", "a", "b", "ab", "aa", "a.", *",.!?-/%&_^`~'\""),
    *("3.5", "1,000", "10-", "-5", "x-y", "...", "(hi)", "[x]", "don't", "“q”", "…", "ab.", "1."),
    *("&quot;", "&amp;lt;", "<skipped>", "-\n", "\n", "\t", "\x1c", "\x85", "\xa0", "\u3000"),
    *(
        "é",
        "e\u0301",
        "ß.",
        "中文字",
        "😀",
        "😀.",
        "👩🏽‍🚀",
        "\ufeff",
        "؟",
        "שלום",
        "नमस्ते",
        "\u200b",
    ),
)
texts = st.lists(
    st.tuples(st.sampled_from(PIECES), st.sampled_from(("", " ", "  "))), max_size=12
).map(lambda parts: "".join(piece + blank for piece, blank in parts))


def test_pure_functions_under_node():
    run_tests("risk_matrix")


@settings(max_examples=15, deadline=None)
@given(st.lists(texts, min_size=1, max_size=16))
def test_page_computes_what_sacrebleu_and_the_decoder_do(given_texts: list[str]):
    page = evaluate("risk_matrix/utilities.js", LOSSES, given_texts)
    assert tuple(page) == UTILITIES
    for utility, losses in page.items():
        decoder = 1 - matrix(utility, given_texts, given_texts)
        np.testing.assert_allclose(losses, decoder, atol=1e-6, err_msg=utility)
    peers = {
        "chrf": sacrebleu.CHRF(),
        "chrf++": sacrebleu.CHRF(word_order=2),
        "bleu": sacrebleu.BLEU(effective_order=True),
    }
    for utility, peer in peers.items():
        score = [
            [peer.sentence_score(one, [other]).score for other in given_texts]
            for one in given_texts
        ]
        np.testing.assert_allclose(
            1 - np.array(page[utility]), np.array(score) / 100, atol=1e-9, err_msg=utility
        )


samples = st.lists(
    st.builds(
        Sample,
        text=st.sampled_from("abcdef"),
        count=st.integers(1, 4),
        logprob=st.floats(-900, 0),
        tokens=st.integers(0, 30),
    ),
    min_size=1,
    max_size=10,
)


@settings(max_examples=8, deadline=None)
@given(samples, st.sampled_from((0.3, 1.0, 2.0)), st.sampled_from((0.0, 1.0)))
def test_page_weighs_as_the_decoder_does(
    drawn: list[Sample], temperature: float, power: float
) -> None:
    expression = """["uniform", "counts", "unique", "model"].map((weighting) => {
        const columns = m.columnsOf(data.samples, m.draws(data.samples, 3), weighting);
        const how = {temperature: data.temperature, power: data.power};
        return [weighting, columns.map((c) => c.text), [...m.weigh(columns, weighting, how)]];
    })"""
    page = evaluate(
        "risk_matrix/decide.js",
        expression,
        {
            "samples": [sample.model_dump() for sample in drawn],
            "temperature": temperature,
            "power": power,
        },
    )
    for weighting, listed, weights in page:
        evidence, expected = weigh(drawn, weighting, temperature=temperature, length_power=power)
        assert listed == [sample.text for sample in evidence], weighting
        np.testing.assert_allclose(weights, expected, atol=1e-12, err_msg=weighting)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.floats(0, 1))
def test_page_chooses_sets_and_clusters_as_the_decoder_does(seed, many, cut):
    rng = np.random.default_rng(seed)
    loss, weights = rng.random((many, many)), rng.dirichlet(np.ones(many))
    apart = (loss + loss.T) / 2
    np.fill_diagonal(apart, 0)
    data = {"loss": loss.tolist(), "weights": weights.tolist(), "apart": apart.tolist(), "cut": cut}
    page = evaluate(
        "risk_matrix/beyond.js",
        "[m.bestSet(data.loss, data.weights, 4), m.clusterOf(data.apart, data.cut)]",
        data,
    )
    assert page[0] == list(best_set(loss, weights, 4))
    assert page[1] == cluster_texts(1 - apart, cut).tolist()


def test_an_annotated_table_is_read_back_and_drawn_and_an_older_one_too():
    table = risk_table()
    older = {k: v for k, v in json.loads(table.to_json()).items() if k not in BEYOND}
    assert RiskTable.from_json(json.dumps(older)) == table
    judged = Judged({"minimum risk": [0.9, 0.2, 0.5]}, [0.1, 0.6, 0.2])
    full = annotate(table, 2, 0.3, judged)
    assert RiskTable.from_json(full.to_json()) == full
    assert full.chosen_set[0] == table.best
    assert [point.risk for point in full.coverage] == pytest.approx([0.1, 0.15, 0.3])
    for one in (table, full):
        curve, grows, kinds = plot_beyond(one).axes
        assert bool(curve.lines) == bool(grows.lines) * bool(one.coverage)
        assert bool(kinds.patches) == bool(one.clusters)
    with pytest.raises(RecordError, match="set or the clusters"):
        RiskTable.from_json(json.dumps({**older, "chosen_set": [99]}))


def test_a_new_matrix_shows_what_was_recorded():
    table = risk_table()
    matrix_ = RiskMatrix(table)
    assert (matrix_.utility, matrix_.weighting, matrix_.best) == ("chrf", "counts", table.best)
    assert (matrix_.samples, matrix_.left_out, matrix_.evidence) == (0, [], "samples")
    row, column = matrix_.selected
    assert row == table.best
    assert table.weights[column] == max(table.weights)


def test_another_record_takes_the_switches_back():
    matrix_ = RiskMatrix(risk_table(), utility="bleu", weighting="unique", samples=5)
    matrix_.record = risk_table(sentences(10, seed=2))
    assert (matrix_.utility, matrix_.weighting, matrix_.samples) == ("chrf", "counts", 0)


def test_state_may_be_given_at_the_start():
    matrix_ = RiskMatrix(risk_table(), weighting="model", temperature=2.0, selected=(1, 0))
    assert (matrix_.weighting, matrix_.temperature, matrix_.selected) == ("model", 2.0, (1, 0))


@pytest.mark.parametrize(
    ("trait", "value", "word"),
    [
        ("utility", "comet", "no utility named 'comet'"),
        ("weighting", "heavy", "heavy"),
        ("temperature", 0.0, "temperature lies between 0.1 and 32"),
        ("selected", (99, 0), "hypothesis lies between 0 and 8 here, not 99"),
        ("samples", -1, "samples"),
    ],
)
def test_what_a_switch_cannot_be_is_said(trait: str, value: object, word: str):
    matrix_ = RiskMatrix(risk_table(sentences(10)))
    with pytest.raises(traitlets.TraitError, match=word):
        setattr(matrix_, trait, value)


def test_model_weights_need_log_probabilities():
    matrix_ = RiskMatrix(risk_table(sentences(10), logprobs=False))
    with pytest.raises(traitlets.TraitError, match="no log-probability"):
        matrix_.weighting = "model"


def test_a_utility_that_only_the_record_knows_is_kept():
    assert RiskMatrix(risk_table(utility="comet")).utility == "comet"


@pytest.mark.parametrize(
    ("given_record", "word"),
    [
        ('{"kind": "trace"}', "'trace'"),
        ('{"kind": "risktable", "version": 9}', "version 9"),
        ('{"kind": "risktable", "version": 1}', "base"),
        ("{", "no JSON"),
        (3, "int"),
    ],
)
def test_a_wrong_record_is_one_sentence(given_record: object, word: str):
    matrix_ = RiskMatrix(given_record)
    assert word in matrix_.problem
    assert matrix_._repr_mimebundle_()[0]["text/plain"].startswith("RiskMatrix: ")


def test_without_a_manager_a_picture_and_a_table_stand_in():
    hostile = "<img src=x onerror=alert(1)>"
    table = risk_table([hostile, hostile, "a cat", "the cat sat"])
    data, _ = RiskMatrix(table)._repr_mimebundle_()
    assert len(data["image/png"]) > 1000
    assert "&lt;img src=x onerror=alert(1)&gt;" in data["text/html"]
    assert hostile not in data["text/html"]
    assert f"{table.risk[table.best]:.4f}" in data["text/plain"]


def test_the_page_is_told_the_record_whole():
    table = risk_table()
    assert json.loads(RiskMatrix(table).records_json) == [json.loads(table.to_json())]
