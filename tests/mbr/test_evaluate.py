"""Corpus scores and significance are sacrebleu's."""

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.significance import PairedTest

from labkit.errors import LabkitError
from labkit.mbr.evaluate import METRICS, Corpus, corpus, paired_bootstrap, signature

REFERENCES = [f"the cat number {i} sat on the mat, and then left." for i in range(40)]
GOOD = [text.replace("mat", "rug") if i % 3 else text for i, text in enumerate(REFERENCES)]
POOR = [text.replace("cat", "dog").replace("left", "ran") for text in GOOD]
THEIRS = {"bleu": BLEU(force=True), "chrf": CHRF(), "chrf++": CHRF(word_order=2), "ter": TER()}


@pytest.mark.parametrize("name", METRICS)
def test_scores_equal_sacrebleus_however_the_corpus_came_in(name):
    streamed = Corpus(METRICS)
    for first in range(0, 40, 7):
        streamed.add(POOR[first : first + 7], REFERENCES[first : first + 7])
    expected = THEIRS[name].corpus_score(POOR, [REFERENCES]).score
    assert streamed.score(name) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", METRICS)
def test_signatures_are_sacrebleus(name):
    THEIRS[name].corpus_score(POOR, [REFERENCES])
    assert signature(name) == f"{name}|{THEIRS[name].get_signature()}"


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_the_paired_bootstrap_is_sacrebleus(name):
    systems = {"good": corpus(GOOD, REFERENCES), "poor": corpus(POOR, REFERENCES)}
    base, other = paired_bootstrap(systems, "good", name, resamples=300)
    _, theirs = PairedTest(
        [("good", GOOD), ("poor", POOR)], {name: THEIRS[name]}, [REFERENCES], "bs", 300
    )()
    [_, result] = next(results for key, results in theirs.items() if key != "System")
    assert other.score == pytest.approx(result.score)
    assert other.p == pytest.approx(result.p_value)
    assert (base.gain, base.p) == (0, 1)


def test_a_clear_difference_is_no_luck_and_bounds_enclose_the_score():
    systems = {"good": corpus(GOOD, REFERENCES), "poor": corpus(POOR, REFERENCES)}
    for row in paired_bootstrap(systems, "poor", "chrf", resamples=300):
        assert row.low <= row.score <= row.high
        assert row.gain_low <= row.gain <= row.gain_high
    assert row.system == "poor"
    good = paired_bootstrap(systems, "poor", "chrf", resamples=300)[0]
    assert good.gain_low > 0
    assert good.p < 0.01


def test_a_difference_by_luck_is_seen_to_be_one():
    one = [*POOR[:20], *GOOD[20:]]
    other = [*GOOD[:20], *POOR[20:]]
    systems = {"one": corpus(one, REFERENCES), "other": corpus(other, REFERENCES)}
    _, row = paired_bootstrap(systems, "one", "chrf", resamples=300)
    assert row.gain_low < 0 < row.gain_high
    assert row.p > 0.05


def test_outputs_that_are_all_empty_have_a_score():
    assert corpus([""] * 3, REFERENCES[:3], METRICS).scores() == {
        "bleu": 0, "chrf": 0, "chrf++": 0, "ter": 100,
    }  # fmt: skip


def test_identical_outputs_score_full_marks():
    assert np.allclose(corpus(GOOD, GOOD).score("chrf"), 100)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: corpus(["a"], ["a", "b"]), "1 outputs and 2 references"),
        (lambda: corpus([], []).score("bleu"), "no segment"),
        (lambda: corpus(["a"], ["a"], ["rouge"]), "'rouge'; there are bleu"),
        (lambda: paired_bootstrap({"a": corpus(["x"], ["x"])}, "b"), "no system 'b'"),
        (
            lambda: paired_bootstrap(
                {"a": corpus(["x"], ["x"]), "b": corpus(["x", "y"], ["x", "y"])}, "a"
            ),
            r"\[1, 2\] segments",
        ),
    ],
)
def test_what_cannot_be_scored_is_said_in_one_sentence(call, says):
    with pytest.raises(LabkitError, match=says):
        call()
