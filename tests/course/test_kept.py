from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from labkit import LabkitError, compare, predict, predictions
from labkit.course.kept import FILE, predictions_file


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_was_said_is_held_against_what_came_out():
    predict("speedup", 2.0)
    assert repr(compare("speedup", 1.5, "×")) == (
        "speedup: you said 2 ×; it was 1.5 ×: less than you said."
    )


def test_a_prediction_outlives_the_kernel():
    predict("speedup", 2.0)
    assert json.loads(FILE.read_text(encoding="utf-8"))["by_name"]["speedup"]["guess"] == 2.0
    assert repr(predict("speedup")) == "You have predicted “speedup”: 2."


def test_dots_ask_and_keep_nothing():
    assert "Your turn" in repr(predict("speedup", ...))
    assert "no prediction" in repr(compare("speedup", 1.5))
    assert not FILE.exists()


def test_a_guess_made_after_the_result_does_not_replace_the_first():
    predict("winner", "A")
    compare("winner", "B")
    assert "known by then" in repr(predict("winner", "B"))
    assert repr(compare("winner", "B")) == (
        "winner: you said A; it was B; later you said B: not as you said."
    )


def test_a_guess_may_change_until_the_result_is_known():
    predict("winner", "A")
    predict("winner", "B")
    assert repr(compare("winner", "b ")) == "winner: you said B; it was b: as you said."


@pytest.mark.parametrize(
    ("guess", "measured", "verdict"),
    [
        (3, 3, "just so"),
        (1.0, 1.05, "close"),
        (1.0, 2.0, "more than you said"),
        (-1.0, -2.0, "less than you said"),
        (True, True, "as you said"),
        (True, False, "not as you said"),
        (1, True, "not as you said"),
        ("Rain", "rain", "as you said"),
    ],
)
def test_the_verdict(guess, measured, verdict):
    predict("it", guess)
    assert repr(compare("it", measured)).endswith(f": {verdict}.")


def test_results_out_of_arrays_are_taken_as_plain_numbers():
    predict("it", 2)
    assert "it was 2" in repr(compare("it", np.float32(2.0)))
    assert "it was yes" in repr(compare("it", np.bool_(True)))


def test_the_overview_lists_what_was_said_and_leaves_out_what_was_not():
    assert "No prediction" in repr(predictions())
    predict("first", 1)
    predict("second", ...)
    compare("second", 2)
    predict("third", "x")
    lines = [line.split() for line in repr(predictions()).splitlines()[1:]]
    assert lines == [["first", "1", "not", "known", "yet"], ["third", "x", "not", "known", "yet"]]


def test_what_a_reader_types_is_shown_as_text():
    predict("<b>name</b>", "<img src=x>")
    for shown in (predict("<b>name</b>"), compare("<b>name</b>", "<i>"), predictions()):
        markup = shown._repr_html_()
        assert "<img" not in markup
        assert "<b>name" not in markup
        assert "<i>" not in markup


@pytest.mark.parametrize("guess", [None, [1], {"a": 1}])
def test_what_is_no_prediction_is_named(guess):
    with pytest.raises(LabkitError, match="give a number, a word in quotes, True or False"):
        predict("it", guess)


@pytest.mark.parametrize("text", ["{", '{"version": 1, "by_name": 3}', '{"x": 1}'])
def test_a_damaged_file_is_named(text):
    FILE.write_text(text, encoding="utf-8")
    with pytest.raises(LabkitError, match="damaged: delete that file"):
        predict("it", 1)


def test_a_file_that_is_not_text_is_named():
    FILE.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LabkitError, match="cannot be read"):
        compare("it", 1)


def test_a_folder_that_cannot_be_written_is_named(monkeypatch):
    Path("file").write_text("", encoding="utf-8")
    monkeypatch.setattr("labkit.course.kept.FILE", Path("file") / "predictions.json")
    with pytest.raises(LabkitError, match=r"predictions\.json"):
        predict("it", 1)


def test_predictions_are_kept_in_drive_only_where_it_is_mounted(tmp_path):
    assert predictions_file(tmp_path / "absent") == Path("predictions.json")
    assert predictions_file(tmp_path) == tmp_path / "labkit-predictions.json"
