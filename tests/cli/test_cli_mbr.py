"""``labkit mbr``: what it prints is what sacrebleu makes of what it prints."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from click.testing import CliRunner
from sacrebleu.metrics import BLEU, CHRF

from labkit.cli import main
from labkit.cli._options import WEIGHTINGS
from labkit.records import Weighting


def decide(folder, *words: str) -> dict:
    command = ["mbr", "--base", str(folder), "--prompt", "tell", "--max-new-tokens", "6", "--json"]
    result = CliRunner().invoke(main, [*command, *words])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("weights", WEIGHTINGS)
@pytest.mark.parametrize(
    ("utility", "metric"), [("chrf", CHRF()), ("bleu", BLEU(effective_order=True))]
)
def test_every_risk_is_the_one_that_sacrebleu_gives(toy_folder, utility, metric, weights):
    said = decide(toy_folder, "--samples", "7", "--utility", utility, "--weights", weights)
    assert len(said["weights"]) == len(said["evidence"])
    assert sum(said["weights"]) == pytest.approx(1)
    risk = [
        sum(
            weight * (1 - metric.sentence_score(hypothesis, [item]).score / 100)
            for weight, item in zip(said["weights"], said["evidence"], strict=True)
        )
        for hypothesis in said["hypotheses"]
    ]
    assert said["risk"] == pytest.approx(risk, abs=1e-4)
    assert said["risk"][said["best"]] == min(said["risk"])


def test_the_seed_decides_the_samples(toy_folder):
    first = decide(toy_folder, "--samples", "5", "--seed", "1")
    again = decide(toy_folder, "--samples", "5", "--seed", "1")
    other = decide(toy_folder, "--samples", "5", "--seed", "2")
    assert first == again
    assert first["hypotheses"] != other["hypotheses"]


def test_uniform_evidence_lists_every_sample(toy_folder):
    assert len(decide(toy_folder, "--samples", "6")["evidence"]) == 6


def test_the_choices_offered_are_those_there_are():
    assert get_args(Weighting) == WEIGHTINGS


def test_a_person_sees_the_decision_first_and_then_its_rivals(toy_folder):
    words = ["--base", str(toy_folder), "--prompt", "tell", "--samples", "4"]
    result = CliRunner().invoke(main, ["mbr", *words, "--max-new-tokens", "3", "--top-k", "1"])
    assert result.exit_code == 0, result.stderr
    assert "risk" in result.stdout
    assert "0.0000" in result.stdout  # one text drawn four times: no loss against itself
