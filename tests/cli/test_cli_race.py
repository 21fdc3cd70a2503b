"""``labkit race``: the same text by both ways, and the figures that the lab promises to print."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from labkit.cli import main

PROMPTS = ("The state of the union is", "Hello! How are you", "12 times 4 =")


def race(*words: str):
    return CliRunner().invoke(main, ["race", "--base", "tiny", "--repeats", "1", *words])


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("method", ["mlp", "prompt_lookup"])
def test_both_ways_write_the_same(prompt, method):
    words = ["--prompt", prompt, "--max-new-tokens", "32", "--method", method, "--json"]
    result = race(*words)
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert said["identical"] is True
    assert said["ties"] == 0
    assert said["speedup"] > 0
    assert said["text"]
    plain, other = said["methods"]["vanilla"], said["methods"][method]
    assert plain["tokens"] == other["tokens"] <= 32
    assert plain["tokens_per_step"] == 1
    assert said["tokens_per_step"] == other["tokens_per_step"] >= 1


def test_heads_save_steps():
    said = json.loads(race("--prompt", PROMPTS[0], "--max-new-tokens", "32", "--json").stdout)
    assert said["methods"]["mlp"]["steps"] < said["methods"]["vanilla"]["steps"]
    assert said["tokens_per_step"] > 1.3


def test_a_person_sees_the_text_the_figures_and_the_verdict():
    result = race("--prompt", PROMPTS[0], "--max-new-tokens", "8")
    assert "the same text" in result.stdout
    assert "vanilla" in result.stdout
    assert result.stdout.startswith(
        json.loads(race("--prompt", PROMPTS[0], "--max-new-tokens", "8", "--json").stdout)["text"]
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prompt", " "], "empty"),
        (["--prompt", "word " * 2000], "context"),
        (["--prompt", "hello", "--max-new-tokens", "5000"], "5,000"),
        (["--prompt", "hello", "--max-new-tokens", "-1"], "-1"),
        (["--prompt", "hello", "--repeats", "0"], "0"),
        (["--prompt", "hello", "--method", "magic"], "'magic'"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else value,
)
def test_what_cannot_be_raced_is_one_sentence(words, said):
    result = race(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert said in result.stderr
