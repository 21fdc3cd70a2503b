"""Which forward pass a model gets on a machine, and the reason that a person is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from labkit import kernels
from labkit.errors import LabkitError
from labkit.kernels import choose, engine_for
from tests.kernels.shapes import arrays, small_model

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


@dataclass
class Held:
    """A model already in memory, as `engine_for` reads it."""

    module: Any
    device: torch.device = CPU
    dtype: torch.dtype = torch.float32

    @property
    def config(self) -> Any:
        return self.module.config

    def weights(self) -> Any:
        return arrays(self.module)


@pytest.mark.parametrize(
    ("kind", "settings", "path", "why"),
    [
        ("Llama", {}, "weights_once", "Llama-shaped"),
        ("Llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0,
                                       "rope_theta": 1e4}}, "plain", "rotary"),
        ("Llama", {"hidden_act": "relu"}, "plain", "silu"),
        ("Llama", {"mlp_bias": True}, "plain", "biases"),
        ("Llama", {"attention_bias": True}, "plain", "output projection"),
        ("Mistral", {"sliding_window": None}, "weights_once", "Llama-shaped"),
        ("Mistral", {"sliding_window": 64}, "plain", "window"),
        ("Qwen2", {}, "weights_once", "Llama-shaped"),
        ("Qwen2", {"use_sliding_window": True, "max_window_layers": 1}, "plain", "window"),
        ("Qwen3", {"head_dim": 16}, "weights_once", "Llama-shaped"),
        ("Qwen3", {"head_dim": 16, "attention_bias": True}, "plain", "output projection"),
        ("GPT2", {}, "plain", "gpt2"),
        ("GPTNeoX", {}, "plain", "gpt_neox"),
    ],
)  # fmt: skip
def test_path_on_a_cpu_follows_the_models_shape(
    kind: str, settings: dict[str, Any], path: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "no_weights_once", lambda: None)
    choice = choose(small_model(kind, **settings).config, CPU, torch.float32)
    assert choice.path == path
    assert why in choice.why


@pytest.mark.parametrize(
    ("kind", "device", "dtype", "path"),
    [
        ("Llama", CUDA, torch.bfloat16, "cuda_graphs"),
        ("GPT2", CUDA, torch.bfloat16, "plain"),
        ("Llama", MPS, torch.float32, "plain"),
        ("Llama", CPU, torch.bfloat16, "plain"),
    ],
)
def test_path_follows_the_device_and_the_numbers(
    kind: str, device: torch.device, dtype: torch.dtype, path: str
) -> None:
    choice = choose(small_model(kind).config, device, dtype)
    assert choice.path == path
    assert choice.why


def test_machine_without_fused_multiply_add_takes_the_plain_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernels, "no_weights_once", lambda: "this processor is too old")
    held = Held(small_model("Llama"))
    assert choose(held.config, CPU, torch.float32).path == "plain"
    assert engine_for(held).name == "transformers' own forward pass"
    with pytest.raises(LabkitError, match="too old"):
        engine_for(held, path="weights_once")
    with pytest.raises(LabkitError, match="too old"):
        engine_for(held, storage="bfloat16")


def test_fast_path_is_taken_and_the_plain_one_can_be_asked_for() -> None:
    held = Held(small_model("Llama"))
    assert engine_for(held).exact
    assert not engine_for(held, path="plain").exact
    assert "bfloat16" in engine_for(held, storage="bfloat16").name


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"path": "fastest"}, "give auto, weights_once"),
        ({"path": "cuda_graphs"}, "cannot run here"),
        ({"storage": "int3"}, "give float32, bfloat16, q4_1"),
        ({"storage": "q4_1"}, "was not quantised in blocks"),
        ({"storage": "bfloat16", "path": "plain"}, "path plain was given"),
    ],
)
def test_what_cannot_be_had_is_refused_with_a_reason(given: dict[str, Any], says: str) -> None:
    with pytest.raises(LabkitError, match=says):
        engine_for(Held(small_model("Llama")), **given)
