"""`labkit bench serving`: the figures it promises, and what it says to those who ask wrongly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from labkit.cli import main
from labkit.errors import LabkitError
from labkit.records import ServingLog
from labkit.serving.bench import Level, Loads
from labkit.widgets import ServingCurves


def bench(*words: str) -> Result:
    return CliRunner().invoke(main, ["bench", "serving", *words])


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, str]:
    out = tmp_path_factory.mktemp("out") / "log.json"
    words = ("--base", "tiny", "--users", "1,3", "--requests", "6", "--max-new-tokens", "12")
    result = bench(*words, "--check", "--out", str(out), "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout), out, result.stderr


def test_every_load_and_method_has_a_row_with_its_spreads(measured) -> None:
    said, _, _ = measured
    rows = [row for row in said["rows"] if row["origin"] == "measured"]
    assert [(row["users"], row["method"]) for row in rows] == [
        (1, "vanilla"),
        (1, "mlp"),
        (3, "vanilla"),
        (3, "mlp"),
    ]
    for row in rows:
        assert (row["requests"], row["errors"]) == (6, 0)
        assert row["tokens_per_s"] > 0
        for latency in ("ttft_ms", "itl_ms", "tpot_ms"):
            assert row[latency]["p90"] >= row[latency]["p50"] > 0
            assert row[latency]["mean"] > 0
        assert row["tokens_per_step"] >= 1
    assert all(row["nodes_per_step"] == 0 for row in rows if row["method"] == "vanilla")


def test_the_number_of_drafts_for_each_batch_is_told(measured) -> None:
    told = measured[0]["decisions"]
    assert list(told) == ["mlp"]
    assert [line.split(":")[0] for line in told["mlp"]] == ["batch of 1", "batch of 2"]
    drafted = [row["nodes_per_step"] for row in measured[0]["rows"] if row["method"] == "mlp"]
    assert ("draft 0 nodes" in told["mlp"][0]) == (drafted[0] == 0)


def test_answers_are_the_same_at_every_load_and_by_every_method(measured) -> None:
    assert measured[0]["identical"] is True


def test_the_same_users_are_predicted_and_the_error_is_shown(measured) -> None:
    said, _, _ = measured
    assert [check["users"] for check in said["checks"]] == [1, 3]
    for check in said["checks"]:
        assert check["error"] == pytest.approx(check["predicted_gain"] / check["measured_gain"] - 1)
    simulated = [row for row in said["rows"] if row["origin"] == "simulated"]
    assert len(simulated) == 4


def test_the_record_is_kept_and_drawn(measured) -> None:
    said, out, _ = measured
    log = ServingLog.load(out)
    assert [row.model_dump(mode="json") for row in log.rows] == said["rows"]
    assert log.provenance is not None
    assert "--base tiny" in log.provenance.command
    assert "at 1 (measured)" in ServingCurves(log).summary()


def test_how_it_goes_is_said_on_standard_error(measured) -> None:
    assert "3 users, mlp: TTFT" in measured[2]


def test_requests_at_a_rate_are_measured_too() -> None:
    words = ("--base", "tiny", "--rates", "30", "--requests", "6", "--max-new-tokens", "8")
    result = bench(*words, "--methods", "vanilla", "--slots", "2")
    assert result.exit_code == 0, result.stderr
    assert "30/s" in result.stdout
    assert "vanilla" in result.stdout


def test_short_prompts_and_answers_are_measured(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"id": "1", "category": "c", "prompt": "Hello"}\n', encoding="utf-8")
    words = ("--base", "tiny", "--users", "1", "--requests", "2", "--prompts", str(prompts))
    for most in ("8", "1"):
        result = bench(*words, "--max-new-tokens", most, "--json")
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["rows"][0]["errors"] == 0


def test_a_gpu_is_computed_for_a_person_and_for_a_program() -> None:
    words = ("--simulate", "--model-params", "13e9", "--gpu", "a100", "--acceptance", "0.6,0.5,0.4")
    said = json.loads(bench(*words, "--json").stdout)
    assert [row["users"] for row in said["rows"]][::2] == [1, 2, 4, 8, 16, 32, 64, 128]
    assert {row["origin"] for row in said["rows"]} == {"simulated"}
    text = bench(*words, "--users", "1,8").stdout
    assert "13B on NVIDIA A100 80 GB" in text
    assert "which the lecture calls inter-token latency" in text


def test_the_shipped_heads_acceptance_is_taken_where_none_is_given() -> None:
    words = ("--base", "tiny", "--simulate", "--users", "1", "--json")
    shipped = json.loads(bench(*words).stdout)["rows"][1]["tokens_per_step"]
    assert shipped > 1.3
    worse = json.loads(bench(*words, "--acceptance", "0.1").stdout)["rows"][1]
    assert worse["tokens_per_step"] < shipped


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--users", "1,x"], "'1,x' is not a list of whole numbers above 0"),
        (["--users", "0"], "'0' is not a list of whole numbers above 0"),
        (["--rates", "-2"], "'-2' is not a list of numbers above 0"),
        (["--rates", "inf"], "'inf' is not a list of numbers above 0"),
        (["--requests", "0"], "0"),
        (["--users", "1", "--rates", "1"], "Give --users"),
        (
            ["--simulate", "--url", "http://localhost:1"],
            "Give only one of --simulate, --url and --shape",
        ),
        (["--simulate", "--gpu", "b17"], "b17"),
        (["--simulate", "--model-params", "5"], "5 parameters"),
        (["--simulate", "--acceptance", "1.5"], "a share between 0 and 1"),
        (["--simulate", "--rates", "1", "--acceptance", "0.5"], "give no rates"),
        (["--base", "nobody/knows-this-one", "--simulate"], "No record of heads"),
        (["--base", "tiny", "--methods", "magic", "--users", "1"], "There is no method 'magic'"),
        (["--base", "tiny", "--max-new-tokens", "5000"], "5,000"),
        (["--base", "tiny", "--methods", "vanilla", "--check", "--users", "1"], "name both"),
        (["--prompts", "no-such-file"], "no-such-file"),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], said: str) -> None:
    result = bench(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert said in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_prompts_come_in_an_order_by_seed_all_before_any_again() -> None:
    prompts = [str(i) for i in range(7)]

    def chosen(seed: int) -> list[str]:
        return Loads([Level(16)], requests=9, seed=seed).choose(prompts)

    assert len(chosen(3)) == 16
    assert sorted(chosen(3)[:7]) == sorted(chosen(3)[7:14]) == prompts
    assert chosen(3) == chosen(3)
    assert chosen(3) != chosen(4)
    with pytest.raises(LabkitError, match="no prompt"):
        Loads([Level()]).choose([])
    with pytest.raises(LabkitError, match="at least 1 of each"):
        Loads([])
