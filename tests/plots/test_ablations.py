from __future__ import annotations

from matplotlib.colors import to_hex

from labkit.plots import plot_ablations
from labkit.plots.figure import FAINT, INK
from labkit.records import AblationRow, AblationStudy, HeldOutScore


def row(name: str, steps: float, changes: dict, seed: int = 0, question: str = "") -> AblationRow:
    score = HeldOutScore(material="text", loss=(2.0,), accept=(0.5,), tokens_per_step=steps)
    return AblationRow(
        question=question, name=name, changes=changes, seed=seed, steps=9, tokens=9, scores=(score,)
    )


STUDY = AblationStudy(
    name="s",
    base="tiny",
    recipe={},
    rows=(
        row("baseline", 2.0, {}, 0),
        row("baseline", 2.2, {}, 1),
        row("wider", 2.1, {"a": 1}, question="How wide?"),
        row("hard", 1.7, {"b": 1}, question="Which labels?"),
        row("harder", 2.6, {"b": 2}, question="Which labels?"),
    ),
)


def marks(axes):
    return [line for line in axes.lines if len(line.get_xdata()) == 1]


def test_each_change_has_a_mark_at_its_tokens_per_step():
    axes = plot_ablations(STUDY, "text").axes[0]
    assert [line.get_xdata()[0] for line in marks(axes)] == [2.1, 1.7, 2.6]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["wider", "hard", "harder"]
    heights = [line.get_ydata()[0] for line in marks(axes)]
    assert heights[1] - heights[0] > heights[2] - heights[1] == 1  # one question, one block


def test_a_change_within_chance_is_faint():
    axes = plot_ablations(STUDY, "text").axes[0]
    colours = [to_hex(line.get_color()) for line in marks(axes)]
    assert colours == [FAINT, INK, INK]
    band = axes.patches[0]
    assert (band.get_x(), band.get_x() + band.get_width()) == (2.0, 2.2)
