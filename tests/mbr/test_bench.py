"""The benchmark checks what it times, and says what it could not compare with."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from labkit.errors import LabkitError
from labkit.mbr import bench, utilities


@pytest.mark.parametrize("utility", ["chrf", "bleu"])
def test_the_matrix_is_timed_and_checked_against_sacrebleu(utility):
    found = bench.bench_utility(utility, size=24)
    assert found["utility"] == utility
    assert found["max_abs_difference"] < 1e-4
    assert found["seconds"] > 0
    assert found["ratio_sacrebleu"] > 0


def test_a_wrong_matrix_would_be_noticed(monkeypatch):
    right = utilities.UTILITIES["chrf"]
    monkeypatch.setitem(utilities.UTILITIES, "chrf", lambda h, r: np.square(right(h, r)))
    assert bench.bench_utility("chrf", size=20)["max_abs_difference"] > 1


def test_fastchrf_is_compared_with_where_it_is_and_named_where_it_is_not(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = bench.bench_utility("chrf", size=8)
    assert found["ratio_fastchrf"] is None
    assert "pip install fastchrf" in found["note"]
    calls = []
    peer = SimpleNamespace(pairwise_chrf=lambda *lists: calls.append(lists))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: peer)
    monkeypatch.setitem(sys.modules, "fastchrf", peer)
    assert bench.bench_utility("chrf", size=8)["ratio_fastchrf"] > 0
    [[[hypotheses], [evidence]]] = calls
    assert len(hypotheses) == len(evidence) == 8


def test_sentences_are_various_and_the_same_for_a_seed():
    one, again = (bench.sentences(100, np.random.default_rng(1)) for _ in range(2))
    assert one == again
    assert len(set(one)) == 100
    assert 50 < np.mean([len(text) for text in one]) < 110


@pytest.mark.parametrize(("utility", "size", "says"), [("ter", 8, "'ter'"), ("chrf", 0, "is 0")])
def test_what_cannot_be_timed_is_said_in_one_sentence(utility, size, says):
    with pytest.raises(LabkitError, match=says):
        bench.bench_utility(utility, size)
