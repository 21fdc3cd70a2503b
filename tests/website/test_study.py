"""The page of the CPU study: its figures are those of the record, and change with it."""

from __future__ import annotations

import re

import pytest

from docs import stage, study
from labkit.records import StorageRow, StorageStudy

PAGE = (stage.ROOT / "docs" / "study.md").read_text(encoding="utf-8")


Ratio = tuple[float, float, float]


def row(
    storage: str,
    method: str,
    speeds: tuple[float, float],
    gain: Ratio = (1, 1, 1),
    of_fastest: Ratio = (0.5, 0.4, 0.6),
    identical: bool = True,
) -> StorageRow:
    """A row on natural text; both ratios with their bounds."""
    return StorageRow(
        text="natural",
        storage=storage,
        method=method,
        nodes=3,
        tokens_per_s=sum(speeds) / 2,
        tokens_per_step=1.5,
        speedup=gain[0],
        speedup_bounds=gain[1:],
        of_fastest=of_fastest[0],
        of_fastest_bounds=of_fastest[1:],
        speeds=speeds,
        identical=identical,
    )


def made(contention: float = 0.0) -> StorageStudy:
    rows = [
        row("float32", "vanilla", (20, 40)),
        row("float32", "mlp", (40, 77), (1.95, 1.9, 2)),
        row("float32", "eagle", (10, 20), (0.5, 0.4, 0.6)),
        row("float32", "medusa", (21, 40), (1, 0.9, 1.1)),
        row("q4_1", "vanilla", (60, 60)),
        row("q4_1", "mlp", (66, 66), (1.1, 1.05, 1.2), (1.1, 1.05, 1.2)),
        row("q4_1", "llama_cpp", (50, 50), (0.7, 0.6, 0.8), identical=False),
        row("q4_1", "llama_cpp_prompt_lookup", (40, 40), (0.7, 0.6, 0.8)),
    ]
    return StorageStudy(
        base="toy",
        threads=2,
        prompts=2,
        max_new_tokens=8,
        repeats=1,
        contention=contention,
        fastest=("q4_1", "vanilla"),
        absent={"draft_model": "No smaller model is there."},
        rows=tuple(rows),
    )


def test_findings_count_what_is_beyond_chance_and_name_the_best() -> None:
    natural, lookup, fastest, same = study.findings(made())
    assert natural.startswith(
        "**On natural text** 2 of 4 drafting methods are faster than vanilla with the same "
        "storage, 1 are slower, and of 1 the interval holds 1."
    )
    assert "`mlp` with `float32`: 1.95 times vanilla (1.90 to 2.00)" in natural
    assert "`float32` 1.95 (`mlp`), `q4_1` 1.10 (`mlp`)" in natural
    assert "`llama_cpp` with its own prompt lookup, on natural text, is 0.80 times" in lookup
    assert "`vanilla` with `q4_1`. On natural text, faster beyond chance: `mlp`" in fastest
    assert "`q4_1` (1.10)" in fastest
    assert "in 4 of the lab's own 4 drafting rows" in same


def test_every_place_of_the_page_is_filled_and_what_was_absent_is_said() -> None:
    text = study.filled(PAGE, made(), "Recorded by `labkit bench study`.")
    assert "$" not in text
    assert "| q4_1 | llama_cpp | 50.0 | 1.50 | 0.70 | 0.60 to 0.80 |" in text
    assert "* `draft_model`: No smaller model is there." in text
    assert "Recorded by `labkit bench study`." in text
    assert "mean little" not in text
    assert "took 40% of the processor" in study.filled(PAGE, made(0.4), "")


def test_no_figure_is_typed_into_the_page() -> None:
    prose = re.sub(r"`[^`]*`|\]\([^)]*\)|^\d\. ", "", PAGE, flags=re.MULTILINE)
    assert set(re.findall(r"\d+%?", prose)) <= {"32", "16", "4", "8", "95%", "1"}


@pytest.mark.parametrize("look", study.LOOKS)
def test_the_site_has_the_page_of_the_shipped_record_and_its_figures(look: str) -> None:
    pages = stage.own_pages()
    assert "Recorded by `labkit bench study" in pages["study.md"]
    assert f"(study-{look}.png){{.only-{look}}}" in pages["study.md"]
    assert pages[f"study-{look}.png"].startswith(b"\x89PNG")
