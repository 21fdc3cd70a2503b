"""The plan counts what is really computed, and says what would not fit."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from labkit.errors import LabkitError
from labkit.models import load
from labkit.paths import data_dir
from labkit.speculative.speculator import Speculator, SpeculatorConfig
from labkit.training import plan as planning
from labkit.training.batches import TrainingBatch
from labkit.training.features import last_hidden
from labkit.training.heads import new_speculator
from labkit.training.losses import HeadLosses
from labkit.training.plan import GPUS, Plan, Shape, plan_training
from labkit.training.recipe import Recipe

RECIPES = data_dir() / "recipes"


def test_the_base_models_operations_are_those_that_torch_counts(base_folder):
    base = load(str(base_folder), device="cpu", dtype="float32").module
    base.config._attn_implementation = "eager"
    shape = Shape(1, 32, 32, 2, 1, 16, 300, tied=True)
    with FlopCounterMode(display=False) as counter:
        last_hidden(base, torch.zeros(3, 20, dtype=torch.int64))
    expected = shape.operations(60, 20)
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("layers", [(), (1, 2)], ids=["last layer", "three layers"])
@pytest.mark.parametrize("labels", ["hard", "soft"])
def test_the_heads_operations_are_those_that_torch_counts(labels, layers):
    recipe = Recipe.load(RECIPES / "tiny.toml")
    changed = {
        "loss": recipe.loss.model_copy(update={"labels": labels}),
        "heads": recipe.heads.model_copy(update={"layers": layers}),
    }
    recipe = recipe.model_copy(update=changed)
    shape = Shape(1, 64, 64, 2, 2, 32, 500, tied=True)
    heads = recipe.heads.count
    config = SpeculatorConfig(
        base="x",
        vocab_size=500,
        emb_dim=64,
        inner_dim=recipe.heads.inner_width,
        n_predict=heads,
        layers=layers,
    )
    table = torch.randn(500, 64)
    module = HeadLosses(Speculator(config, table), table, labels)
    window, rows = 32, 4
    tokens = torch.randint(0, 500, (rows, window + heads + 1))
    batch = TrainingBatch(tokens, torch.ones_like(tokens, dtype=torch.bool), heads)
    with FlopCounterMode(display=False) as counter:
        module(batch, torch.randn(rows, window + heads, config.z_dim), None).sum().backward()
    expected = Plan(recipe, shape, GPUS["h100"]).head_operations(rows * window)
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("layers", [(), (1,)], ids=["last layer", "two layers"])
@pytest.mark.parametrize("changed", [{"context": True}, {"kind": "eagle"}, {}], ids=str)
def test_the_heads_weights_are_those_that_are_trained(base_folder, changed, layers):
    recipe = Recipe.load(RECIPES / "tiny.toml")
    heads = recipe.heads.model_copy(update={"layers": layers, **changed})
    recipe = recipe.model_copy(update={"heads": heads})
    base = load(str(base_folder), device="cpu", dtype="float32")
    made = new_speculator(recipe, base).parameters()
    expected = sum(weight.numel() for weight in made if weight.ndim == 2)
    shape = Shape(1, 32, 32, 2, 1, 16, 300, tied=True)
    assert Plan(recipe, shape, GPUS["h100"]).head_weights == expected


def test_weights_are_counted_as_their_makers_do():
    billions = {name: planning.SHAPES[name].weights / 1e9 for name in planning.SHAPES}
    assert billions["llama2-7b"] == pytest.approx(6.738, abs=2e-3)
    assert billions["llama2-13b"] == pytest.approx(13.016, abs=2e-3)
    assert billions["llama3-8b"] == pytest.approx(8.030, abs=2e-3)
    assert billions["smollm2-1.7b"] == pytest.approx(1.711, abs=1e-3)
    assert billions["real"] == pytest.approx(0.1345, abs=2e-4)


def test_more_devices_take_less_time_and_memory():
    one, eight = (
        plan_training(RECIPES / "published-7b.toml", "llama2-13b", "h100", n) for n in (1, 8)
    )
    assert eight["seconds"]["total"] == pytest.approx(one["seconds"]["total"] / 8)
    assert eight["memory"]["total"] < one["memory"]["total"]
    assert one["fits"] is False
    assert one["micro_batches"]["phase1"] > eight["micro_batches"]["phase1"]


def test_what_fits_with_no_batch_has_no_number_of_micro_batches():
    crowded = plan_training(RECIPES / "published-7b.toml", "llama2-13b", "l4", 1)
    assert crowded["micro_batches"] == {"phase1": None, "phase2": None}


def test_strange_names_and_counts_are_one_sentence():
    with pytest.raises(LabkitError, match=r"shape 'gpt-9'.*llama2-7b"):
        plan_training(RECIPES / "tiny.toml", "gpt-9")
    with pytest.raises(LabkitError, match=r"device 'abacus'.*h100"):
        plan_training(RECIPES / "tiny.toml", "tiny", "abacus")
    with pytest.raises(LabkitError, match="cannot be 0 devices"):
        plan_training(RECIPES / "tiny.toml", "tiny", "h100", 0)
