from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex

from labkit.plots import plot_storage, plot_study
from labkit.records import StorageRow, StorageStudy


def row(storage: str, method: str, speed: float) -> StorageRow:
    return StorageRow(
        storage=storage,
        method=method,
        nodes=3,
        tokens_per_s=speed,
        tokens_per_step=1.5,
        speedup=1.2,
        identical=True,
    )


STUDY = StorageStudy(
    base="toy",
    threads=2,
    prompts=3,
    max_new_tokens=8,
    repeats=1,
    contention=0.0,
    rows=(
        row("float32", "vanilla", 30),
        row("float32", "mlp", 45),
        row("q4_1", "vanilla", 80),
        row("q4_1", "llama_cpp", 70),
    ),
)


def test_each_storage_has_a_bar_for_each_of_its_methods_and_each_method_one_label() -> None:
    (axes,) = plot_storage(STUDY).axes
    assert [bar.get_height() for bar in axes.patches] == [30, 45, 80, 70]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["float32", "q4_1"]
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["vanilla", "mlp", "llama_cpp"]
    assert [text.get_text() for text in axes.texts] == ["30", "45", "80", "70"]
    plain, drafted, other, peer = (bar.get_facecolor() for bar in axes.patches)
    assert plain == other
    assert len({plain, drafted, peer}) == 3


def test_more_methods_and_storages_than_colours_are_drawn() -> None:
    methods = [row("float32", name, 30) for name in ("vanilla", *map(str, range(12)))]
    drawn = plot_storage(STUDY.model_copy(update={"rows": tuple(methods)}))
    assert len(drawn.axes[0].patches) == 13
    storages = tuple(gain("natural", f"storage {number}", "mlp", 1.5) for number in range(12))
    study = STUDY.model_copy(update={"rows": storages})
    assert len(plot_study(study).axes[0].get_yticklabels()) == 12


def gain(
    text: str, storage: str, method: str, speedup: float, identical: bool = True
) -> StorageRow:
    return row(storage, method, 30 * speedup).model_copy(
        update={
            "text": text,
            "speedup": speedup,
            "speedup_bounds": (speedup - 0.2, speedup + 0.3),
            "identical": identical,
        }
    )


GAINS = STUDY.model_copy(
    update={
        "rows": tuple(
            gain(text, storage, method, speedup + more, method == "mlp")
            for text, more in (("natural", 0), ("repetitive", 1))
            for storage, method, speedup in (
                ("float32", "vanilla", 1.0),
                ("float32", "mlp", 1.6),
                ("q4_1", "vanilla", 1.0),
                ("q4_1", "mlp", 1.1),
                ("q4_1", "llama_cpp", 0.8),
            )
        )
    }
)


@pytest.mark.parametrize("dark", [False, True])
def test_each_gain_has_its_mark_and_its_interval_on_the_page_of_its_text(dark: bool) -> None:
    figure = plot_study(GAINS, dark)
    natural, repetitive = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "natural text",
        "repetitive text",
    ]
    names = [label.get_text() for label in natural.get_yticklabels()]
    assert names == ["mlp, float32", "mlp, q4_1", "llama_cpp, q4_1"]
    for axes, more in ((natural, 0), (repetitive, 1)):
        marks = [line for line in axes.lines if len(line.get_xdata()) == 1]
        assert [line.get_xdata()[0] for line in marks] == [1.6 + more, 1.1 + more, 0.8 + more]
        assert [line.get_markerfacecolor() == "none" for line in marks] == [False, False, True]
        spans = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 2]
        assert np.allclose(spans[1], (1.4 + more, 1.9 + more))
    dark_page = (
        np.mean([int(to_hex(figure.get_facecolor())[i : i + 2], 16) for i in (1, 3, 5)]) < 99
    )
    assert dark_page == dark
