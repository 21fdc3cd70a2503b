"""What a student's function gave becomes plain numbers, or a sentence; nothing else is compared."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from labkit.checks import Finding
from labkit.checks.answers import (
    NotUsable,
    exercise,
    number,
    numbers,
    parts,
    refuse,
    texts,
    tokens,
    whole,
)


class Agreeable:
    """Equal to everything, greater and smaller than everything, and close to any number."""

    __hash__ = None

    def __eq__(self, other):
        return True

    def __lt__(self, other):
        return True

    __gt__ = __le__ = __ge__ = __lt__

    def __abs__(self):
        return 0.0

    def __sub__(self, other):
        return 0.0

    __rsub__ = __sub__

    def __float__(self):
        return 0.5

    def __array__(self, dtype=None, copy=None):
        return np.zeros(3)

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return self


class AgreeableArray(np.ndarray):
    __hash__ = None

    def __eq__(self, other):
        return True

    def __sub__(self, other):
        return np.zeros(3)


@pytest.mark.parametrize("read", [number, numbers, tokens, texts, whole])
@pytest.mark.parametrize("answer", [Agreeable(), [Agreeable()], {"a": 1}, object, "0.5"])
def test_an_object_of_a_strange_kind_is_never_a_number(read, answer):
    if read is texts and answer == "0.5":
        answer = 0.5
    with pytest.raises(NotUsable):
        read(answer)


def test_an_array_with_rules_of_its_own_becomes_a_plain_one():
    answer = numbers(np.array([1.0, 2.0, 3.0]).view(AgreeableArray), (3,))
    assert type(answer) is np.ndarray
    assert (answer - np.zeros(3)).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "answer", [[[1, 2]], ((1, 2),), np.array([[1, 2]]), torch.tensor([[1, 2]]), [np.array([1, 2])]]
)
def test_lists_arrays_and_tensors_are_numbers(answer):
    assert numbers(answer, (1, 2)).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("read", "answer", "says"),
    [
        (number, None, "returns nothing"),
        (number, ..., "returns nothing"),
        (number, [1, 2], "array of shape (2,), and one number is needed"),
        (number, float("inf"), "it gives inf, and every number has to be finite"),
        (numbers, [1, float("nan")], "nan at (1,)"),
        (numbers, [[1], [1, 2]], "a list that holds more than an array of numbers"),
        (whole, 0.5, "a whole number"),
        (tokens, 3, "a list is needed"),
        (texts, ["a", 1], "other things than texts"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(read, answer, says):
    with pytest.raises(NotUsable) as raised:
        read(answer)
    assert says in str(raised.value)


def test_parts_are_counted():
    assert parts((1, 2), 2, "two things") == (1, 2)
    with pytest.raises(NotUsable, match="two things"):
        parts([1], 2, "two things")


def test_tokens_may_be_an_empty_list_or_an_array():
    assert tokens([]) == []
    assert tokens(np.array([3, 4])) == [3, 4]
    assert tokens(torch.tensor([3])) == [3]


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([1, 2, 3], "Right: 3."),
        ([1, -2, 3, -4], "Not yet: at 1: -2 is negative."),
        ([1, 100, -2], "Not yet: 100 is too much."),
        ([1, "x"], "Not yet: it gives a str, and a number is needed."),
    ],
)
def test_the_first_wrong_finding_of_a_check_counts_or_else_its_last(answers, says):
    @exercise
    def check(answer):
        for place in range(len(answers)):
            found = whole(answer(place))
            refuse((found < -10, "far too little"), (found > 10, f"{found} is too much"))
            right = Finding(found >= 0, f"{found}{' is negative' * (found < 0)}.")
            yield right.about(f"at {place}")

    assert repr(check(lambda place: answers[place])) == says
