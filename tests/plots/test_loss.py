from __future__ import annotations

import numpy as np
import pytest

from labkit.plots import plot_loss, plot_phases
from labkit.plots.training import smooth
from labkit.records import LossLog, LossPoint, ValidationPoint


def log(name: str = "run", looks: bool = True, phases: tuple[int, ...] = (1, 1, 2, 2)) -> LossLog:
    points = [
        LossPoint(phase=phase, step=step, tokens=step, loss=(4.0 - step, 5.0), lr=1, seconds=step)
        for step, phase in enumerate(phases)
    ]
    validation = [
        ValidationPoint(phase=1, step=step, tokens=step, loss=(3.5, 4.5), accept=(0.4, 0.1 * step))
        for step in (1, 3)
    ]
    return LossLog(
        name=name,
        base="tiny",
        heads=2,
        points=tuple(points),
        validation=tuple(validation) if looks else (),
    )


def labels(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_each_head_has_one_entry():
    assert labels(plot_loss(log())) == ["head 1", "head 2"]


def test_two_runs_are_told_apart_by_name_and_stroke():
    figure = plot_loss(log("one"), log("other"))
    assert labels(figure) == [
        "one, head 1",
        "one, head 2",
        "other, head 1",
        "other, head 2",
    ]
    strokes = {
        line.get_linestyle() for line in figure.axes[0].lines if "other" in str(line.get_label())
    }
    assert strokes == {"--"}


def test_the_phases_are_drawn_apart_and_named():
    axes = plot_loss(log()).axes[0]
    assert [text.get_text() for text in axes.texts] == ["phase 1", "phase 2"]
    raw = [list(line.get_xdata()) for line in axes.lines if line.get_linewidth() == 0.6]
    assert raw == [[0, 1], [2, 3], [0, 1], [2, 3]]
    edges = [line for line in axes.lines if list(line.get_xdata()) == [1.5, 1.5]]
    assert len(edges) == 1


def test_acceptance_stands_on_a_panel_of_its_own():
    figure = plot_loss(log())
    assert len(figure.axes) == 2
    curves = [line for line in figure.axes[1].lines if len(line.get_xdata()) == 2]
    np.testing.assert_allclose(curves[1].get_ydata(), [0.1, 0.3])
    assert len(plot_loss(log(looks=False)).axes) == 1


def test_a_run_of_one_phase_has_no_boundary():
    axes = plot_loss(log(phases=(2, 2, 2))).axes[0]
    assert [text.get_text() for text in axes.texts] == ["phase 2"]
    assert not axes.patches


@pytest.mark.filterwarnings("error")
def test_a_run_without_a_step_is_an_empty_figure():
    assert plot_loss(LossLog(name="n", base="b", heads=1)).png()[:4] == b"\x89PNG"


def test_smoothing_is_unbiased_from_the_first_value():
    np.testing.assert_allclose(smooth([3.0, 3.0], 50), [3.0, 3.0])
    assert smooth([1.0, 5.0, 2.0], 1).tolist() == [1.0, 5.0, 2.0]
    np.testing.assert_allclose(smooth([0.0, 1.0], 2), [0, 2 / 3])


def test_each_phase_has_a_panel_of_its_own_with_only_its_steps() -> None:
    made = log(phases=(1, 1, 2))
    figure = plot_phases(made)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["run, phase 1", "run, phase 2"]
    for axes, phase in zip(figure.axes, (1, 2), strict=True):
        drawn = {int(x) for line in axes.lines for x in line.get_xdata()}
        steps = {p.step for p in (*made.points, *made.validation) if p.phase == phase}
        assert drawn == steps
    assert len(plot_phases(log(phases=(2, 2, 2))).axes) == 1
