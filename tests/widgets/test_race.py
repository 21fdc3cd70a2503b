from __future__ import annotations

import json

import pytest
import traitlets

from labkit.widgets import Race
from labkit.widgets.race import rate
from widgets.node import evaluate, run_tests
from widgets.traces import make_trace

VANILLA = make_trace(steps=40, widths=())
QUICK = make_trace(steps=16)


def test_view_functions_under_node():
    run_tests("race")


def test_python_and_page_agree_on_the_winner_and_the_factor():
    standing = evaluate(
        "race/widget.js", "m.standing(data)", [json.loads(t.to_json()) for t in (VANILLA, QUICK)]
    )
    assert standing["winner"] == 1
    assert standing["rates"] == pytest.approx([rate(VANILLA), rate(QUICK)])
    headings, rows = Race(VANILLA, QUICK).table()
    assert float(rows[1][headings.index("factor")]) == pytest.approx(
        standing["factors"][0], abs=0.006
    )


def test_summary_names_the_fastest():
    assert Race(VANILLA, QUICK).summary().startswith("mlp speculator: ")
    assert "times as fast as vanilla" in Race(VANILLA, QUICK).summary()
    assert "times" not in Race(QUICK).summary()


def test_time_is_within_the_race():
    race = Race(VANILLA, QUICK)
    assert race.seconds == pytest.approx(max(VANILLA.seconds, QUICK.seconds))
    race.time = race.seconds
    with pytest.raises(traitlets.TraitError, match="time lies between 0 and"):
        race.time = race.seconds + 1
    with pytest.raises(traitlets.TraitError, match="speed is a factor above 0"):
        race.speed = 0


def test_other_records_keep_the_moment_where_they_have_it():
    race = Race(VANILLA, time=0.2)
    race.records = (VANILLA, QUICK)
    assert race.time == 0.2
    race.time = race.seconds
    short = make_trace(steps=1)
    race.records = (short,)
    assert race.time == pytest.approx(short.seconds)


def test_a_live_race_stands_at_the_end_of_what_is_known():
    race = Race(VANILLA.model_copy(update={"steps": ()}), live=True)
    for known in (3, 10, 40):
        race.record = VANILLA.model_copy(update={"steps": VANILLA.steps[:known]})
        assert race.time == pytest.approx(race.record.seconds)


def test_a_race_has_at_most_eight_lanes():
    assert Race(*[QUICK] * 8).problem == ""
    assert "at most 8" in Race(*[QUICK] * 9).problem
