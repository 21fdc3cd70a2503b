from __future__ import annotations

from dataclasses import astuple, replace

import numpy as np
import pytest
import torch

from labkit import load
from labkit.checks import training
from labkit.checks.training import Lesson, LessonRows, curves, new_heads, right_shares, trained
from tests.elsewhere import imitate_a_device


def read(looks, turn=-1, end=-1):
    """What is to be read, or what is read between other looks."""
    first = [look for look in looks if look["phase"] == 1][turn]
    fell = np.array(first["loss"]) - np.array(looks[end]["loss"])
    return fell, looks[end]["tokens_per_step"] - first["tokens_per_step"]


def from_the_second_phase(looks):
    late = [look for look in looks if look["phase"] == 2]
    return np.array(late[0]["loss"]) - np.array(late[-1]["loss"]), read(looks)[1]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda looks: (-read(looks)[0], read(looks)[1]), "the sign is turned"),
        (lambda looks: (read(looks, turn=0)[0], read(looks)[1]), "the fall over both phases"),
        (lambda looks: (read(looks[:3], turn=0)[0], read(looks)[1]), "the fall in phase 1"),
        (from_the_second_phase, "the first look of phase 2"),
        (lambda looks: (looks[-1]["loss"], 1.0), "these are the last losses"),
        (lambda looks: (0 * read(looks)[0], 1.0), "the losses fell by"),
        (lambda looks: (read(looks)[0], read(looks, turn=0)[1]), "those of both phases"),
        (lambda looks: (read(looks)[0], looks[-1]["tokens_per_step"]), "not what was gained"),
        (lambda looks: (read(looks)[0], -read(looks)[1]), "what was gained is turned"),
        (lambda looks: (read(looks)[0], 7.0), "another number"),
        (lambda looks: read(looks)[0], "two things"),
        (lambda looks: ([1.0], 1.0), "one for each head"),
        (lambda looks: None, "returns nothing"),
    ],
)
def test_each_wrong_reading_is_named(wrong, says):
    assert curves(read, seed=3, heads=5).right
    finding = curves(wrong)
    assert not finding.right
    assert says in finding.text


@pytest.fixture
def toy_lesson():
    """Rows in which each token is one more than the last, over a table of unit vectors."""
    vocabulary, rows, size = 12, 6, 14
    starts = torch.arange(rows)[:, None]
    tokens = (starts + torch.arange(size)) % vocabulary
    table = torch.eye(vocabulary)
    some = LessonRows(tokens, table[tokens[:, :-1]], [3] * rows, [size] * rows)
    return Lesson(table, some, some, some)


def counting_heads(heads=2, vocabulary=12):
    """Heads that say of each token the one that follows it: a shift, whatever the state."""
    shift = torch.roll(torch.eye(vocabulary), 1, dims=0)
    return [
        {
            "proj": torch.zeros(vocabulary, vocabulary),
            "token": shift,
            "out": torch.eye(vocabulary),
            "scale": torch.ones(vocabulary),
            "shift": torch.zeros(vocabulary),
        }
        for _ in range(heads)
    ]


def test_shares_count_what_the_base_model_wrote(toy_lesson):
    assert right_shares(counting_heads(), toy_lesson.table, toy_lesson.held_out) == [1.0, 1.0]
    finding = trained(counting_heads(), toy_lesson)
    assert finding.right
    assert "right in 100%, 100% of the places" in finding.text


def test_heads_that_learned_nothing_are_told_so(toy_lesson):
    far = replace(toy_lesson, table=torch.eye(12) * 0.1)
    finding = trained(new_heads(12, heads=2, inner=8), far)
    assert not finding.right
    assert finding.text.endswith("did both phases run, and did the loss fall?")


@pytest.mark.parametrize(
    ("heads", "says"),
    [
        (None, "returns nothing"),
        ("heads", "a list of dictionaries"),
        ([], "a list of dictionaries"),
        ([{"proj": 1}], "lacks the tensors"),
        ([{**counting_heads(1)[0], "out": torch.ones(3, 3)}], "is needed"),
        ([{**counting_heads(1)[0], "proj": torch.full((12, 12), float("nan"))}], "finite"),
    ],
)
def test_what_are_no_heads_is_one_sentence(toy_lesson, heads, says):
    finding = trained(heads, toy_lesson)
    assert not finding.right
    assert says in finding.text


def test_the_lesson_is_made_of_the_tiny_models_own_answers():
    made = training.lesson(load("tiny"), rows=4, held_out=2)
    again = training.lesson(load("tiny"), rows=4, held_out=2)
    assert torch.equal(made.answers.tokens, again.answers.tokens)
    assert len(made.answers.tokens) == 4
    assert len(made.held_out.tokens) == 2
    row, given = made.answers.tokens[0], made.answers.given[0]
    logits = made.answers.hidden[0] @ made.table.T
    wrote = slice(given - 1, made.answers.lengths[0] - 1)
    assert torch.equal(logits.argmax(-1)[wrote], row[1:][wrote])
    assert made.text.hidden.shape[:2] == (len(made.text.tokens), training.WINDOW - 1)


def same(one, other):
    pairs = zip(astuple(one), astuple(other), strict=True)
    return all(torch.equal(a, b) if torch.is_tensor(a) else a == b for a, b in pairs)


def test_a_base_model_on_another_device_gives_the_same_lesson_on_the_cpu(monkeypatch):
    base = load("tiny")
    wanted = training.lesson(base, rows=4, held_out=2)
    imitate_a_device(monkeypatch, base)
    found = training.lesson(base, rows=4, held_out=2)
    for part in ("text", "answers", "held_out"):
        assert same(getattr(found, part), getattr(wanted, part)), part
    for tensor in (found.table, found.text.hidden, found.answers.tokens, found.answers.hidden):
        assert type(tensor) is torch.Tensor
    assert trained(new_heads(found.table.shape[1]), found).text


def test_a_base_model_in_bfloat16_gives_a_lesson_in_float32():
    made = training.lesson(load("tiny", dtype="bfloat16"), rows=4, held_out=2)
    assert {made.table.dtype, made.text.hidden.dtype, made.answers.hidden.dtype} == {torch.float32}
    assert trained(new_heads(made.table.shape[1]), made).text
