"""``labkit bench gpu``: every part runs in its small form, and no part's fault costs the others."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from labkit import gpu
from labkit.cli import main
from labkit.errors import LabkitError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))


def test_every_part_is_measured_in_its_small_form_and_recorded(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    words = ["bench", "gpu", "--device", "cpu", "--quick", "--minutes", "60", "--out", str(out)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.stderr
    record = json.loads(out.read_text(encoding="utf-8"))
    parts = record["parts"]
    assert tuple(parts) == gpu.PARTS
    assert {name: part.get("error") for name, part in parts.items()} == dict.fromkeys(gpu.PARTS)
    for part, figure in gpu.WANTED:
        assert parts[part][figure] > 0
        assert figure in done.stdout
    assert parts["speculation"]["identical"] is True
    assert parts["speculation"]["ties_excused"] == 0
    assert len(parts["speculation"]["tree"]) == gpu.QUICK.nodes
    assert parts["sampling"]["draws"] == gpu.QUICK.seeds
    assert parts["sampling"]["p_value"] > gpu.REJECTED
    assert set(parts["serving"]["tpot_gain"]) == {"1", "2"}
    assert parts["serving"]["shape"] == "tiny-random"
    assert record["card"] is None
    assert record["provenance"]["command"] == " ".join(["labkit", *words])
    assert record["commit"] is None or len(record["commit"]) == 40


def test_a_part_that_fails_is_recorded_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ours(self: gpu.Measurement) -> dict[str, float]:
        raise LabkitError("The card is too small.")

    def torchs(self: gpu.Measurement) -> dict[str, float]:
        raise RuntimeError("CUDA error\nsecond line")

    for name in gpu.PARTS:
        monkeypatch.setattr(gpu.Measurement, name, lambda self: {"figure": 1.0})
    monkeypatch.setattr(gpu.Measurement, "training", ours)
    monkeypatch.setattr(gpu.Measurement, "sampling", torchs)
    parts = gpu.bench_gpu("cpu", quick=True)["parts"]
    assert parts["training"]["error"] == "The card is too small."
    assert parts["sampling"]["error"] == "RuntimeError: CUDA error"
    assert parts["serving"]["figure"] == 1
    late = gpu.bench_gpu("cpu", quick=True, minutes=0)["parts"]
    assert all("Not run: 0 minutes had passed." in part["error"] for part in late.values())


def test_the_largest_shape_that_fits_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def too_large(shape: str, *_: object, **__: object) -> None:
        tried.append(shape)
        raise LabkitError(f"{shape} needs more memory.")

    monkeypatch.setattr(gpu, "bench_replayed", too_large)
    with pytest.raises(LabkitError, match="No shape fits: llama2-13b needs more memory"):
        gpu.Measurement(gpu.WHOLE, "cpu", print).serving()
    assert list(dict.fromkeys(tried)) == list(gpu.WHOLE.shapes)


def test_chi_square_accepts_the_right_distribution_and_rejects_another() -> None:
    expected = {(0, 0): 0.5, (0, 1): 0.3, (1, 0): 0.199, (1, 1): 0.001}
    right = Counter({(0, 0): 510, (0, 1): 290, (1, 0): 199, (1, 1): 1})
    wrong = Counter({(0, 0): 600, (0, 1): 200, (1, 0): 199, (1, 1): 1})
    assert gpu.chi_square(right, expected)["p_value"] > 0.5
    assert gpu.chi_square(wrong, expected)["p_value"] < 1e-6
    impossible = Counter({(0, 0): 500, (0, 1): 300, (2, 2): 200})
    assert gpu.chi_square(impossible, expected)["p_value"] < 1e-6


def test_a_record_is_written_into_a_folder_that_is_there() -> None:
    done = CliRunner().invoke(main, ["bench", "gpu", "--out", "no/such/folder/gpu.json"])
    assert done.exit_code == 2
    assert done.stderr.startswith("labkit: There is no folder no/such/folder")
