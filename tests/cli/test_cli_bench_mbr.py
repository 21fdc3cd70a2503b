"""``labkit bench utilities`` and ``labkit bench translation``: figures of every system."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from labkit.cli import main
from labkit.mbr.conditional import OfModel


def bench(*words: str):
    return CliRunner().invoke(main, ["bench", *words])


@pytest.mark.parametrize("utility", ["chrf", "bleu"])
def test_a_matrix_is_timed_and_agrees_with_sacrebleu(utility):
    result = bench("utilities", "--utility", utility, "--size", "40", "--json")
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert said["utility"] == utility
    assert said["seconds"] > 0
    assert said["ratio_sacrebleu"] > 0
    assert said["max_abs_difference"] <= 1e-4
    assert "ratio_fastchrf" in said


def test_a_person_reads_the_figures_in_sentences():
    assert "times as fast as sacrebleu" in bench("utilities", "--size", "20").stdout


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("ein Haus\ta house\nzwei Wege\ttwo ways\nja\tyes\n", encoding="utf-8")
    return path


def test_every_system_has_its_scores_and_its_time(toy_folder, pairs, tmp_path):
    words = ["translation", "--base", str(toy_folder), "--pairs", str(pairs), "--samples", "4"]
    words += ["--max-new-tokens", "5", "--journal", str(tmp_path / "journal")]
    result = bench(*words, "--json")
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert set(said["systems"]) == {"greedy", "beam", "sample", "mbr", "oracle"}
    for of in said["systems"].values():
        assert set(of) == {"bleu", "chrf", "seconds"}
    assert said["segments"] == 3
    again = json.loads(bench(*words, "--json").stdout)
    assert again == said  # out of the journal: even the times are those of the first run
    shown = bench(*words).stdout
    assert "oracle" in shown
    assert "chrf" in shown.lower()


def test_every_choice_is_measured_with_an_interval(toy_folder, pairs):
    words = ["choices", "--base", str(toy_folder), "--pairs", str(pairs), "--samples", "4"]
    words += ["--max-new-tokens", "5", "--resamples", "50"]
    result = bench(*words, "--json")
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert said["segments"] == 3
    chrf = {
        name: [row for row in said[name] if row["metric"] == "chrf"]
        for name in ("samples", "utilities", "weightings")
    }
    assert [row["system"] for row in chrf["samples"]] == ["1", "2", "4"]
    assert {row["system"] for row in chrf["weightings"]} == {"uniform", "counts", "model", "unique"}
    assert "most frequent" in [row["system"] for row in chrf["utilities"]]
    for row in (row for rows in chrf.values() for row in rows):
        assert row["low"] <= row["score"] <= row["high"]
        assert row["gain_low"] <= row["gain"] <= row["gain_high"]
    shown = bench(*words).stdout
    assert "over uniform" in shown
    assert "paired bootstrap" in shown


@pytest.mark.parametrize("command", ["uncertainty", "sets"])
def test_what_is_beyond_one_answer_is_measured_with_an_interval(command, toy_folder, pairs):
    words = [command, "--base", str(toy_folder), "--pairs", str(pairs), "--samples", "4"]
    words += ["--max-new-tokens", "5", "--resamples", "20"]
    result = bench(*words, "--json")
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert said["segments"] == 3
    rows = said["areas" if command == "uncertainty" else "sets"]
    value, gain = ("area", "excess") if command == "uncertainty" else ("oracle", "gain")
    for row in rows:
        assert row["low"] <= row[value] <= row["high"]
        assert row[f"{gain}_low"] <= row[gain] <= row[f"{gain}_high"]
    shown = bench(*words).stdout
    for row in rows:
        assert row["score" if command == "uncertainty" else "way"] in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sets", "--metric", "taste"], "'taste'"),
        (["uncertainty", "--epsilon", "2"], "epsilon is 2"),
        (["choices", "--utility", "taste"], "'taste'"),
        (["utilities", "--utility", "taste"], "'taste'"),
        (["utilities", "--size", "0"], "0"),
        (["translation", "--pairs", "nowhere.tsv"], "nowhere.tsv"),
        (["translation"], "--pairs"),
        (["nothing"], "'nothing'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_what_cannot_be_measured_is_one_sentence(words, said):
    result = bench(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert said in result.stderr


def test_a_row_without_a_tab_is_named(toy_folder, tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("ein Haus\ta house\nno tab here\n", encoding="utf-8")
    result = bench("translation", "--base", str(toy_folder), "--pairs", str(path))
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("labkit: ")
    assert "2" in result.stderr


def test_columns_are_named_or_refused_before_a_model_is_loaded(toy_folder, tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("1\tein Haus\ta house\n", encoding="utf-8")
    words = ["--pairs", str(path), "--samples", "2", "--max-new-tokens", "4", "--json"]
    refused = bench("translation", "--base", "no-such-model", *words)
    assert refused.exit_code == 2
    assert "3 columns" in refused.stderr
    done = bench("translation", "--base", str(toy_folder), *words, "--columns", "2,3")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["segments"] == 1


def test_a_source_that_is_too_long_is_found_before_anything_is_translated(toy_folder, tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("ein Haus\ta house\n" + "ein Haus " * 2000 + "\ta house\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OfModel, "begin", None)  # nothing may be translated
        result = bench("translation", "--base", str(toy_folder), "--pairs", str(path))
    assert result.exit_code == 2
    assert "Source 2: The prompt has 18,000 tokens" in result.stderr
