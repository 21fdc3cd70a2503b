"""Heads on disk: the lab's form, and the published MLPSpeculator form both ways."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from labkit.errors import LabkitError
from labkit.speculative.checkpoint import (
    export_published,
    load_heads,
    load_published,
    save_heads,
)
from labkit.speculative.drafters.mlp import MLPDrafter, TorchHeads
from labkit.speculative.speculator import Speculator, SpeculatorConfig

V, D, INNER, K = 40, 12, 20, 3


SHAPES = {"plain": {}, "three layers": {"layers": (2, 5)}, "tied": {"tied": True}}


@pytest.fixture(params=SHAPES)
def speculator(request):
    torch.manual_seed(0)
    config = SpeculatorConfig(
        base="toy",
        vocab_size=V,
        emb_dim=D,
        inner_dim=INNER,
        n_predict=K,
        **SHAPES[request.param],
    )
    made = Speculator(config, torch.randn(V, D) * 0.3)
    for norm in made.norm:
        torch.nn.init.normal_(norm.weight, 1.0, 0.2)
        torch.nn.init.normal_(norm.bias, 0.0, 0.2)
    return made.eval()


def all_logits(heads, hidden, tokens):
    """Every head's logits under teacher forcing, one place: a list of (V,)."""
    state, found = heads.start(hidden), []
    for head, token in enumerate(tokens):
        state = heads.step(head, state, torch.tensor(token))
        found.append(heads.logits(head, state))
    return found


def by_hand(weights, config, hidden, tokens):
    """The published forward pass, written plainly in NumPy from its description."""
    count, inner = config["n_predict"], config["inner_dim"]
    keep = 0.5 ** (0.5 / count)
    add = math.sqrt((1 - keep**2) * (inner / 2))
    state = hidden.numpy().astype(np.float64)
    if config["scale_input"]:
        state = state / np.sqrt((state**2).mean() + 1e-6) / math.sqrt(2)
    found = []
    for i, token in enumerate(tokens):
        w = {
            name: weights[f"speculator.{name}"].numpy().astype(np.float64)
            for name in (f"proj.{i}.weight", f"emb.{i}.weight", f"ln.{i}.weight", f"ln.{i}.bias")
        }
        mixed = keep * (w[f"proj.{i}.weight"] @ state) + add * w[f"emb.{i}.weight"][token]
        normed = mixed / np.sqrt((mixed**2).mean() + 1e-6)
        normed = normed * w[f"ln.{i}.weight"] + w[f"ln.{i}.bias"]
        state = np.array([0.5 * x * (1 + math.erf(x / math.sqrt(2))) for x in normed])
        found.append(weights[f"speculator.head.{i}.weight"].numpy().astype(np.float64) @ state)
    return found


def test_own_form_comes_back_within_half_precision(speculator, tmp_path):
    save_heads(tmp_path, speculator, torch.arange(0, V, 2))
    back, ids = load_heads(tmp_path, speculator.table)
    assert ids.tolist() == list(range(0, V, 2))
    assert back.config == speculator.config
    for name, value in speculator.state_dict().items():
        assert torch.equal(back.state_dict()[name], value.half().float())


def test_exported_heads_predict_the_same_and_round_trip_to_the_bit(speculator, tmp_path):
    export_published(tmp_path, speculator)
    published = load_published(tmp_path)
    folded = speculator.folded()
    assert {name: value.shape for name, value in published.state_dict().items()} == {
        name: value.shape for name, value in folded.items()
    }
    for name, value in published.state_dict().items():
        assert torch.equal(value, folded[name])
    hidden, tokens = torch.randn(speculator.config.z_dim), [3, 39, 0]
    ours, theirs = (all_logits(heads, hidden, tokens) for heads in (speculator, published))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("scale_input", [False, True])
