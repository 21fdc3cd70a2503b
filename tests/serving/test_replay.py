"""Random weights of a shape: real steps, replayed acceptance, and a record that says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from labkit.cli import main
from labkit.errors import LabkitError
from labkit.kernels import engine_for
from labkit.records import ServingLog
from labkit.serving import replay
from labkit.serving.bench import Level, Loads
from labkit.serving.replay import RandomHeads, RandomModel, ReplayedEngine, bench_replayed
from labkit.speculative.batch import Batch
from labkit.training.plan import SHAPES
from tests.speculative.fakes import ToyEngine

WORDS = ("bench", "serving", "--shape", "tiny-random", "--device", "cpu")


def test_a_shape_is_measured_end_to_end_and_the_record_says_that_words_are_noise(
    tmp_path: Path,
) -> None:
    out = tmp_path / "log.json"
    words = (*WORDS, "--users", "1,4", "--acceptance", "0.6,0.4", "--requests", "8")
    result = CliRunner().invoke(
        main, [*words, "--max-new-tokens", "20", "--out", str(out), "--json"]
    )
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    kinds = [(row["users"], row["method"], row["origin"]) for row in said["rows"]]
    measured = [(users, method, "measured") for users in (1, 4) for method in ("vanilla", "mlp")]
    assert kinds == measured + [(users, method, "simulated") for users, method, _ in measured]
    for row in said["rows"]:
        assert (row["requests"], row["errors"]) == (8, 0)
        assert row["tpot_ms"]["mean"] > 0
    assert [check["users"] for check in said["checks"]] == [1, 4]
    assert said["identical"] is None
    log = ServingLog.load(out)
    assert "the words are noise, the times are real" in log.provenance.note
    assert "replayed" in log.provenance.note
    given = "--shape tiny-random --device cpu --users 1,4 --acceptance 0.6,0.4"
    assert given in log.provenance.command
    text = CliRunner().invoke(main, [*words, "--max-new-tokens", "4"]).stdout
    assert "the words are noise" in text
    assert "random weights" in text
    assert "measured gain" in text


@pytest.mark.parametrize("slots", [1, 3])
def test_drafts_are_kept_as_often_as_was_asked_and_their_order_is_kept(slots: int) -> None:
    model = RandomModel(SHAPES["tiny-random"], "cpu")
    engine = ReplayedEngine(engine_for(model), (0.6, 0.4), slots, 1000, seed=1)
    batch = Batch(engine, slots, 1000, (), RandomHeads(model.speculator(2)), lambda _: 2)
    for row in range(slots):
        batch.join([row + 1, 5, 7], 600)
    steps = []
    while batch.running:
        steps.append(batch.step())
    full = [step for step in steps if step.drafted == 2 * step.batch and step.batch]
    rows = sum(step.batch for step in full)
    first, second = np.sum([step.taken for step in full], axis=0) / rows
    assert first == pytest.approx(0.6, abs=4 * (0.24 / rows) ** 0.5)
    assert second == pytest.approx(0.24, abs=4 * (0.18 / rows) ** 0.5)


@pytest.mark.parametrize(("accept", "steps"), [((1.0, 1.0), 7), ((0.0, 1.0), 21), ((1.0, 0.0), 11)])
def test_certain_drafts_are_always_kept_and_impossible_ones_never(
    accept: tuple[float, ...], steps: int
) -> None:
    model = RandomModel(SHAPES["tiny-random"], "cpu")
    engine = ReplayedEngine(engine_for(model), accept, 1, 60, seed=0)
    batch = Batch(engine, 1, 60, (), RandomHeads(model.speculator(2)), lambda _: 2)
    batch.join([1, 2], 22)  # the first of them comes from the prompt
    taken = [batch.step()]
    while batch.running:
        taken.append(batch.step())
    assert sum(step.batch > 0 for step in taken) == steps


def test_prompts_and_plain_steps_are_left_as_they_are() -> None:
    toy = ToyEngine()
    batch = Batch(ReplayedEngine(toy, (0.5,), 1, 40, seed=0), 1, 40)
    row = batch.join([3, 4], 12)
    while batch.running:
        batch.step()
    assert row.output == toy.greedy([3, 4], 12)


def test_random_weights_are_of_the_shape_and_cost_nothing_until_they_are_read() -> None:
    for name in ("tiny-random", "llama3-8b", "smollm2-1.7b"):
        shape = SHAPES[name]
        weights = RandomModel(shape, "cpu").weights()
        sizes = [np.prod(size) for size in weights.data.values() if len(size) == 2]
        assert sum(map(int, sizes)) == shape.weights
        assert ("lm_head.weight" in weights) == (not shape.tied)
    model = RandomModel(SHAPES["tiny-random"], "cpu")
    expected = {n: tuple(p.shape) for n, p in model.module.named_parameters()}
    assert {n: weight.shape for n, weight in model.weights().items()} == expected
    again = RandomModel(SHAPES["tiny-random"], "cpu").weights()
    name = "model.layers.1.mlp.down_proj.weight"
    assert np.array_equal(model.weights()[name], again[name])


def test_a_model_that_does_not_fit_is_refused_before_it_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replay.psutil, "virtual_memory", lambda: type("M", (), {"available": 2e10}))
    monkeypatch.setattr(replay, "engine_for", lambda _: pytest.fail("it was made"))
    with pytest.raises(
        LabkitError, match=r"its 2 heads and its cache need \d+\.\d GB, and 20.0 GB"
    ):
        bench_replayed("llama2-13b", (0.6, 0.4), Loads([Level(1)]), "cpu")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (80e9, 80e9))
    model = RandomModel(SHAPES["llama2-13b"], "cpu")
    model.device, model.dtype = torch.device("cuda"), torch.bfloat16
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA A100")
    model.check_memory(3, 16 * 320)
    with pytest.raises(LabkitError, match="are free on NVIDIA A100: give a smaller shape or fewer"):
        model.check_memory(3, 256 * 320)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--shape", "gpt-9"),
            "There is no base model shape 'gpt-9': give tiny, tiny-random, real",
        ),
        (("--shape", "tiny-random", "--acceptance", "1.5"), "a share between 0 and 1"),
        (("--shape", "tiny-random", "--simulate"), "only one of --simulate, --url and --shape"),
    ],
)
def test_a_mistake_is_one_sentence(words: tuple[str, ...], said: str) -> None:
    result = CliRunner().invoke(main, ["bench", "serving", *words])
    assert result.exit_code == 2
    assert said in result.stderr.splitlines()[-1]
