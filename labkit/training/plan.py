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

import math
import timeit
from collections.abc import Mapping
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
        attention = 2 * self.width * self.head_width * (self.heads + self.key_value_heads)
        return self.layers * (attention + 3 * self.width * self.inner)

    @property
    def table_weights(self) -> int:
        """Weights of one table of embeddings."""
        return self.vocabulary * self.width

    @property
    def weights(self) -> int:
        """All weights, norms apart."""
        return self.layer_weights + self.table_weights * (1 if self.tied else 2)

    def operations(self, tokens: int, context: int) -> int:
        """Return the operations of a pass, head apart: ``tokens`` in texts of ``context``."""
        attention = 4 * context * self.heads * self.head_width * self.layers
        return tokens * (2 * self.layer_weights + attention)


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
    left, right, block = torch.randn(512, 576), torch.randn(576, 1536), torch.zeros(16_000_000)
    product, reading = (
        min(timeit.repeat(work, number=1, repeat=20)) for work in (lambda: left @ right, block.sum)
    )
    return Machine(
        "this CPU",
        bandwidth=4 * len(block) / reading,
        speed=2 * 512 * 576 * 1536 / product,
        memory=float("inf"),
        source="measured",
        weight_bytes=4,
        pass_reach=0.75,
        head_reach=0.45,
    )


