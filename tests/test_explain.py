"""``labkit explain``: each planted cause is named, and nothing is named without one."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from labkit import threads
from labkit.cli import main
from labkit.models import load
from labkit.paths import data_dir
from labkit.training.answers import write_shard

TEXTS = ["The old house stood", "She opened the door and", "In the morning they went"]


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr(threads, "contention", lambda: 0.0)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": text}) for text in TEXTS), encoding="utf-8")
    return path


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A copy of the tiny model that may be changed."""
    copy = shutil.copytree(data_dir() / "models" / "tiny", tmp_path / "tiny")
    (copy / "manifest.json").unlink(missing_ok=True)
    return copy


@pytest.fixture
def heads(tmp_path: Path) -> Path:
    """A copy of its heads."""
    return shutil.copytree(data_dir() / "heads" / "tiny", tmp_path / "heads")


def causes(base: Path | str, prompts: Path, *more: str) -> tuple[set[str], dict]:
    words = ["explain", "--base", str(base), "--prompts", str(prompts), "--device", "cpu", *more]
    done = CliRunner().invoke(main, [*words, "--max-new-tokens", "24", "--json"])
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    return {cause["cause"] for cause in found["causes"]}, found


def test_heads_on_their_own_model_have_no_fault_of_acceptance(prompts):
    named, found = causes("tiny", prompts)
    assert not named & {"heads", "template", "vocabulary", "prompts", "contention"}
    assert found["identical"]
    first = found["acceptance"][0]
    assert 0.1 < first["unconditional"] <= first["conditional"]
    assert first["in_training"] is not None
    assert sum(found["shares"].values()) == pytest.approx(1)
    assert found["tokens_per_step"] > 1


def test_another_chat_template_is_named(prompts, tiny):
    template = "{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"
    (tiny / "chat_template.jinja").write_text(template, encoding="utf-8")
    assert "template" in causes(tiny, prompts)[0]


def test_heads_of_another_model_are_named(prompts, tiny, heads):
    weights = load_file(tiny / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name, value in weights.items():
        noise = torch.randn(value.shape, generator=generator) * value.float().std()
        weights[name] = (value.float() + noise).to(value.dtype)
    save_file(weights, tiny / "model.safetensors", metadata={"format": "pt"})
    named, _ = causes(tiny, prompts, "--heads", str(heads))
    assert "heads" in named


def test_a_draft_vocabulary_of_64_tokens_is_named(prompts, heads):
    weights = load_file(heads / "model.safetensors")
    weights["draft_ids"] = weights["draft_ids"][:64]
    save_file(weights, heads / "model.safetensors")
    named, found = causes("tiny", prompts, "--heads", str(heads))
    assert "vocabulary" in named
    assert "heads" not in named
    assert found["coverage"] < 0.85


def test_a_busy_core_is_named_and_no_time_is_blamed(prompts, monkeypatch):
    monkeypatch.setattr(threads, "contention", lambda: 0.4)
    named, _ = causes("tiny", prompts)
    assert named == {"contention"}


def test_likeness_is_the_share_of_pairs_that_training_prompts_have(prompts, monkeypatch, tmp_path):
    base = load("tiny")
    rows = [base.tokenizer.encode(text) for text in TEXTS[:2]]
    answers = tmp_path / "data" / "answers" / "tiny"
    answers.mkdir(parents=True)
    end = base.tokenizer.encode("In the morning they went")
    write_shard(answers / "shard-00000.safetensors", [row + end for row in rows], [*map(len, rows)])
    monkeypatch.setattr("labkit.explain.data_dir", lambda: tmp_path / "data")
    inside = [pair for row in rows for pair in pairwise(row)]
    outside = [pair for pair in pairwise(end) if pair not in inside]
    assert outside
    _, found = causes("tiny", prompts)
    assert found["likeness"] == pytest.approx(1 - len(outside) / len([*inside, *pairwise(end)]))


def test_the_report_is_text_for_a_person(prompts):
    words = ["explain", "--base", "tiny", "--prompts", str(prompts), "--max-new-tokens", "8"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.stderr
    assert "tokens per step" in done.stdout
    assert "accepted if reached" in done.stdout
