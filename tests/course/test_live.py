"""Training in a notebook's cell: stopped and begun again it ends as if nothing had happened."""

from __future__ import annotations

import pytest

from labkit.course import live
from labkit.course.live import train_live
from labkit.errors import LabkitError
from labkit.models.store import locked
from labkit.training.recipe import Recipe
from tests.training.conftest import base_folder, make_recipe, one_thread, small_world

__all__ = ["base_folder", "make_recipe", "one_thread", "small_world"]  # fixtures


@pytest.fixture
def recipe(small_world, make_recipe) -> Recipe:
    """A recipe of a hundred short steps on text alone, so that a stop falls into them."""
    whole = Recipe.load(make_recipe(steps=100))
    return whole.model_copy(update={"phase2": None, "generation": None})


@pytest.fixture
def shown(monkeypatch) -> list:
    """The curves that the page was given."""
    widgets: list = []
    monkeypatch.setattr("IPython.display.display", lambda shown, display_id: widgets.append(shown))
    return widgets


def test_stopped_and_begun_again_it_ends_alike(recipe, shown, tmp_path, capfd):
    whole = train_live(recipe, tmp_path / "whole")
    assert train_live(recipe, tmp_path / "halves", stop_after=20) is None
    reached = shown[-1].record.points[-1].step
    assert 20 <= reached < 100
    halves = train_live(recipe, tmp_path / "halves", go_on=True)
    assert halves is not None and whole is not None
    assert halves["final_loss"] == whole["final_loss"]
    assert [len(widget.record.points) for widget in shown] == [100, reached, 100]
    assert shown[0].record.points[-1].loss == shown[2].record.points[-1].loss
    assert capfd.readouterr().err == ""  # a reader is shown no progress bar beside the curves


def test_begun_anew_it_forgets_what_was_there(recipe, shown, tmp_path):
    short = recipe.model_copy(
        update={"phase1": recipe.phase1.model_copy(update={"steps": 3})}  # type: ignore[union-attr]
    )
    assert train_live(short, tmp_path / "run")
    other = short.model_copy(update={"seed": 5})
    again = train_live(other, tmp_path / "run")
    assert again is not None and again["steps"] == 3


def test_a_folder_that_holds_something_else_is_left_alone(recipe, shown, tmp_path):
    kept = tmp_path / "mine" / "notes.txt"
    kept.parent.mkdir()
    kept.write_text("keep me", encoding="utf-8")
    short = recipe.model_copy(
        update={"phase1": recipe.phase1.model_copy(update={"steps": 2})}  # type: ignore[union-attr]
    )
    assert train_live(short, kept.parent)
    assert kept.read_text(encoding="utf-8") == "keep me"


def test_a_folder_where_another_process_trains_is_not_emptied(recipe, shown, tmp_path):
    log = tmp_path / "run" / "losslog.json"
    log.parent.mkdir()
    log.write_text("theirs", encoding="utf-8")
    (log.parent / "recipe.toml").write_text("theirs", encoding="utf-8")
    with locked(log.parent), pytest.raises(LabkitError, match="Another process is writing"):
        train_live(recipe, log.parent)
    assert log.read_text(encoding="utf-8") == "theirs"


def test_somebody_elses_interrupt_is_passed_on(recipe, shown, tmp_path, monkeypatch):
    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr("labkit.training.train.train_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        live.train_live(recipe, tmp_path / "run")
