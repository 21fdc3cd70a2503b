"""``labkit train …``: the printed figures, and mistakes told before any work is done."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from labkit.cli import main
from labkit.cli.train import training_text
from labkit.paths import data_dir


def train(*words: str):
    return CliRunner().invoke(main, ["train", *words])


def test_eval_prints_tokens_per_step_of_each_tree_and_figures_of_each_head(tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    lines = [
        {"id": "a", "category": "talk", "prompt": "Hello! How are you"},
        {"id": "b", "category": "talk", "turns": ["The state of the union", "Go on"]},
    ]
    prompts.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    words = ["eval", "--base", "tiny", "--prompts", str(prompts), "--max-new-tokens", "24"]
    result = train(*words, "--json")
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    steps = said["tokens_per_step"]
    assert set(steps) == {"chain", "tree8", "tree16"}
    assert 1 <= steps["chain"] <= steps["tree16"] * 1.2
    assert all(set(head) == {"loss", "top1", "top4"} for head in said["heads"])
    assert 24 <= said["tokens"] <= 48
    shown = train(*words)
    assert f"{steps['chain']:.2f}" in shown.stdout
    short = json.loads(train(*words[:-1], "2", "--json").stdout)["heads"]  # for one head only
    assert short[0]["loss"] > 0
    assert short[1] == {"loss": None, "top1": None, "top4": None}
    assert "2     -" in train(*words[:-1], "2").stdout
    none = train(*words[:-1], "1")
    assert none.exit_code == 2
    assert none.stderr.strip().startswith("labkit: Every answer ended after one token")


def test_plan_prints_memory_time_and_batch():
    recipe = str(data_dir() / "recipes" / "published-7b.toml")
    words = ["plan", "--recipe", recipe, "--shape", "llama2-13b", "--gpu", "h100", "--gpus", "8"]
    said = json.loads(train(*words, "--json").stdout)
    assert said["gpus"] == 8
    assert said["memory"]["total"] > 2 * 13e9
    assert set(said["seconds"]) >= {"phase1", "phase2", "total"}
    shown = train(*words)
    assert "memory of a device" in shown.stdout
    assert "llama2-13b on 8 x h100" in shown.stdout


def test_the_end_of_a_run_is_a_row_for_each_head():
    text = training_text(
        {
            "final_loss": [3.25, 4.5],
            "accept": [0.5, 0.25],
            "tokens_per_step": 1.75,
            "steps": 1200,
            "tokens": 34567,
            "seconds": 61.2,
            "heads": "out/heads",
        }
    )
    assert "3.250" in text
    assert "25.0%" in text
    assert "1,200 steps, 34,567 tokens, 61 s; 1.75 tokens per step" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["all", "--recipe", "nowhere.toml", "--out", "out"], "nowhere.toml"),
        (["phase1", "--recipe", "nowhere.toml", "--out", "out"], "nowhere.toml"),
        (["phase2", "--recipe", "nowhere.toml", "--out", "out"], "nowhere.toml"),
        (["generate", "--recipe", "nowhere.toml"], "nowhere.toml"),
        (["plan", "--recipe", "nowhere.toml"], "nowhere.toml"),
        (["eval", "--prompts", "nowhere.jsonl"], "nowhere.jsonl"),
        (["all", "--recipe", "x.toml"], "--out"),
        (["everything"], "'everything'"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else value,
)
def test_what_cannot_be_done_is_one_sentence(words, said):
    result = train(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert said in result.stderr


def test_a_recipe_that_makes_no_sense_is_named_by_its_field(tmp_path):
    recipe = tmp_path / "odd.toml"
    recipe.write_text('name = "odd"\nbase = "tiny"\nhead_count = 3\n', encoding="utf-8")
    result = train("all", "--recipe", str(recipe), "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
