"""An estimate of the memory and time that a recipe takes on a machine, from a model of cost.

Counting rules. A product of (m, k) with (k, n) is 2 m k n operations. The base model is passed
forward only: 2 operations per weight and token, and 4 T D per layer and token for attention over T
tokens. A head's own product costs three times its forward pass (two more for the gradients of its
weights and of its input), and twice where one of them is frozen: where it reads the base model's
state or a token's embedding, and where the logits are taken with the table. A machine reaches
``pass_reach`` of its peak in passes of the base model and ``head_reach`` in steps of the heads,
whose softmaxes are no products. Writing text takes the larger of that and of reading the
weights once for each token of all rows. Nothing else is counted, neither the loading of data nor
the waiting of processes for each other.

Checked on one core of an AVX2 machine (87 GFLOP/s in a product of 512 x 576 x 1536), seconds of
processor time, measured and by this plan: a pass over 2 x 256 tokens, tiny 0.042 and 0.031, real
1.70 and 1.79; a step of the heads over 1,024 positions by their recipes, tiny 0.36 and 0.35, real
2.3 and 2.6.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from labkit.errors import LabkitError
from labkit.training.recipe import Recipe, Schedule

WRITING_ROWS = 64
"""Texts written at a time on one device, in the estimate."""


@dataclass(frozen=True)
class Shape:
    """A Llama-shaped base model."""

    layers: int
    width: int
    inner: int
    heads: int
    key_value_heads: int
    head_width: int
    vocabulary: int
    tied: bool = False

    @property
    def layer_weights(self) -> int:
        """Weights of all layers, norms apart."""
        queries = self.heads * self.head_width
        others = self.key_value_heads * self.head_width
        attention = self.width * (2 * queries + 2 * others)
        return self.layers * (attention + 3 * self.width * self.inner)

    @property
    def table_weights(self) -> int:
        """Weights of one table of embeddings."""
        return self.vocabulary * self.width

    @property
    def weights(self) -> int:
        """All weights, norms apart."""
        return self.layer_weights + self.table_weights * (1 if self.tied else 2)


SHAPES = {
    "tiny": Shape(4, 192, 512, 6, 2, 32, 4_096, tied=True),
    "tiny-random": Shape(2, 64, 128, 4, 2, 16, 512),
    "real": Shape(30, 576, 1_536, 9, 3, 64, 49_152, tied=True),
    "smollm2-1.7b": Shape(24, 2_048, 8_192, 32, 32, 64, 49_152, tied=True),
    "llama2-7b": Shape(32, 4_096, 11_008, 32, 32, 128, 32_000),
    "llama2-13b": Shape(40, 5_120, 13_824, 40, 40, 128, 32_000),
    "llama3-8b": Shape(32, 4_096, 14_336, 32, 8, 128, 128_256),
}
"""Base models by name, for plans and for serving random weights of their shape."""


@dataclass(frozen=True)
class Machine:
    """A device: bytes and operations a second at its peak, bytes of memory and of a stored weight.

    ``speed`` is that of dense products in 16 bits (32 on the CPU); ``source`` says who states it.
    The reaches of GPUs are what well-tuned training is reported to get, not measured here.
    """

    name: str
    bandwidth: float
    speed: float
    memory: float
    source: str
    weight_bytes: int = 2
    pass_reach: float = 0.4
    head_reach: float = 0.3


GPUS = {
    "a100": Machine(
        "NVIDIA A100 80 GB", 2039e9, 312e12, 80e9, "NVIDIA A100 data sheet, SXM, 80 GB (2021)"
    ),
    "h100": Machine(
        "NVIDIA H100 80 GB", 3.35e12, 989e12, 80e9, "NVIDIA H100 data sheet, SXM (2023)"
    ),
    "h200": Machine(
        "NVIDIA H200 141 GB", 4.8e12, 989e12, 141e9, "NVIDIA H200 data sheet, SXM (2024)"
    ),
    "l4": Machine("NVIDIA L4 24 GB", 300e9, 121e12, 24e9, "NVIDIA L4 data sheet (2023)"),
    "t4": Machine("NVIDIA T4 16 GB", 320e9, 65e12, 16e9, "NVIDIA Turing white paper, T4 (2018)"),
}
"""GPUs by name, with their makers' figures: the plan and the serving simulation use the same."""


