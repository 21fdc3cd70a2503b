"""Heads on disk: the lab's own small form, and the published MLPSpeculator form both ways.

Own form: a folder with ``config.json`` (a `SpeculatorConfig`), ``model.safetensors`` (the factored
weights in float16, and ``draft_ids``, the tokens that the heads may draft) and, for heads with a
context layer, its weights in ``context.safetensors``. Weights rounded to 4 bits, as llama.cpp's
Q4_1 has them, are stored as bytes under their name and ``.q4_1``.

Published form (IBM and PyTorch, ``model_type: mlp_speculator``): full tables ``emb.i`` and
``head.i`` of (V, inner) for every head. Exporting multiplies ours out; whatever reads that form
reads ours.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional

from labkit.errors import LabkitError, first_problem
from labkit.records.base import write_whole
from labkit.speculative.eagle import Eagle, EagleConfig
from labkit.speculative.speculator import (
    Layers,
    ParameterNorm,
    Speculator,
    SpeculatorConfig,
    joined,
    tie,
)

PREFIX = "speculator."
ROUNDED = ".q4_1"
Q4_1 = GGMLQuantizationType.Q4_1
TOP_K = (4, 3, 2, 2)
"""Candidates of each head in an exported config, for readers that draft trees."""


def save_heads(
    folder: Path, speculator: Speculator | Eagle, draft_ids: Tensor, rounded: bool = False
) -> None:
    """Write the heads into ``folder``: weights in float16, then the config that makes them whole.

    With ``rounded`` matrices are stored in 4 bits, in which the CPU's kernels multiply them. Raises
    `LabkitError` where the disk refuses; the files before are kept then.
    """
    weights = {}
    for name, value in speculator.state_dict().items():
        if rounded and value.ndim == 2 and not value.shape[1] % GGML_QUANT_SIZES[Q4_1][0]:
            blocks = quants.quantize(value.detach().float().cpu().numpy(), Q4_1)
            weights[name + ROUNDED] = torch.from_numpy(blocks)
        else:
            weights[name] = value.detach().to("cpu", torch.float16).contiguous()
    weights["draft_ids"] = draft_ids.to("cpu", torch.int32)
    _write(folder, weights, speculator.config.model_dump())


def load_heads(folder: Path, table: Tensor) -> tuple[Speculator | Eagle, np.ndarray]:
    """Read the heads in ``folder``, of any kind, over a ``table`` (V, D), and their draft ids.

    Weights come back as float32. Raises `LabkitError` where files are missing, damaged, or made for
    another base model.
    """
    weights = _read_weights(folder)
    settings = _read_config(folder)
    eagle = isinstance(settings, dict) and settings.get("kind") == "eagle"
    config = _checked(folder, EagleConfig if eagle else SpeculatorConfig, settings)
    draft_ids = weights.pop("draft_ids", None)
    try:
        speculator = new_heads(config, table)
        speculator.load_state_dict(dict(_exact(*item) for item in weights.items()))
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise LabkitError(f"The heads in {folder} do not fit: {reason}") from None
    if draft_ids is None:
        draft_ids = torch.arange(config.vocab_size)
    if int(draft_ids.min()) < 0 or int(draft_ids.max()) >= config.vocab_size:
        raise LabkitError(f"The heads in {folder} draft tokens outside the vocabulary.")
    return speculator.eval(), draft_ids.numpy().astype(np.int64)


def _exact(name: str, stored: Tensor) -> tuple[str, Tensor]:
    """Return a stored weight's name and its values in float32."""
    if not name.endswith(ROUNDED):
        return name, stored.float()
    values = quants.dequantize(stored.numpy(), Q4_1)
    return name.removesuffix(ROUNDED), torch.from_numpy(values)


def new_heads(config: SpeculatorConfig | EagleConfig, table: Tensor) -> Speculator | Eagle:
    """Return untrained heads of the config's kind over a base model's ``table`` (V, D)."""
    if isinstance(config, EagleConfig):
        return Eagle(config, table)
    return Speculator(config, table)


class PublishedConfig(BaseModel):
    """The published form's config; fields that the lab does not use are kept as they are."""

    model_config = ConfigDict(frozen=True, extra="allow")

    model_type: str = Field(default="mlp_speculator", pattern="^mlp_speculator$")
    vocab_size: int = Field(ge=2)
    emb_dim: int = Field(ge=1)
    inner_dim: int = Field(ge=0)
    n_predict: int = Field(ge=1)
    top_k_tokens_per_head: tuple[int, ...]
    n_candidates: int = Field(ge=1)
    tie_weights: bool = False
    scale_input: bool = False
    layers: Layers = ()
    """The lab's own: the layers whose states stand in Z before the last one, ``emb_dim`` in all."""

    @property
    def z_dim(self) -> int:
        """The width of Z."""
        return self.emb_dim

    @property
    def hierarchical(self) -> bool:
        """Every published speculator is: each head reads the state and the token before it."""
        return True


