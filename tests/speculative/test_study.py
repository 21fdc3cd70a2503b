"""The study: every method with every storage, in turns, with intervals over prompts."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from labkit.bootstrap import interval, ratio, resampled
from labkit.cli import main
from labkit.errors import LabkitError
from labkit.questions import Question, read_questions, sample
from labkit.records import StorageStudy
from labkit.speculative.bench import PEERS, VANILLA
from labkit.speculative.decoder import METHODS, Decoder
from labkit.speculative.study import own_prompts, storage_study
from tests.speculative.conftest import FakeLlama, with_gguf

QUESTIONS = [
    Question(id="a", category="natural", turns=("Say a.",)),
    Question(id="b", category="natural", turns=("Say b, and again.", "A second turn.")),
    Question(id="c", category="repetitive", turns=("c c c c c c",)),
]


pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture
def decoders(decoder: Decoder, llama_cpp: type[FakeLlama], tmp_path: Path) -> list[Decoder]:
    """The toy model twice: as if it had blocks of 4 bits, and in bfloat16."""
    full = with_gguf(decoder, tmp_path / "base")
    assert full.engine.exact
    full.storage = "q4_1"  # the toy has no blocks; llama.cpp is a fake
    return [full, Decoder(full.base, decoder.folder, max_nodes=3, storage="bfloat16")]


def test_storages_take_turns_and_each_is_compared_with_its_own_vanilla(
    decoders: list[Decoder],
) -> None:
    told: list[str] = []
    methods = ("mlp", "llama_cpp", "llama_cpp_prompt_lookup", "transformers", "medusa")
    study = storage_study(decoders, QUESTIONS, methods, 6, 1, watch=told.append)
    arms = [
        ("q4_1", "vanilla", 0),
        ("q4_1", "mlp", 6),
        ("q4_1", "llama_cpp", 0),
        ("q4_1", "llama_cpp_prompt_lookup", 0),
        ("bfloat16", "vanilla", 0),
        ("bfloat16", "mlp", 3),
    ]
    assert [(row.text, row.storage, row.method, row.nodes) for row in study.rows] == [
        (text, *arm) for text in ("natural", "repetitive") for arm in arms
    ]
    assert study.texts == ("natural", "repetitive")
    assert all(row.identical and row.ties == 0 for row in study.rows)
    assert {row.speedup for row in study.rows if row.method == VANILLA} == {1}
    assert study.rows[3].tokens_per_step == 2
    assert (study.prompts, study.contention) == (3, 0.02)
    assert study.bandwidth_gb_s is not None
    assert "storage float32" in study.absent["transformers"]
    assert "no heads" in study.absent["medusa"]
    assert StorageStudy.from_json(study.to_json()) == study
    assert any("trees of 3 nodes" in line for line in told)


def test_ratios_are_of_means_over_the_same_prompts_and_lie_in_their_intervals(
    decoders: list[Decoder],
) -> None:
    study = storage_study(decoders, QUESTIONS, ("mlp", "llama_cpp"), 6, 1)
    speeds = {(row.text, row.storage, row.method): row.speeds for row in study.rows}
    whole = {
        arm: statistics.fmean([*speeds["natural", *arm], *speeds["repetitive", *arm]])
        for _, *arm in map(list, speeds)
        for arm in [tuple(arm)]
        if arm[1] in (VANILLA, "llama_cpp")
    }
    assert study.fastest == max(whole, key=lambda arm: whole[arm])
    for row in study.rows:
        assert len(row.speeds) == (2 if row.text == "natural" else 1)
        assert row.tokens_per_s == pytest.approx(statistics.fmean(row.speeds))
        plain = speeds[row.text, row.storage, VANILLA]
        fastest = speeds[row.text, *study.fastest]
        assert row.speedup == pytest.approx(row.tokens_per_s / statistics.fmean(plain))
        assert row.of_fastest == pytest.approx(row.tokens_per_s / statistics.fmean(fastest))
        for value, (low, high) in (
            (row.speedup, row.speedup_bounds),
            (row.of_fastest, row.of_fastest_bounds),
        ):
            assert low - 1e-9 <= value <= high + 1e-9


def test_bounds_of_a_ratio_are_those_of_the_pairs() -> None:
    rng = np.random.default_rng(1)
    hard = np.exp(rng.normal(0, 1, 40))  # speeds differ far more between prompts than by method
    value, (low, high) = ratio(1.5 * hard, hard)
    assert (value, low, high) == pytest.approx((1.5, 1.5, 1.5))
    other = 1.5 * hard * np.exp(rng.normal(0, 0.1, 40))
    value, (low, high) = ratio(other, hard)
    assert low < value < high
    drawn = resampled(40)
    means = [other[row].mean() / hard[row].mean() for row in drawn]
    assert (low, high) == pytest.approx(tuple(interval(np.array(means))))


def test_arms_are_run_in_another_order_at_each_prompt_and_the_seed_decides(
    decoders: list[Decoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    from labkit.speculative import study as module

    ran: list[str] = []
    ready = module.runners

    def told(decoder: Decoder, *given: object) -> object:
        found, lacking = ready(decoder, *given)

        def noting(name: str) -> object:
            return lambda ids: (ran.append(name), found[name.split()[1]](ids))[1]

        return {m: noting(f"{decoder.storage} {m}") for m in found}, lacking

    monkeypatch.setattr(module, "runners", told)

    def order(seed: int) -> list[str]:
        ran.clear()
        storage_study(decoders, QUESTIONS, ("mlp", "prompt_lookup"), 4, 1, seed)
        return [*ran]

    first = order(0)
    rounds = [first[place : place + 6] for place in (0, 6, 12)]
    assert [sorted(one) for one in rounds] == [sorted(rounds[0])] * 3
    assert rounds[0] != rounds[1]
    assert order(0) == first
    assert order(1) != first


def test_own_prompts_are_natural_and_repetitive_and_the_seed_draws_them() -> None:
    drawn = own_prompts(6, seed=0)
    assert [one.category for one in drawn] == ["natural"] * 6 + ["repetitive"] * 6
    kinds = Counter(one.id.rpartition("-")[0] for one in drawn[:6])
    assert set(kinds.values()) == {1}
    assert own_prompts(6, seed=0) == drawn
    assert own_prompts(6, seed=1) != drawn


def test_a_sample_has_as_many_of_each_category_as_can_be() -> None:
    questions = [Question(str(n), "few" if n < 2 else "many", ("x",)) for n in range(10)]
    counts = Counter(one.category for one in sample(questions, 5, np.random.default_rng(0)))
    assert counts == {"few": 2, "many": 3}
    assert len(sample(questions, 99, np.random.default_rng(0))) == 10


def test_study_command_measures_tiny_and_lists_what_is_absent(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    lines = [{"id": one.id, "category": one.category, "prompt": one.turns[0]} for one in QUESTIONS]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    out = tmp_path / "study.json"
    words = ["bench", "study", "--base", "tiny", "--prompts", str(path), "--tokens", "4"]
    words += ["--seed", "3", "--out", str(out)]
    done = CliRunner().invoke(main, [*words, "--json"])
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    study = StorageStudy.load(out)
    assert said == study.model_dump(mode="json")
    own = {row.method for row in study.rows} - set(PEERS)
    assert own == set(METHODS) - {"draft_model"}
    assert {row.storage for row in study.rows} == {"float32", "bfloat16"}
    assert set(study.absent) == {
        "q4_1",
        "q4_1_int8",
        "draft_model",
        "transformers_assisted",
        "llama_cpp",
        "llama_cpp_prompt_lookup",
    }
    assert all(row.identical for row in study.rows if row.method not in PEERS)
    assert study.provenance.command == " ".join(
        ["labkit", *words[:6], "--max-new-tokens", *words[7:]]
    )
    assert study.provenance.seed == 3


def test_storage_command_keeps_its_methods_and_joins_the_texts(tmp_path: Path) -> None:
    out = tmp_path / "study.json"
    words = ["bench", "storage", "--base", "tiny", "--max-new-tokens", "2", "--repeats", "2"]
    done = CliRunner().invoke(main, [*words, "--out", str(out)])
    assert done.exit_code == 0, done.stderr
    assert "Without q4_1_int8" in done.stderr
    study = StorageStudy.load(out)
    assert study.provenance.command == " ".join(["labkit", *words, "--out", str(out)])
    assert [(row.text, row.storage, row.method) for row in study.rows] == [
        ("all", storage, method)
        for storage in ("float32", "bfloat16")
        for method in ("vanilla", "mlp", "mlp_lookup")
    ]
    assert (study.prompts, study.repeats) == (12, 2)
    assert "x fastest plain" in done.stdout


@pytest.mark.parametrize(
    ("storages", "says"), [("float31", "no storage 'float31'"), ("float32,q4_1", "")]
)
def test_storage_that_is_named_and_not_there_is_an_error(storages: str, says: str) -> None:
    done = CliRunner().invoke(main, ["bench", "study", "--base", "tiny", "--storages", storages])
    assert done.exit_code == 2
    assert says in done.stderr


def test_prompt_that_does_not_fit_is_told_before_anything_runs(decoders: list[Decoder]) -> None:
    told: list[str] = []
    long = Question("long", "natural", ("x" * decoders[0].base.context,))
    with pytest.raises(LabkitError, match="no room"):
        storage_study(decoders, [QUESTIONS[0], long], ("mlp",), 4, 1, watch=told.append)
    assert told == []


def test_shipped_repetitive_prompts_are_not_among_the_natural_ones() -> None:
    drawn = own_prompts(99, seed=0)
    assert len({one.id for one in drawn}) == len(drawn)
    assert len(read_questions()) + 12 == len(drawn)