def this_cpu() -> Machine:
    """Return this CPU in float32: its rates are measured here, its memory is unlimited."""
    left, right = torch.randn(512, 576), torch.randn(576, 1536)
    operations = 2 * 512 * 576 * 1536 / _seconds(lambda: left @ right)
    block = torch.zeros(16_000_000)
    bandwidth = 4 * len(block) / _seconds(block.sum)
    figures = "this CPU", bandwidth, operations, float("inf"), "measured"
    return Machine(*figures, weight_bytes=4, pass_reach=0.75, head_reach=0.45)


def _seconds(work: Any, enough: float = 0.2) -> float:
    """Return the least time of several calls of ``work``."""
    work()
    best, end = float("inf"), time.perf_counter() + enough
    while time.perf_counter() < end:
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best


def base_operations(shape: Shape, tokens: int, context: int) -> int:
    """Return the operations of a forward pass, head apart: ``tokens`` in texts of ``context``."""
    attention = 4 * context * shape.heads * shape.head_width * shape.layers
    return tokens * (2 * shape.layer_weights + attention)


def head_weights(recipe: Recipe, shape: Shape) -> list[int]:
    """Return the trained weights of each head, norms apart: projection, token's and output's.

    Tied heads are counted as often as they are used.
    """
    inner, kind = recipe.heads.inner_width, recipe.heads.hierarchical
    first, table = _z_width(recipe, shape) * inner, shape.width * inner
    return [
        (inner * inner if number and kind else first) + table * (2 if kind else 1)
        for number in range(recipe.heads.count)
    ]


def _z_width(recipe: Recipe, shape: Shape) -> int:
    """Return the width of the states that the heads read."""
    return shape.width * (len(recipe.heads.layers) + 1)


def head_operations(recipe: Recipe, shape: Shape, positions: int) -> int:
    """Return the operations of a forward and backward pass of all heads over ``positions``."""
    tokens = recipe.loss.sampled_vocabulary or shape.vocabulary
    logits = 2 * shape.width * min(tokens, shape.vocabulary)
    own, kind = sum(head_weights(recipe, shape)), recipe.heads.hierarchical
    # No gradient goes on into what is frozen: Z and the tokens' rows of the table.
    inner, count = recipe.heads.inner_width, recipe.heads.count
    first = _z_width(recipe, shape) * inner
    frozen = first + count * shape.width * inner if kind else count * first
    each = 2 * (3 * own - frozen) + 2 * logits * recipe.heads.count
    labels = logits if recipe.loss.labels == "soft" else 0
    return positions * (each + labels)


def plan_training(
    recipe_path: str | Path, shape: str, gpu: str = "cpu", gpus: int = 1
) -> dict[str, Any]:
    """What the recipe at ``recipe_path`` costs for a base of ``shape`` on ``gpus`` times ``gpu``.

    Returns ``rates`` (of the device, at its peak), ``base_weights``, ``head_weights``, ``memory``
    (bytes per device by part, and their ``total``), ``fits``, ``micro_batches`` (the fewest with
    which each phase fits, or null), ``disk`` (bytes of kept hidden states) and ``seconds`` by stage
    and in ``total``. Raises `LabkitError` for names that are not known and counts that cannot be.
    """
    recipe = Recipe.load(recipe_path)
    base = shape_named(shape)
    machine = this_cpu() if gpu == "cpu" else _named("device", gpu, {**GPUS, "cpu": None})
    if gpus < 1:
        raise LabkitError(f"There cannot be {gpus} devices: give 1 or more.")
    stages = {"phase1": recipe.phase1, "phase2": recipe.phase2}
    phases = {name: schedule for name, schedule in stages.items() if schedule}
    memory = {
        name: _memory(recipe, base, machine, schedule, gpus) for name, schedule in phases.items()
    }
    largest = max(memory.values(), key=lambda parts: parts["total"])
    return {
        "recipe": recipe.name,
        "shape": shape,
        "gpu": gpu,
        "gpus": gpus,
        "rates": {"operations": machine.speed, "bandwidth": machine.bandwidth},
        "base_weights": base.weights,
        "head_weights": sum(head_weights(recipe, base)),
        "memory": largest,
        "fits": largest["total"] <= machine.memory,
        "micro_batches": {
            name: _fitting(recipe, base, machine, schedule, gpus)
            for name, schedule in phases.items()
        },
        "disk": _disk(recipe, base),
        "seconds": _times(recipe, base, machine, gpus),
    }


