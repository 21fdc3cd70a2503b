from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pytest

from labkit.plots.training import smooth
from labkit.records import LossLog, RecordError
from labkit.widgets import LossCurves, loss_curves
from widgets.made import loss_log
from widgets.node import evaluate, run_tests


def until(happens: Callable[[], bool]) -> None:
    """Wait for it, and fail rather than wait for ever."""
    give_up = time.monotonic() + 60
    while not happens():
        assert time.monotonic() < give_up, "it did not happen within a minute"
        time.sleep(0.01)


def header(log: LossLog) -> str:
    return log.model_copy(update={"points": (), "validation": ()}).to_json() + "\n"


def lines(log: LossLog) -> list[str]:
    return [point.model_dump_json() + "\n" for point in log.points]


def test_pure_functions_under_node():
    run_tests("loss_curves")


def test_page_smooths_as_the_figure_does():
    values = [5.0, 3.0, 4.0, 1.0, 2.0, 2.5]
    page = evaluate("shared/chart.js", "[...m.smooth(data, 3)]", values)
    np.testing.assert_allclose(page, smooth(values, 3), atol=1e-12)


def test_two_runs_are_compared_and_three_refused():
    one, other = loss_log("one"), loss_log("other", offset=0.3)
    assert [log.name for log in LossCurves(one, other).records] == ["one", "other"]
    assert "at most 2" in LossCurves(one, other, one).problem


def test_a_running_log_is_read_by_its_path(tmp_path: Path):
    log = loss_log(every=0)
    path = tmp_path / "loss.jsonl"
    path.write_text(header(log) + "".join(lines(log)), encoding="utf-8")
    assert LossCurves(path).record == log


@pytest.mark.parametrize("content", [None, "", "no json\n"])
def test_a_missing_or_damaged_log_is_one_sentence(tmp_path: Path, content: str | None):
    path = tmp_path / "loss.jsonl"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert "loss.jsonl" in LossCurves(path).problem


def test_following_shows_each_step_until_it_is_stopped(tmp_path: Path):
    log = loss_log(every=0)
    path = tmp_path / "loss.jsonl"
    curves = LossCurves(loss_log("an earlier run"))
    curves.follow(path, every=0.01)
    assert curves.live == "waiting for loss.jsonl"
    path.write_text(header(log), encoding="utf-8")
    for many, line in enumerate(lines(log)[:5], start=1):
        with path.open("a", encoding="utf-8") as file:
            file.write(line[:9])  # a line half written is no step yet
            file.flush()
            file.write(line[9:])
        until(lambda: len(curves.record.points) == many)  # noqa: B023
    assert curves.live == "following"
    curves.stop()
    assert curves.live == "stopped"
    assert curves.records[1].name == "an earlier run"


def test_steps_reach_the_page_from_a_kernel_that_runs_a_cell(tmp_path: Path):
    log = loss_log(every=0)
    path = tmp_path / "loss.jsonl"
    path.write_text(header(log) + lines(log)[0], encoding="utf-8")
    training = f"""
import time
from pathlib import Path
from labkit.widgets import LossCurves, loss_curves
path = Path({str(path)!r})
curves = LossCurves().follow(path, every=0.05)
give_up = time.monotonic() + 60
while len(curves.record.points) < 2 and time.monotonic() < give_up:
    if len(curves.record.points) == 1:
        with path.open("a", encoding="utf-8") as file:
            file.write({lines(log)[1]!r})
    time.sleep(0.2)
"""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(training)])
    nbclient.NotebookClient(book, timeout=120, store_widget_state=True).execute()
    states = book.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    (shown,) = [
        json.loads(each["state"]["records_json"])
        for each in states.values()
        if "records_json" in each["state"]
    ]
    assert len(shown[0]["points"]) >= 2, "the page was told nothing"


def test_following_waits_for_a_log_that_is_still_empty(tmp_path: Path):
    path = tmp_path / "loss.jsonl"
    path.touch()
    curves = LossCurves().follow(path, every=0.01)
    log = loss_log(every=0)
    path.write_text(header(log) + lines(log)[0], encoding="utf-8")
    until(lambda: len(curves.record.points) == 1)
    curves.stop()
    assert curves.live == "stopped"


def test_following_gives_up_without_news(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(loss_curves, "PATIENCE", 0.05)
    curves = LossCurves().follow(tmp_path / "never.jsonl", every=0.01)
    until(lambda: curves.live == "no news for 0.05 s")


def test_a_damaged_log_is_said_while_following(tmp_path: Path):
    path = tmp_path / "loss.jsonl"
    path.write_text("no json\n", encoding="utf-8")
    curves = LossCurves().follow(path, every=0.01)
    until(lambda: "damaged" in curves.live)
    curves.stop()


@pytest.mark.parametrize("end", ["stop", "close"])
def test_no_thread_outlives_the_widget(tmp_path: Path, end: str):
    curves = LossCurves().follow(tmp_path / "loss.jsonl", every=0.01)
    follower = curves._follower
    assert follower.is_alive()
    getattr(curves, end)()
    assert not follower.is_alive()


def test_following_another_log_leaves_the_first(tmp_path: Path):
    curves = LossCurves().follow(tmp_path / "one.jsonl", every=0.01)
    first = curves._follower
    curves.follow(tmp_path / "two.jsonl", every=0.01)
    assert not first.is_alive()
    curves.close()


def test_following_needs_a_pause(tmp_path: Path):
    with pytest.raises(RecordError, match="the pause must be positive"):
        LossCurves().follow(tmp_path / "loss.jsonl", every=0)


def test_without_a_manager_a_picture_and_a_table_stand_in():
    log = loss_log("<b>bold</b>")
    data, _ = LossCurves(log, loss_log("other"))._repr_mimebundle_()
    assert len(data["image/png"]) > 1000
    assert "&lt;b&gt;bold" in data["text/html"]
    assert "<b>" not in data["text/html"]
    assert f"{log.points[-1].loss[0]:.3f}" in data["text/plain"]


def test_a_run_without_a_step_stands_in_too():
    data, _ = LossCurves()._repr_mimebundle_()
    assert "no loss yet" in data["text/plain"]
