from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex

from labkit.plots import plot_against, plot_lines, plot_overlap, plot_points
from labkit.plots.lesson import KEPT, LEFT_OVER

WORDS = ("sun", "rain", "snow")
P, Q = (0.5, 0.3, 0.2), (0.2, 0.7, 0.1)


def heights(axes) -> list[float]:
    return [bar.get_height() for bar in axes.patches]


def legend(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_the_overlap_is_kept_and_what_is_rejected_weighs_what_is_owed():
    pair, drafts, base = plot_overlap(WORDS, P, Q).axes
    assert heights(pair) == [*P, *Q]
    np.testing.assert_allclose(heights(drafts), [0.2, 0.3, 0.1, 0.4], atol=1e-12)
    np.testing.assert_allclose(heights(base), [0.2, 0.3, 0.1, 0.3, 0.1], atol=1e-12)
    assert legend(drafts) == ["kept, 0.60", "rejected, 0.40"]
    assert legend(base) == ["kept, 0.60", "still owed, 0.40"]


def test_a_bar_beyond_the_noise_has_another_colour_and_a_hatch():
    right, wrong = plot_against(WORDS, P, {"right": P, "wrong": (0.5, 0.25, 0.25)}, 0.01).axes
    assert [to_hex(bar.get_facecolor()) for bar in right.patches] == [KEPT] * 3
    assert [to_hex(bar.get_facecolor()) for bar in wrong.patches] == [KEPT] + [LEFT_OVER] * 2
    assert [bar.get_hatch() or "" for bar in wrong.patches] == ["", "////", "////"]
    assert [axes.get_title("left") for axes in (right, wrong)] == ["right", "wrong"]


def test_noise_may_differ_by_word():
    (panel,) = plot_against(WORDS, P, {"it": (0.45, 0.35, 0.2)}, (0.1, 0.01, 0.1)).axes
    assert [bar.get_hatch() or "" for bar in panel.patches] == ["", "////", ""]


def test_the_envelope_is_the_least_of_the_lines():
    figure = plot_lines([0, 1, 2], {"a": [0, 1, 2], "b": [2, 1, 0]}, "x", "y", envelope=True)
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), [0, 1, 0])
    assert len(figure.axes[0].lines) == 3


@pytest.mark.parametrize("marks", [True, False])
def test_lines_carry_marks_where_they_are_asked_for(marks):
    (line,) = plot_lines([0, 1], {"a": [0, 1]}, "x", "y", marks=marks).axes[0].lines
    assert (line.get_marker() != "None") == marks


def test_a_doubling_axis_names_every_x_and_one_line_needs_no_legend():
    figure = plot_lines([1, 2, 8], {"a": [0, 1, 2]}, "x", "y", doubling=True)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["1", "2", "8"]
    assert figure.legends == []


def test_an_axis_of_heads_has_no_half_heads():
    figure = plot_lines([1, 2, 3], {"a": [0.2, 0.1, 0.3]}, "head", "right")
    figure.canvas.draw()
    named = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert {"1", "2", "3"} <= set(named)
    assert not any("." in name for name in named)


def test_names_of_one_point_stand_together():
    figure = plot_points([1, 2, 3], [3, 1, 2], {"mode": 2, "chosen": 1, "greedy": 2}, "x", "y")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["the others", "mode\ngreedy", "chosen"]


def test_the_legend_speaks_of_no_others_where_every_point_has_a_name():
    figure = plot_points([1, 2], [3, 1], {"mode": 1, "chosen": 0}, "x", "y")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mode", "chosen"]


def test_a_notebook_is_told_the_size_so_that_the_dots_are_fine():
    data, size = plot_lines([0, 1], {"a": [0, 1]}, "x", "y")._repr_png_()
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    assert (width, height) == (size["width"] * 2, size["height"] * 2)


def test_every_figure_can_be_drawn():
    for figure in (
        plot_overlap(WORDS, P, Q),
        plot_against(WORDS, P, {"it": Q}),
        plot_lines([0, 1], {"$a": [0, 1]}, "x", "y"),
        plot_points([0, 1], [0, 1], {"$a": 0}, "x", "y"),
    ):
        assert figure.png(dpi=40).startswith(b"\x89PNG")