def shape_named(name: str) -> Shape:
    """Return the base model shape called ``name``."""
    shape: Shape = _named("base model shape", name, SHAPES)
    return shape


def _named(what: str, name: str, known: dict[str, Any]) -> Any:
    if name not in known:
        raise LabkitError(f"There is no {what} {name!r}: give {', '.join(known)}.")
    return known[name]


def _memory(
    recipe: Recipe, base: Shape, machine: Machine, schedule: Schedule, gpus: int
) -> dict[str, float]:
    """Return bytes on one device by part: weights, AdamW's state, activations of a micro-batch."""
    trained = sum(head_weights(recipe, base))
    rows = schedule.rows / gpus / schedule.micro_batches
    positions = rows * schedule.window
    tokens = min(recipe.loss.sampled_vocabulary or base.vocabulary, base.vocabulary)
    tables = recipe.heads.count + (recipe.loss.labels == "soft")
    parts = {
        "base": base.weights * machine.weight_bytes,
        "heads": trained * 16.0,  # weight, gradient and two moments in float32
        # of each table of logits: itself, its softmax and its gradient, in float32
        "logits": positions * tokens * tables * 12.0,
        "states": positions
        * recipe.heads.count
        * (2 * base.width + 4 * recipe.heads.inner_width)
        * 4.0,
        # the widest place of the base model's pass, which keeps nothing
        "pass": positions * (3 * base.inner + 4 * base.width) * machine.weight_bytes,
    }
    return {**parts, "total": sum(parts.values())}


def _fitting(
    recipe: Recipe, base: Shape, machine: Machine, schedule: Schedule, gpus: int
) -> int | None:
    """Return the fewest micro-batches with which a phase fits into 90% of the memory."""
    for count in range(1, schedule.rows // gpus + 1):
        if schedule.rows % (gpus * count):
            continue
        tried = schedule.model_copy(update={"micro_batches": count})
        if _memory(recipe, base, machine, tried, gpus)["total"] <= 0.9 * machine.memory:
            return count
    return None


def _disk(recipe: Recipe, base: Shape) -> int:
    """Return the bytes of the answers' hidden states in float16, if they are kept."""
    made = recipe.generation
    if made is None or not made.keep_hidden or recipe.phase2 is None:
        return 0
    places = (made.count + made.held_out) * (made.prompt_tokens + made.answer_tokens)
    return places * _z_width(recipe, base) * 2


def _times(recipe: Recipe, base: Shape, machine: Machine, gpus: int) -> dict[str, float]:
    """Return the seconds of every stage, if all answers have full length."""
    passing = machine.speed * machine.pass_reach * gpus
    training = machine.speed * machine.head_reach * gpus
    times: dict[str, float] = {}
    made, text, answers = recipe.generation, recipe.phase1, recipe.phase2
    if text:
        positions = text.steps * text.rows * text.window
        passes = base_operations(base, positions, text.window) / passing
        times["phase1"] = passes + head_operations(recipe, base, positions) / training
    if answers and made:
        length = made.prompt_tokens + made.answer_tokens
        arithmetic = base_operations(base, 1, length) + 2 * base.table_weights
        reading = base.weights * machine.weight_bytes / WRITING_ROWS / machine.bandwidth / gpus
        times["generation"] = made.count * made.answer_tokens * max(arithmetic / passing, reading)
        positions = answers.steps * answers.rows * answers.window
        times["phase2"] = head_operations(recipe, base, positions) / training
        if not made.keep_hidden:
            times["phase2"] += base_operations(base, positions, length) / passing
    return {**times, "total": sum(times.values())}
