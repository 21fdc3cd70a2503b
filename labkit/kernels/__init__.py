"""Forward passes that check n tokens at little more than the cost of one.

`engine_for` opens a model's forward pass: *weights once* on a CPU, CUDA graphs on a GPU, and
transformers' own forward pass everywhere else. `choose` says which and why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from labkit.errors import LabkitError

if TYPE_CHECKING:
    import torch

    from labkit.kernels.engine import Engine

Path = Literal["weights_once", "cuda_graphs", "plain"]
PATHS: tuple[Path, ...] = get_args(Path)
"""The names of the forward passes."""

LLAMA_SHAPED = ("llama", "mistral", "qwen2", "qwen3")
"""Architectures (transformers' ``model_type``) that the fast paths can compute."""

FIXED_ROTARY = ("default", "linear", "llama3", "yarn")
"""Rotary embeddings whose angles do not change with the length of the text."""


@dataclass(frozen=True)
class Choice:
    """The path that a model takes on this machine, and the reason in half a sentence."""

    path: Path
    why: str


def not_llama_shaped(config: Any) -> str | None:
    """Return what the fast paths cannot compute of a model with this config; None if they can.

    >>> from types import SimpleNamespace
    >>> not_llama_shaped(SimpleNamespace(model_type="gpt2"))
    'gpt2 is not shaped like Llama'
    """
    kind = config.model_type
    if kind not in LLAMA_SHAPED:
        return f"{kind} is not shaped like Llama"
    rotary = getattr(config, "rope_parameters", None) or {}
    windowed = getattr(config, "sliding_window", None) is not None
    full = set(getattr(config, "layer_types", None) or ()) == {"full_attention"}
    turned = rotary.get("partial_rotary_factor", 1.0)
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    biased = kind != "qwen2" and getattr(config, "attention_bias", False)
    fixed = rotary.get("rope_type", "default") in FIXED_ROTARY
    for strange, reason in (
        (config.hidden_act != "silu", "its activation is not silu"),
        (windowed and not full, "its attention has a window"),
        (biased, "its output projection has a bias"),
        (getattr(config, "mlp_bias", False), "its feed-forward layers have biases"),
        (not fixed, "its rotary embedding changes with the text's length"),
        (turned != 1.0, "its rotary embedding turns only a part of each head"),
        (size % 2 == 1, "its heads have an odd width"),
    ):
        if strange:
            return reason
    return None


def no_weights_once() -> str | None:
    """Return why this machine cannot run the weights-once path; None if it can."""
    try:
        from labkit.kernels import panel
    except ImportError as error:
        return f"numba cannot be imported ({error})"
    return None if panel.supported() else "this processor has no fused multiply-add"


def choose(config: Any, device: torch.device, dtype: torch.dtype) -> Choice:
    """Return the fastest path for a model with this config on this device, and the reason."""
    if strange := not_llama_shaped(config):
        return Choice("plain", strange)
    if device.type == "cuda":
        return Choice("cuda_graphs", "Llama-shaped, on a GPU with CUDA")
    if device.type != "cpu":
        return Choice("plain", f"there is no fast path on {device.type}")
    number = str(dtype).removeprefix("torch.")
    if number != "float32":
        return Choice("plain", f"the number format is {number}, and the fast path sums in float32")
    if lacking := no_weights_once():
        return Choice("plain", lacking)
    return Choice("weights_once", "Llama-shaped, on a CPU with fused multiply-add")


def engine_for(lm: Any, storage: str = "float32", path: Literal["auto"] | Path = "auto") -> Engine:
    """Open the forward pass of a model: the fastest that works here, or the one called ``path``.

    ``lm`` is a `labkit.LanguageModel`, or has its ``config``, ``device``, ``dtype``, ``weights()``
    and, for the plain path, ``module``. ``storage`` is how weights once stores them: see
    `weights_once.STORAGE`. Raises `LabkitError` where the path or the storage is not available.
    """
    if path != "auto" and path not in PATHS:
        raise LabkitError(f"There is no path {path!r}: give auto, {', '.join(PATHS)}.")
    choice = choose(lm.config, lm.device, lm.dtype)
    if path not in ("auto", "plain", choice.path):
        raise LabkitError(f"The path {path!r} cannot run here, since {choice.why}.")
    taken = choice.path if path == "auto" else path
    if taken != "weights_once" and storage != "float32":
        why = choice.why if path == "auto" else f"the path {path} was given"
        raise LabkitError(
            f"Only the weights-once path stores weights as {storage}, and it is not used: {why}."
        )
    if taken == "plain":
        from labkit.kernels.plain import PlainEngine

        engine = PlainEngine(lm.module)
        engine.check_trees()
        return engine
    from labkit.kernels.llama import LlamaWeights

    if taken == "cuda_graphs":
        from labkit.kernels.cuda import CudaEngine

        return CudaEngine(LlamaWeights(lm.config, lm.weights()), lm.device, lm.dtype)
    from labkit.kernels.weights_once import STORAGE, WeightsOnce

    if storage not in STORAGE:
        raise LabkitError(f"There is no storage {storage!r}: give {', '.join(STORAGE)}.")
    return WeightsOnce(LlamaWeights(lm.config, lm.weights()), storage)