def test_a_published_checkpoint_computes_what_its_description_says(tmp_path, scale_input):
    torch.manual_seed(1)
    config = {
        "architectures": ["MLPSpeculatorPreTrainedModel"], "model_type": "mlp_speculator",
        "vocab_size": V, "emb_dim": D, "inner_dim": INNER, "n_predict": K,
        "top_k_tokens_per_head": [4, 3, 2], "n_candidates": 5, "tie_weights": False,
        "scale_input": scale_input, "transformers_version": "4.41.2",
    }  # fmt: skip
    shapes = {"emb": (V, INNER), "head": (V, INNER)}
    weights = {
        f"speculator.{name}.{i}.weight": torch.randn(shape) * 0.3
        for i in range(K)
        for name, shape in {**shapes, "proj": (INNER, INNER if i else D), "ln": (INNER,)}.items()
    } | {f"speculator.ln.{i}.bias": torch.randn(INNER) for i in range(K)}
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    published = load_published(tmp_path)
    hidden, tokens = torch.randn(D), [5, 0, 17]
    expected = by_hand(weights, config, hidden, tokens)
    for a, b in zip(all_logits(published, hidden, tokens), expected, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b, atol=1e-4)


def test_tied_tensors_that_are_stored_once_are_loaded(tmp_path, speculator):
    export_published(tmp_path, speculator)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "tie_weights": True}), "utf-8")
    whole = load_published(tmp_path).state_dict()
    kept = ("emb.0", "head.0", "ln.0", "proj.0", "proj.1")
    stored = {
        f"speculator.{name}": value.clone()
        for name, value in whole.items()
        if name.startswith(kept)
    }
    assert len(stored) < len(whole)
    save_file(stored, tmp_path / "model.safetensors")
    again = load_published(tmp_path).state_dict()
    assert all(torch.equal(again[name], value) for name, value in whole.items())


def test_tied_weights_share_their_tables(tmp_path, speculator):
    export_published(tmp_path, speculator)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "tie_weights": True}), "utf-8")
    tied = load_published(tmp_path)
    assert tied.head[0].weight is tied.head[K - 1].weight
    assert tied.proj[1].weight is tied.proj[K - 1].weight


def test_published_heads_draft_the_tree_that_ours_draft(speculator, tmp_path):
    export_published(tmp_path, speculator)
    ids, hidden = np.arange(V), torch.randn(speculator.config.z_dim)
    drafts = [
        MLPDrafter(TorchHeads(heads, ids), max_nodes=8).draft([1, 2], hidden)
        for heads in (speculator, load_published(tmp_path))
    ]
    assert drafts[0].tokens == drafts[1].tokens
    assert drafts[0].parents == drafts[1].parents


def test_broken_files_are_one_sentence_each(speculator, tmp_path):
    save_heads(tmp_path / "own", speculator, torch.arange(V))
    cases = []
    with pytest.raises(LabkitError, match="do not fit"):
        load_heads(tmp_path / "own", torch.zeros(V + 1, D))
    for name, spoil in {
        "no weights": lambda f: (f / "model.safetensors").unlink(),
        "cut weights": lambda f: (f / "model.safetensors").write_bytes(b"x" * 30),
        "no config": lambda f: (f / "config.json").unlink(),
        "other config": lambda f: (f / "config.json").write_text('{"base": "toy"}', "utf-8"),
    }.items():
        folder = tmp_path / name
        save_heads(folder, speculator, torch.arange(V))
        spoil(folder)
        with pytest.raises(LabkitError) as caught:
            load_heads(folder, speculator.table)
        cases.append(str(caught.value))
    assert all("\n" not in case for case in cases)


def test_draft_ids_outside_the_vocabulary_are_refused(speculator, tmp_path):
    save_heads(tmp_path, speculator, torch.arange(V))
    weights = load_file(tmp_path / "model.safetensors")
    weights["draft_ids"][0] = V
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(LabkitError, match="outside the vocabulary"):
        load_heads(tmp_path, speculator.table)


def test_independent_heads_have_no_published_form(tmp_path):
    config = SpeculatorConfig(
        base="toy", vocab_size=V, emb_dim=D, inner_dim=INNER, n_predict=K, hierarchical=False
    )
    with pytest.raises(LabkitError, match="Medusa"):
        export_published(tmp_path, Speculator(config, torch.randn(V, D)))
