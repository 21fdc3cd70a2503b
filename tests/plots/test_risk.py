from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from labkit.plots import plot_risk
from labkit.plots.figure import LOSS_RAMP, WINNER
from labkit.records import RiskTable, Sample


def table(risk: tuple[float, ...] = (0.5, 0.2, 0.4), best: int = 1) -> RiskTable:
    texts = ("a cat", "the cat", "$10 & $20\n<b>")
    samples = tuple(Sample(text=text) for text in texts)
    return RiskTable(
        base="translator",
        source="Katze",
        utility="chrf",
        weighting="model",
        hypotheses=samples,
        evidence=samples[:2],
        weights=(0.25, 0.75),
        loss=((0.0, 0.6), (0.3, 0.1), (1.0, 0.9)),
        risk=risk,
        best=best,
    )


def test_rows_come_by_risk_and_columns_by_weight():
    figure = plot_risk(table())
    heat = figure.axes[0]
    drawn = heat.images[0].get_array()
    np.testing.assert_allclose(drawn, [[0.1, 0.3], [0.9, 1.0], [0.6, 0.0]])
    assert heat.get_yticklabels()[0].get_text() == "the cat"
    assert [label.get_text() for label in heat.get_xticklabels()] == ["1", "0"]


def test_weights_stand_above_their_columns():
    above = plot_risk(table()).axes[1]
    assert [patch.get_height() for patch in above.patches] == [0.75, 0.25]


def test_the_winner_is_marked_at_the_top_with_its_risk():
    beside = plot_risk(table()).axes[2]
    others, winner = beside.collections
    np.testing.assert_allclose(winner.get_offsets(), [[0.2, 0]])
    np.testing.assert_allclose(others.get_offsets(), [[0.4, 1], [0.5, 2]])
    assert to_hex(winner.get_facecolor()[0]) == WINNER
    assert [text.get_text() for text in beside.texts] == ["lowest: 0.2000"]


def test_the_recorded_winner_comes_first_among_equals():
    beside = plot_risk(table(risk=(0.2, 0.2, 0.2), best=1)).axes[2]
    assert beside.collections[1].get_offsets()[0][1] == 0


def wide(many: int, much: int, spread: float) -> RiskTable:
    """Long texts as hypotheses, with risks from 0.5003 to ``spread`` above it."""
    sample = Sample(text="a text of ordinary words, and it goes on for long")
    return RiskTable(
        base="b",
        source="",
        utility="chrf",
        weighting="unique",
        hypotheses=(sample,) * many,
        evidence=(sample,) * much,
        weights=(1 / much,) * much,
        loss=((0.5,) * much,) * many,
        risk=tuple(np.linspace(0.5003, 0.5003 + spread, many)),
        best=0,
    )


def gaps(labels: list[Text]) -> list[float]:
    """The pixels between each label and the next, of a figure that was drawn."""
    boxes = [label.get_window_extent() for label in labels]
    return [right.x0 - left.x1 for left, right in pairwise(boxes)]


@pytest.mark.parametrize("spread", [0.4, 0.01, 0.008, 0.003, 0.0005])
def test_the_numbers_on_the_axis_of_risk_stand_apart_however_near_they_are(spread):
    figure = plot_risk(wide(24, 1, spread))
    figure.draw_without_rendering()
    between = gaps(figure.axes[2].get_xticklabels())
    assert len(between) > 0
    assert min(between) > 0


@pytest.mark.parametrize("much", [15, 16, 22, 24])
def test_the_numbers_of_the_columns_do_not_run_together(much):
    figure = plot_risk(wide(24, much, 0.1))
    figure.draw_without_rendering()
    between = gaps(figure.axes[0].get_xticklabels())
    assert len(between) == much - 1
    assert min(between) > 4


def test_texts_are_drawn_as_they_are():
    figure = plot_risk(table())
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert "$10 & $20⏎<b>" in labels
    assert figure.png()[:4] == b"\x89PNG"


def test_one_cell_is_a_matrix_too():
    one = Sample(text="x")
    single = RiskTable(
        base="b",
        source="",
        utility="chrf",
        weighting="unique",
        hypotheses=(one,),
        evidence=(one,),
        weights=(1.0,),
        loss=((0.0,),),
        risk=(0.0,),
        best=0,
    )
    assert plot_risk(single).png()[:4] == b"\x89PNG"


def test_lightness_rises_all_along_the_ramp():
    lightness = LOSS_RAMP(np.linspace(0, 1, 64))[:, :3] @ (0.2126, 0.7152, 0.0722)
    assert np.all(np.diff(lightness) > 0)
