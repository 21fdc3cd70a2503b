from __future__ import annotations

import json

import pytest
import traitlets

from labkit.records import ROOT
from labkit.widgets import TokenStepper
from labkit.widgets.token_stepper import telling
from widgets.node import evaluate, run_tests
from widgets.traces import hostile_trace, make_trace

TRACES = [
    make_trace(),
    make_trace(widths=(3, 2, 1), seed=1),
    make_trace(temperature=0.8, seed=2),
    make_trace(widths=(2, 2), temperature=1.0, seed=3),
    make_trace(widths=()),
    hostile_trace(),
]


def test_view_functions_under_node():
    run_tests("token_stepper")


@pytest.mark.parametrize("trace", TRACES)
def test_python_and_page_choose_the_same_telling_node(trace):
    expected = [telling(step) for step in trace.steps]
    steps = json.loads(trace.to_json())["steps"]
    assert evaluate("token_stepper/widget.js", "data.map(m.telling)", steps) == expected


@pytest.mark.parametrize("trace", TRACES)
def test_page_reads_the_tokens_that_the_record_has(trace):
    read = evaluate(
        "shared/trace.js",
        "[m.originOfTokens(data).map((each) => each.text), m.endTimes(data).at(-1)]",
        json.loads(trace.to_json()),
    )
    assert read[0] == [token.text for token in trace.tokens]
    assert read[1] == pytest.approx(trace.seconds)


def test_a_change_of_step_chooses_its_telling_node():
    widget = TokenStepper(make_trace())
    for step in (5, 0, 11):
        widget.step = step
        assert widget.selected == telling(widget.record.steps[step])
    widget.selected = ROOT
    assert widget.selected == ROOT


def test_state_can_be_given_from_the_start():
    widget = TokenStepper(make_trace(), step=7, selected=0, head=2)
    assert (widget.step, widget.selected, widget.head) == (7, 0, 2)
    chosen = TokenStepper(make_trace(), step=7).selected
    assert TokenStepper(make_trace(), step=7, selected=None).selected == chosen


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("step", 24, "step lies between 0 and 23 here, not 24"),
        ("step", -1, "step lies between 0 and 23"),
        ("selected", 9, "selected lies between -1 and 3"),
        ("head", 4, "head lies between 0 and 3"),
    ],
)
def test_state_outside_the_record_is_refused_in_one_sentence(name, value, words):
    widget = TokenStepper(make_trace())
    with pytest.raises(traitlets.TraitError, match=words):
        setattr(widget, name, value)


def test_another_record_starts_at_its_first_step():
    widget = TokenStepper(make_trace(), step=20, head=3)
    widget.record = make_trace(steps=2, widths=(1,))
    assert (widget.step, widget.head) == (0, 0)
    assert widget.selected == telling(widget.record.steps[0])


def test_a_generation_of_one_token_has_no_step_to_show():
    widget = TokenStepper(make_trace(steps=0))
    assert widget.problem == ""
    assert widget.selected == ROOT
    assert "1 tokens" not in widget.summary()
    assert widget.table()[1] == []


def test_table_tells_what_each_step_committed():
    trace = make_trace()
    headings, rows = TokenStepper(trace).table()
    assert len(rows) == len(trace.steps)
    for row, step in zip(rows, trace.steps, strict=True):
        assert len(row) == len(headings)
        kept = "".join(step.nodes[node].text for node in step.accepted)
        assert row[1:3] == (len(step.nodes), kept)
        assert row[3].startswith(step.committed[-1].text)


def test_summary_counts_tokens_and_steps():
    trace = make_trace(steps=24)
    assert TokenStepper(trace).summary() == (
        f"mlp speculator on a made-up model: {len(trace.tokens)} tokens in 24 steps, "
        f"{trace.tokens_per_step:.2f} tokens a step."
    )
