"""The textbook's findings show where they are put in, and studies take only what they should."""

import numpy as np
import pytest

from labkit.errors import LabkitError
from labkit.mbr import evaluate
from labkit.mbr.draws import Draws, draw
from labkit.mbr.family import oracle
from labkit.mbr.pairs import Case, draw_cases, first_of
from labkit.mbr.weights import distinct
from labkit.records import Sample

from .models import Table

COMMON = "river stone light paper window garden summer winter silver copper letter story"
WORDS = COMMON.split()


def noisy(seed, many=16, noise=0.25):
    """A case whose samples are the reference with words exchanged, each independently."""
    rng = np.random.default_rng(seed)
    reference = list(rng.choice(WORDS, 9))
    samples = []
    for _ in range(many):
        kept = rng.random(9) > noise
        text = " ".join(w if k else rng.choice(WORDS) for w, k in zip(reference, kept, strict=True))
        samples.append(Sample(text=text, logprob=float(np.log(0.9) * kept.sum()), tokens=9))
    return Case(f"source {seed}", " ".join(reference), distinct(samples))


CASES = [noisy(seed) for seed in range(40)]


def systems(finding, cases=CASES[:10]):
    """The corpora that each way of a finding of the textbook makes of cases of 16 samples."""
    return evaluate.decided(cases, evaluate.textbook_ways(16)[finding][1])


def test_quality_rises_with_samples():
    scores = {n: c.score("chrf") for n, c in systems("samples", CASES).items()}
    assert scores["1"] + 3 < scores["4"]
    assert scores["4"] + 3 < scores["16"]


def test_smaller_sample_sets_are_part_of_larger_ones():
    few, more = (first_of(CASES[0], n, seed=0) for n in (5, 11))
    drawn = {sample.text: sample.count for sample in more}
    assert sum(drawn.values()) == 11
    assert all(drawn[sample.text] >= sample.count for sample in few)


def test_all_samples_are_the_samples_drawn():
    everything = first_of(CASES[0], 16, seed=0)
    assert {(s.text, s.count) for s in everything} == {(s.text, s.count) for s in CASES[0].samples}


def test_utilities_stand_beside_the_baselines():
    found = systems("utilities")
    assert list(found) == ["chrf", "bleu", "f1", "edit", "most frequent", "most probable"]
    assert found["chrf"].score("chrf") > found["most probable"].score("chrf")


def test_weightings_are_all_compared_and_uniform_is_counts():
    found = systems("weightings")
    assert set(found) == {"uniform", "counts", "model", "unique"}
    np.testing.assert_allclose(found["uniform"].table("chrf"), found["counts"].table("chrf"))


def knowing(case):
    return oracle(case.samples, case.reference)


def test_no_choice_is_better_than_the_oracles():
    best = evaluate.decided(CASES[:10], {"oracle": knowing})["oracle"].score("chrf")
    for system in systems("utilities").values():
        assert system.score("chrf") <= best + 1e-9


def test_the_textbook_is_three_tables_with_bounds():
    tables = evaluate.textbook(CASES[:15], resamples=100)
    assert list(tables) == ["samples", "utilities", "weightings"]
    of_samples = [row for row in tables["samples"] if row.metric == "chrf"]
    assert [row.system for row in of_samples] == ["1", "2", "4", "8", "16"]
    assert of_samples[-1].gain_low > 0
    chrf, f1 = (
        next(r for r in tables["utilities"] if (r.system, r.metric) == (name, "chrf"))
        for name in ("chrf", "f1")
    )
    assert chrf.gain >= f1.gain
    assert {row.system for row in tables["weightings"]} == {"uniform", "counts", "model", "unique"}


def test_cases_are_drawn_for_each_pair():
    model = Table([[0, 0.5, 0.5], [1.0, 0, 0], [1.0, 0, 0]])
    pairs = [("x", "a"), ("y", "b"), ("z", "a")]
    cases = list(draw_cases(model, iter(pairs), Draws(samples=5, at_once=2)))
    assert [(case.source, case.reference) for case in cases] == pairs
    assert [c.samples for c in cases] == draw(model, "xyz", Draws(samples=5, at_once=2))


def test_no_cases_and_too_few_samples_are_said_in_one_sentence():
    with pytest.raises(LabkitError, match="no cases"):
        evaluate.decided([], {})
    with pytest.raises(LabkitError, match="no cases"):
        evaluate.textbook([])
    with pytest.raises(LabkitError, match="17 samples of a case were asked for and 16"):
        first_of(CASES[0], 17, seed=0)