@dataclass(frozen=True)
class Plan:
    """The costs of a recipe for a base model of some shape on ``gpus`` devices of one kind."""

    recipe: Recipe
    base: Shape
    machine: Machine
    gpus: int = 1

    @property
    def z_width(self) -> int:
        """The width of the states that the heads read."""
        heads = self.recipe.heads
        return self.base.width * (len(heads.layers) + 1 + heads.context)

    @property
    def layer_weights(self) -> int:
        """The weights of the context layer or of EAGLE's layer, norms apart; 0 without either."""
        heads, width, parts = self.recipe.heads, self.base.width, len(self.recipe.heads.layers) + 1
        if heads.kind == "eagle":
            fused = parts if heads.layers else 0
            return width * (width * (fused + 2 + 4 + 1) + 3 * heads.inner_width)
        return width * (width * (parts + 1 + 4) + 3 * self.base.inner) if heads.context else 0

    @property
    def head_weights(self) -> int:
        """The trained weights of all heads, norms apart: projection, token's and output's.

        Tied heads are counted as often as they are used; a context or EAGLE layer is included.
        """
        heads = self.recipe.heads
        if heads.kind == "eagle":
            return self.layer_weights
        inner, count, own_table = heads.inner_width, heads.count, 2 if heads.hierarchical else 1
        later = inner if heads.hierarchical else self.z_width
        projections = inner * (self.z_width + (count - 1) * later)
        return projections + count * own_table * self.base.width * inner + self.layer_weights

    @property
    def softmaxes(self) -> tuple[int, int]:
        """The softmaxes at a position, with the base model's for soft labels; and their tokens."""
        loss, vocabulary = self.recipe.loss, self.base.vocabulary
        count = self.recipe.heads.count + (loss.labels == "soft")
        return count, min(loss.sampled_vocabulary or vocabulary, vocabulary)

    def head_operations(self, positions: int) -> int:
        """Return the operations of a forward and backward pass of all heads over ``positions``."""
        heads, (softmaxes, tokens) = self.recipe.heads, self.softmaxes
        if heads.kind == "eagle":  # its layer runs once for each depth
            own = 6 * self.layer_weights * heads.count
        else:  # no gradient goes on into what is frozen: Z and the tokens' rows of the table
            first, table = self.z_width * heads.inner_width, self.base.width * heads.inner_width
            frozen = first + heads.count * table if heads.hierarchical else heads.count * first
            own = 2 * (3 * self.head_weights - frozen)
        logits = 2 * self.base.width * tokens * (heads.count + softmaxes)
        return positions * (own + logits)

    def memory(self, schedule: Schedule) -> dict[str, float]:
        """Return bytes on one device: weights, AdamW's state, activations of a micro-batch."""
        base, heads = self.base, self.recipe.heads
        positions = schedule.rows / self.gpus / schedule.micro_batches * schedule.window
        parts = {
            "base": base.weights * self.machine.weight_bytes,
            "heads": self.head_weights * 16.0,  # weight, gradient and two moments in float32
            # of each table of logits: itself, its softmax and its gradient, in float32
            "logits": positions * math.prod(self.softmaxes) * 12.0,
            "states": positions * heads.count * (2 * base.width + 4 * heads.inner_width) * 4.0,
            # the widest place of the base model's pass, which keeps nothing
            "pass": positions * (3 * base.inner + 4 * base.width) * self.machine.weight_bytes,
        }
        return {**parts, "total": sum(parts.values())}

    def micro_batches(self, schedule: Schedule) -> int | None:
        """Return the fewest micro-batches with which a phase fits into 90% of the memory."""
        for count in range(1, schedule.rows // self.gpus + 1):
            tried = schedule.model_copy(update={"micro_batches": count})
            divides = not schedule.rows % (self.gpus * count)
            if divides and self.memory(tried)["total"] <= 0.9 * self.machine.memory:
                return count
        return None

    @property
    def disk(self) -> int:
        """The bytes of the answers' hidden states in float16, if they are kept."""
        made = self.recipe.generation
        if made is None or not made.keep_hidden or self.recipe.phase2 is None:
            return 0
        places = (made.count + made.held_out) * (made.prompt_tokens + made.answer_tokens)
        return places * self.z_width * 2

    @property
    def seconds(self) -> dict[str, float]:
        """The seconds of every stage, if all answers have full length."""
        base, machine = self.base, self.machine
        passing = machine.speed * machine.pass_reach * self.gpus
        training = machine.speed * machine.head_reach * self.gpus
        times: dict[str, float] = {}
        made, text, answers = self.recipe.generation, self.recipe.phase1, self.recipe.phase2
        if text:
            positions = text.steps * text.rows * text.window
            passes = base.operations(positions, text.window) / passing
            times["phase1"] = passes + self.head_operations(positions) / training
        if answers and made:
            length = made.prompt_tokens + made.answer_tokens
            each = (base.operations(1, length) + 2 * base.table_weights) / passing
            bandwidth = machine.bandwidth * self.gpus
            reading = base.weights * machine.weight_bytes / WRITING_ROWS / bandwidth
            times["generation"] = made.count * made.answer_tokens * max(each, reading)
            positions = answers.steps * answers.rows * answers.window
            times["phase2"] = self.head_operations(positions) / training
            if not made.keep_hidden:
                times["phase2"] += base.operations(positions, length) / passing
        return {**times, "total": sum(times.values())}


def plan_training(
    recipe_path: str | Path, shape: str, gpu: str = "cpu", gpus: int = 1
) -> dict[str, Any]:
    """Estimate the cost of the recipe at ``recipe_path`` for a base of ``shape`` on some devices.

    Returns ``rates`` (of the device, at its peak), ``base_weights``, ``head_weights``, ``memory``
    (bytes per device by part, and their ``total``), ``fits``, ``micro_batches`` (the fewest with
    which each phase fits, or null), ``disk`` (bytes of kept hidden states) and ``seconds`` by stage
    and in ``total``. Raises `LabkitError` for unknown names and impossible counts.
    """
    recipe = Recipe.load(recipe_path)
    machine = this_cpu() if gpu == "cpu" else _named("device", gpu, {**GPUS, "cpu": None})
    if gpus < 1:
        raise LabkitError(f"There cannot be {gpus} devices: give 1 or more.")
    plan = Plan(recipe, shape_named(shape), machine, gpus)
    stages = {"phase1": recipe.phase1, "phase2": recipe.phase2}
    phases = {name: schedule for name, schedule in stages.items() if schedule}
    largest = max(map(plan.memory, phases.values()), key=lambda parts: parts["total"])
    return {
        "recipe": recipe.name,
        "shape": shape,
        "gpu": gpu,
        "gpus": gpus,
        "rates": {"operations": machine.speed, "bandwidth": machine.bandwidth},
        "base_weights": plan.base.weights,
        "head_weights": plan.head_weights,
        "memory": largest,
        "fits": largest["total"] <= machine.memory,
        "micro_batches": {name: plan.micro_batches(phase) for name, phase in phases.items()},
        "disk": plan.disk,
        "seconds": plan.seconds,
    }


def shape_named(name: str) -> Shape:
    """Return the base model shape called ``name``."""
    shape: Shape = _named("base model shape", name, SHAPES)
    return shape


def _named(what: str, name: str, known: Mapping[str, Any]) -> Any:
    if name not in known:
        raise LabkitError(f"There is no {what} {name!r}: give {', '.join(known)}.")
    return known[name]
