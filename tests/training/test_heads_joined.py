"""Two sets of heads joined: the mean of their logits, in one set of two groups."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from labkit.cli import main
from labkit.errors import LabkitError
from labkit.kernels.heads import PanelHeads
from labkit.models import load
from labkit.paths import data_dir
from labkit.speculative.checkpoint import export_published, load_heads, save_heads
from labkit.speculative.context import ContextConfig
from labkit.speculative.drafters.mlp import TorchHeads
from labkit.speculative.speculator import Speculator, SpeculatorConfig
from labkit.training.heads import join_folders, joined_heads

WIDTH, INNER, VOCABULARY = 32, 64, 50


def heads(seed: int, **changed: object) -> Speculator:
    """Random heads with opinions, all over the same table."""
    config = SpeculatorConfig.model_validate(
        {
            "base": "toy",
            "vocab_size": VOCABULARY,
            "emb_dim": WIDTH,
            "inner_dim": INNER,
            "n_predict": 3,
            "layers": (1,),
        }
        | changed
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        table = torch.randn(VOCABULARY, WIDTH)
        torch.manual_seed(seed)
        made = Speculator(config, table)
        for parameter in made.parameters():
            if parameter.ndim == 1:
                parameter.data += 0.3 * torch.randn_like(parameter)
    return made.eval()


CONTEXT = ContextConfig(heads=2, inner_dim=40)


@torch.no_grad()
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(
    ("changed", "share"),
    [({}, 0.5), ({"context": CONTEXT}, 0.5), ({"inner_dim": 2 * INNER, "groups": 2}, 2 / 3)],
    ids=["alike", "context", "three"],
)
def test_joined_logits_are_the_mean_of_both(changed, share, swapped):
    first, second = heads(1), heads(2, **changed)
    joined = joined_heads(*((second, first) if swapped else (first, second)))
    assert joined.config.groups == 1 + second.config.groups
    parts = joined.config.more + 1
    z = torch.randn(4, parts * WIDTH, generator=torch.Generator().manual_seed(3))
    own = z[:, -first.config.z_dim :]  # a context layer's output stands first
    states = [first.start(own), second.start(z), joined.start(z)]
    for head in range(3):
        token = torch.tensor([7, 8, 9, head])
        states = [
            made.step(head, state, token)
            for made, state in zip((first, second, joined), states, strict=True)
        ]
        one, other, both = (
            made.logits(head, state)
            for made, state in zip((first, second, joined), states, strict=True)
        )
        expected = (1 - share) * one + share * other
        torch.testing.assert_close(both, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"n_predict": 2}, "differ in n_predict"),
        ({"layers": ()}, "differ in layers"),
        ({"inner_dim": 96}, "differ in inner_dim"),
        ({"tied": True}, "none of them tied"),
    ],
)
def test_heads_that_do_not_go_together_are_refused_in_one_sentence(changed, said):
    with pytest.raises(LabkitError, match=said) as caught:
        joined_heads(heads(1), heads(2, **changed))
    assert "\n" not in str(caught.value)


def test_two_context_layers_are_refused():
    with pytest.raises(LabkitError, match="at most one of them with a context layer"):
        joined_heads(heads(1, context=CONTEXT), heads(2, context=CONTEXT))


def test_the_published_form_cannot_hold_groups(tmp_path):
    with pytest.raises(LabkitError, match="cannot hold heads of several groups"):
        export_published(tmp_path / "out", joined_heads(heads(1), heads(2)))
    assert not (tmp_path / "out").exists()


def test_groups_of_no_whole_panel_are_refused():
    with pytest.raises(ValueError, match="multiple of 16"):
        heads(1, inner_dim=72, groups=3)


def rounded(made: Speculator, folder: Path) -> Speculator:
    """The heads as they come back from a file of 4 bits."""
    save_heads(folder, made, torch.arange(VOCABULARY), rounded=True)
    again, _ = load_heads(folder, made.table)
    assert isinstance(again, Speculator)
    return again


def test_heads_saved_in_four_bits_come_back_near_and_the_second_time_exactly(tmp_path):
    made = joined_heads(heads(1), heads(2, context=CONTEXT))
    once = rounded(made, tmp_path / "once")
    for name, value in made.state_dict().items():
        error = (once.state_dict()[name] - value).abs().max()
        assert error <= 0.04 * (value.max() - value.min()), name  # half a step of 15, rounded
    twice = rounded(once, tmp_path / "twice")
    for name, value in once.state_dict().items():
        assert torch.equal(twice.state_dict()[name], value), name
    save_heads(tmp_path / "whole", made, torch.arange(VOCABULARY))
    sizes = {
        name: sum(path.stat().st_size for path in (tmp_path / name).glob("*.safetensors"))
        for name in ("whole", "twice")
    }
    assert sizes["twice"] < 0.55 * sizes["whole"]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("many", [1, 3])
def test_integer_heads_are_torchs_heads_of_the_same_rounded_weights(tmp_path, groups, many):
    made = rounded(heads(1, inner_dim=INNER * groups, groups=groups), tmp_path)
    weights = {name: value.numpy() for name, value in made.state_dict().items()}
    ids = np.arange(3, 40)
    panels, plain = PanelHeads(made.config, weights, made.table.numpy(), ids), TorchHeads(made, ids)
    assert panels.w_table.dtype == np.int8
    rng = np.random.default_rng(4)
    state = np.concatenate(
        [plain.start(rng.normal(size=made.config.z_dim).astype("f")) for _ in range(many)]
    )
    for head in range(3):
        tokens = rng.integers(VOCABULARY, size=many)
        exact = plain.step(head, state, tokens, 5)
        found = panels.step(head, np.ascontiguousarray(state), tokens, 5)
        scale = np.abs(exact[1]).max()
        np.testing.assert_allclose(found[1] / scale, exact[1] / scale, atol=0.03)
        state = exact[0]


def test_the_command_joins_shipped_heads(tmp_path):
    folder = data_dir() / "heads" / "tiny"
    words = ["train", "join", str(folder), str(folder), "--base", "tiny"]
    result = CliRunner().invoke(main, [*words, "--out", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.stderr
    made = json.loads(result.stdout)
    base = load("tiny")
    table = torch.from_numpy(base.weights()["model.embed_tokens.weight"].copy())
    joined, ids = load_heads(tmp_path, table)
    own, _ = load_heads(folder, table)
    assert len(ids) == made["draft_tokens"]
    assert sum(parameter.numel() for parameter in joined.parameters()) == made["weights"]
    z, token = torch.randn(1, own.config.z_dim), torch.tensor([5])
    again = CliRunner().invoke(main, [*words, "--out", str(tmp_path), "--json"])
    assert again.stderr.strip() == f"labkit: {tmp_path} holds heads already: give another folder."
    one, both = (made.logits(0, made.step(0, made.start(z), token)) for made in (own, joined))
    assert (one - both).abs().max() < 0.1 * one.abs().max()


def test_heads_without_a_draft_token_in_common_are_refused(tmp_path):
    base = load("tiny")
    table = torch.from_numpy(base.weights()["model.embed_tokens.weight"].copy())
    own, _ = load_heads(data_dir() / "heads" / "tiny", table)
    for name, ids in (("low", torch.arange(16)), ("high", torch.arange(16, 32))):
        save_heads(tmp_path / name, own, ids)
    with pytest.raises(LabkitError, match="no token in common"):
        join_folders(base, tmp_path / "low", tmp_path / "high", tmp_path / "out")