class PublishedSpeculator(nn.Module):
    """A speculator in the published form: the architecture of `speculator`, with full tables.

    ``inner_dim`` 0 stands for ``emb_dim``. With ``tie_weights`` all heads share one table, one norm
    and, from the second on, one projection.
    """

    def __init__(self, config: PublishedConfig) -> None:
        super().__init__()
        self.config = config
        heads, vocabulary = config.n_predict, config.vocab_size
        inner = config.inner_dim or config.emb_dim
        self.state_weight = 0.5 ** (0.5 / heads)
        self.emb_weight = math.sqrt((1 - self.state_weight**2) * (inner / 2))
        self.emb = nn.ModuleList(nn.Embedding(vocabulary, inner) for _ in range(heads))
        self.proj = nn.ModuleList(
            nn.Linear(inner if i else config.emb_dim, inner, bias=False) for i in range(heads)
        )
        self.head = nn.ModuleList(nn.Linear(inner, vocabulary, bias=False) for _ in range(heads))
        self.ln = nn.ModuleList(ParameterNorm(inner) for _ in range(heads))
        self.input_norm = ParameterNorm(config.emb_dim, learnt=False)
        if config.tie_weights:
            tie(self.emb, self.head, self.ln, self.proj)

    def start(self, hidden: Tensor) -> Tensor:
        """Return the state before the first head: Z (..., emb_dim)."""
        layers = len(self.config.layers)
        z = joined(hidden, layers, self.config.emb_dim // (layers + 1))
        return self.input_norm(z) / math.sqrt(2) if self.config.scale_input else z

    def step(self, head: int, state: Tensor, token: Tensor) -> Tensor:
        """Run a head: the earlier state (..., emb_dim or inner) and token (...) to a state."""
        mixed = self.proj[head](state) * self.state_weight + self.emb[head](token) * self.emb_weight
        return functional.gelu(self.ln[head](mixed))  # (..., inner)

    def rows(self, head: int, ids: Tensor) -> Tensor:
        """Return the rows (R, inner) of head ``head``'s own table of some tokens, for `logits`."""
        weight = self.head[head].get_parameter("weight")
        return weight[ids.to(weight.device)]

    def logits(self, head: int, state: Tensor, table: Tensor | None = None) -> Tensor:
        """Return a head's logits (..., V), or over ``table``, some rows of ``head.i``."""
        whole = self.head[head].get_parameter("weight")
        return functional.linear(state, whole if table is None else table)


def export_published(folder: Path, speculator: Speculator) -> None:
    """Write ``speculator`` in the published form, multiplied out, in float32.

    Heads that read several layers get a wider ``emb_dim``; the form has no word for where the
    rest of Z is from, so ``layers`` is added to the config, which other readers pass over.
    """
    config = speculator.config
    if not config.hierarchical:
        raise LabkitError("Independent Medusa heads have no place in the MLPSpeculator form.")
    if config.context:
        raise LabkitError("The MLPSpeculator form cannot hold heads with a context layer.")
    if config.groups > 1:
        raise LabkitError("The MLPSpeculator form cannot hold heads of several groups.")
    settings = {
        "architectures": ["MLPSpeculatorPreTrainedModel"],
        "model_type": "mlp_speculator",
        "vocab_size": config.vocab_size,
        "emb_dim": config.z_dim,
        "inner_dim": config.inner_dim,
        "n_predict": config.n_predict,
        "top_k_tokens_per_head": list(TOP_K[: config.n_predict]),
        "n_candidates": 5,
        "tie_weights": config.tied,
        "scale_input": config.scale_input,
        "torch_dtype": "float32",
        **({"layers": list(config.layers)} if config.layers else {}),
    }
    weights = {PREFIX + name: value.contiguous() for name, value in speculator.folded().items()}
    _write(folder, weights, settings)


def load_published(folder: Path) -> PublishedSpeculator:
    """Read a speculator in the published form; raises `LabkitError` if the folder holds none."""
    config = _checked(folder, PublishedConfig, _read_config(folder))
    speculator = PublishedSpeculator(config)
    weights = {
        name.removeprefix(PREFIX): value.float() for name, value in _read_weights(folder).items()
    }
    if config.tie_weights:  # a tensor that heads share may be stored once
        for name in speculator.state_dict():
            part, head, *rest = name.split(".")
            shared = "1" if part == "proj" and head != "0" else "0"
            first = weights.get(".".join([part, shared, *rest]))
            if first is not None:
                weights.setdefault(name, first)
    try:
        speculator.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise LabkitError(f"The speculator in {folder} does not fit its config: {reason}") from None
    return speculator.eval()


def _write(folder: Path, weights: dict[str, Tensor], settings: dict[str, Any]) -> None:
    context = {name: value for name, value in weights.items() if name.startswith("context.")}
    if context:
        write_whole(folder / "context.safetensors", save(context))
    else:  # of heads that were here before
        (folder / "context.safetensors").unlink(missing_ok=True)
    rest = {name: value for name, value in weights.items() if name not in context}
    write_whole(folder / "model.safetensors", save(rest))
    write_whole(folder / "config.json", json.dumps(settings, indent=2) + "\n")


def _read_weights(folder: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    paths = sorted(Path(folder).glob("*.safetensors"))
    if not paths:
        raise LabkitError(f"There are no heads in {folder}: it holds no safetensors file.")
    try:
        for path in paths:
            weights |= load_file(path)
    except (OSError, SafetensorError) as error:
        raise LabkitError(f"{path} is damaged ({error}): make or fetch it again.") from None
    return weights


def _read_config(folder: Path) -> Any:
    path = Path(folder) / "config.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LabkitError(f"Cannot read {path}: {error}.") from None


def _checked(folder: Path, kind: type[BaseModel], settings: Any) -> Any:
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        problem = first_problem(error, "the whole")
        raise LabkitError(f"{folder / 'config.json'}: {problem}.") from None
