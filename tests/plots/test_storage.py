from __future__ import annotations

from labkit.plots import plot_storage
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
