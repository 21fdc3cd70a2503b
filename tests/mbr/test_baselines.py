"""Other ways to choose a sample."""

import pytest

from labkit.errors import LabkitError
from labkit.mbr.family import most_frequent, most_probable, oracle
from labkit.records import Sample

DRAWN = [
    Sample(text="a", logprob=-3.0),
    Sample(text="b", count=2, logprob=-4.0),
    Sample(text="c d", logprob=-1.0),
    Sample(text="a", logprob=-3.0),
    Sample(text="a", logprob=-3.0),
]


def test_most_probable_goes_by_the_models_probability_not_by_counts():
    assert most_probable(DRAWN).text == "c d"


def test_most_frequent_adds_up_equal_texts():
    assert most_frequent(DRAWN) == Sample(text="a", count=3, logprob=-3.0)


def test_most_frequent_of_equals_is_the_first():
    assert most_frequent([Sample(text="x"), Sample(text="y")]).text == "x"


def test_oracle_is_the_sample_most_like_the_reference():
    assert oracle(DRAWN, "c d e").text == "c d"
    assert oracle(DRAWN, "b", utility="exact").text == "b"


@pytest.mark.parametrize("choose", [most_probable, most_frequent, lambda s: oracle(s, "x")])
def test_nothing_to_choose_from_is_refused(choose):
    with pytest.raises(LabkitError, match="draw at least one"):
        choose([])


def test_probability_must_be_known_to_choose_by_it():
    with pytest.raises(LabkitError, match="no log-probability"):
        most_probable([*DRAWN, Sample(text="z")])
