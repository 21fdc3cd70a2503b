from __future__ import annotations

import numpy as np
import pytest
from widgets.traces import hostile_trace, make_trace

from labkit.plots import plot_race, plot_trace
from labkit.plots.decoding import head_shares, staircase

TRACES = [make_trace(), make_trace(widths=()), make_trace(steps=0), hostile_trace()]


@pytest.mark.parametrize("trace", TRACES)
def test_every_trace_has_its_pictures(trace, recwarn):
    assert plot_trace(trace).png().startswith(b"\x89PNG")
    assert plot_race([trace, TRACES[1]]).png().startswith(b"\x89PNG")
    assert [str(each.message) for each in recwarn] == []


def test_staircase_ends_at_all_tokens_and_all_seconds():
    trace = make_trace()
    times, tokens = staircase(trace)
    assert times[-1] == pytest.approx(trace.seconds)
    assert tokens[-1] == len(trace.tokens)
    assert np.all(np.diff(times) >= 0)


def test_a_head_is_reached_once_a_step():
    trace = make_trace(widths=(3, 2))
    shares = head_shares(trace)
    assert list(shares) == [1, 2]
    assert shares[1][1] == len(trace.steps)
    accepted = sum(len(step.accepted) for step in trace.steps)
    assert sum(passed for passed, _ in shares.values()) == accepted


def test_columns_stand_for_the_accepted_tokens():
    trace = make_trace()
    figure = plot_trace(trace)
    tokens = len(trace.tokens) - 1
    bars = [bar for bar in figure.axes[0].patches if bar.get_height() > 0]
    assert sum(bar.get_height() for bar in bars) == tokens
