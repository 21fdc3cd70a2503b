"""The same users against a cost model: what a machine that is not at hand would make of them.

The simulation steps through the very loop of `labkit.serving.batch`: a chunk of prompts, then every
row's last token with its drafts, the number of drafts being the best bet. Only the clock is made
up: each part of a step takes what a `Costs` says. Those are `Measured` ones, or `GpuCosts`: the
weights, the cache and the arithmetic of a Llama-shaped model on a GPU's roofline (Williams et al.
2009).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from labkit.errors import LabkitError
from labkit.records import ServingRow
from labkit.serving.costs import Costs, best_nodes, budgets, tokens_per_second
from labkit.serving.load import Answer, Load
from labkit.speculative.theory import Roofline

GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Gpu:
    """A GPU's data sheet: bytes a second, 16-bit operations a second (dense), bytes of memory."""

    name: str
    bandwidth: float
    speed: float
    memory: float
    source: str


GPUS = {
    "a100": Gpu(
        "NVIDIA A100 80 GB", 2039e9, 312e12, 80e9, "NVIDIA A100 data sheet, SXM, 80 GB (2021)"
    ),
    "h100": Gpu("NVIDIA H100 80 GB", 3.35e12, 989e12, 80e9, "NVIDIA H100 data sheet, SXM (2023)"),
    "h200": Gpu("NVIDIA H200 141 GB", 4.8e12, 989e12, 141e9, "NVIDIA H200 data sheet, SXM (2024)"),
    "t4": Gpu("NVIDIA T4 16 GB", 320e9, 65e12, 16e9, "NVIDIA Turing white paper, T4 (2018)"),
}
"""GPUs by the name that the command line has for them."""

BYTES_A_WEIGHT = {"16 bits": 2.0, "8 bits": 1.0, "4 bits": 0.5}
"""How wide a weight can be stored; the widest that fits the memory is taken."""


@dataclass(frozen=True)
class Shape:
    """A Llama-shaped model: ``layers`` of ``width``, and heads that speculate on top of it."""

    parameters: float
    layers: int
    width: int
    heads: int
    vocabulary: int = 32_000

    @classmethod
    def of(cls, parameters: float, heads: int = 3) -> Shape:
        """The shape of a model of that many parameters, in the proportions of Llama.

        A layer has 12 width^2 weights, and a Llama is 128 times as wide as it has layers (Touvron
        et al. 2023: 40 layers of 5,120 for 13 billion).

        >>> shape = Shape.of(13e9)
        >>> shape.layers, shape.width
        (40, 5176)
        """
        if not 1e6 <= parameters <= 1e13:
            raise LabkitError(
                f"A model of {parameters:g} parameters was asked for: give 1e6 to 1e13."
            )
        width = (128 * parameters / 12) ** (1 / 3)
        return cls(parameters, max(1, round(width / 128)), round(width), heads)

    @property
    def inner(self) -> int:
        """The heads' width: 4,096 as published, or the model's own where it is narrower."""
        return min(4096, self.width)

    @property
    def head_parameters(self) -> int:
        """Weights that one head reads: its projection and its table over the vocabulary."""
        return self.inner * (max(self.inner, self.width) + self.vocabulary)

    @property
    def cache_bytes(self) -> int:
        """Keys and values of one token in 16 bits, in every layer, as many heads as queries."""
        return 2 * 2 * self.layers * self.width


@dataclass(frozen=True)
class GpuCosts:
    """Costs of a model on a GPU by its roofline; see `labkit.serving.costs.Costs`.

    A pass reads the weights once and the cache of all its rows, and multiplies each row by every
    weight; attention's own arithmetic is left out, being small at these lengths. ``reached`` are
    the shares of the data sheet's bandwidth and speed that a good server gets out of it, and
    ``launch_s`` what a step costs besides: they are assumed, not measured.
    """

    gpu: Gpu
    shape: Shape
    bytes_a_weight: float
    reached: tuple[float, float] = (0.75, 0.6)
    launch_s: float = 1e-3

    @classmethod
    def of(cls, gpu: str, parameters: float, capacity: int, heads: int = 3) -> GpuCosts:
        """A model on a GPU, its weights as wide as leave room for one text of ``capacity``.

        Raises `LabkitError` for an unknown GPU, or a model that does not fit even in 4 bits.
        """
        if gpu not in GPUS:
            raise LabkitError(f"There is no GPU {gpu!r}: give one of {', '.join(GPUS)}.")
        shape = Shape.of(parameters, heads)
        for bytes_a_weight in BYTES_A_WEIGHT.values():
            costs = cls(GPUS[gpu], shape, bytes_a_weight)
            if costs.slots(capacity) >= 1:
                return costs
        raise LabkitError(
            f"A model of {parameters:g} parameters does not fit one {GPUS[gpu].name} even in 4 "
            "bits: give a smaller model or a larger GPU."
        )

    @property
    def width_name(self) -> str:
        """How wide a weight is stored, in words."""
        return next(name for name, size in BYTES_A_WEIGHT.items() if size == self.bytes_a_weight)

    def slots(self, capacity: int) -> int:
        """Texts of ``capacity`` tokens whose cache fits beside the weights in 90% of the memory."""
        weights = self.shape.parameters + self.shape.heads * self.shape.head_parameters
        left = 0.9 * self.gpu.memory - weights * self.bytes_a_weight
        return int(left // (capacity * self.shape.cache_bytes))

    def _roofline(self, parameters: float) -> Roofline:
        return Roofline(
            pass_bytes=parameters * self.bytes_a_weight,
            parameters=parameters,
            bandwidth=self.gpu.bandwidth * self.reached[0],
            speed=self.gpu.speed * self.reached[1],
        )

    def prefill_s(self, rows: int) -> float:
        """See `labkit.serving.costs.Costs.prefill_s`."""
        return self.check_s(rows, 0)

    def check_s(self, rows: float, cached: int) -> float:
        """See `labkit.serving.costs.Costs.check_s`."""
        roof = self._roofline(self.shape.parameters)
        reading = cached * self.shape.cache_bytes / roof.bandwidth
        return self.launch_s + roof.seconds(math.ceil(rows)) + reading

    def draft_s(self, batch: int, nodes: float) -> float:
        """See `labkit.serving.costs.Costs.draft_s`; the heads run one after another."""
        if not nodes:
            return 0.0
        run = min(self.shape.heads, math.ceil(nodes))
        rows = math.ceil(batch * nodes / run)
        roof = self._roofline(self.shape.head_parameters)
        return run * (self.launch_s / 10 + roof.seconds(rows))


def chances_by_rank(accept: Sequence[Sequence[float]], nodes: int) -> list[float]:
    """The chance that the n-th likeliest node of a tree is accepted, for ``nodes`` of them.

    ``accept[h][r]`` is how often head h + 1's choice of rank r is right, where those before it
    were; a node's chance is the product along its path.

    >>> [round(chance, 3) for chance in chances_by_rank([[0.5, 0.2], [0.4]], 4)]
    [0.5, 0.2, 0.2, 0.08]
    """
    chances = [
        math.prod(accept[head][rank] for head, rank in enumerate(path))
        for depth in range(1, len(accept) + 1)
        for path in product(*(range(len(row)) for row in accept[:depth]))
    ]
    return sorted(chances, reverse=True)[:nodes]


@dataclass(frozen=True)
class Job:
    """A request: tokens of its prompt, and of its answer."""

    prompt: int
    output: int


@dataclass
class _Row:
    """A job under way; ``phase`` in 0..1 moves by the golden ratio with every step."""

    job: Job
    sent: float
    phase: float
    read: int = 0
    answered: int = 0
    arrivals: list[float] = field(default_factory=list)

    def luck(self) -> float:
        """The next of a row of numbers that fill 0..1 evenly, so that small samples are fair."""
        self.phase = (self.phase + GOLDEN) % 1
        return self.phase


@dataclass(frozen=True)
class Simulated:
    """A simulated load, and the mean number of nodes drafted after a row in a step."""

    load: Load
    tokens_per_step: float
    nodes_per_step: float


def simulate(
    costs: Costs,
    jobs: Sequence[Job],
    users: int,
    chances: Sequence[float] = (),
    slots: int | None = None,
    prefill_rows: int = 512,
    nodes: int | None = None,
    seed: int = 0,
) -> Simulated:
    """Let ``users`` send the ``jobs`` between them, each the next one once its last is answered.

    ``chances`` (N,) by rank are those of a drafted node to be accepted; empty is vanilla. ``nodes``
    fixes how much is drafted, None leaves it to the best bet. ``slots`` rows are answered at once
    (None: as many as there are users), ``prefill_rows`` prompt tokens are read in a step.
    """
    if users < 1 or not jobs:
        raise LabkitError(f"{users} users with {len(jobs)} requests: give at least 1 of each.")
    if slots is not None and slots < 1:
        raise LabkitError(f"{slots} slots were asked for: give at least 1.")
    rng = np.random.default_rng(seed)
    coming = iter(jobs)
    waiting: deque[_Row] = deque()
    running: list[_Row] = []
    done: list[Answer] = []
    choose = _Bet(costs, chances, nodes)
    clock, drafted, steps, committed = 0.0, 0, 0, 0

    def send(at: float) -> None:
        job = next(coming, None)
        if job is not None:
            waiting.append(_Row(job, at, float(rng.random())))

    def give(row: _Row, many: int) -> None:
        row.answered += many
        row.arrivals.append(clock)
        if row.answered == row.job.output:
            done.append(Answer("", row.sent, tuple(row.arrivals), row.job.output))
            running.remove(row)
            send(clock)

    for _ in range(users):
        send(0.0)
    while waiting or running:
        while waiting and len(running) < (slots or users):
            running.append(waiting.popleft())
        room = prefill_rows
        for row in running:
            part = min(room, row.job.prompt - row.read)
            row.read += part
            room -= part
        if room < prefill_rows:
            clock += costs.prefill_s(prefill_rows - room)
            for row in list(running):
                if row.read == row.job.prompt and not row.answered:
                    give(row, 1)
        rows = [row for row in running if row.answered]
        if not rows:
            continue
        cached = sum(row.job.prompt + row.answered for row in rows)
        many = choose(len(rows), cached)
        clock += costs.draft_s(len(rows), many) + costs.check_s(len(rows) * (1 + many), cached)
        hope = sum(chances[:many])
        for row in rows:
            accepted = min(math.floor(hope + row.luck()), row.job.output - row.answered - 1)
            committed += 1 + accepted
            give(row, 1 + accepted)
        drafted += many * len(rows)
        steps += len(rows)
    load = Load(tuple(sorted(done, key=lambda answer: answer.sent)), clock)
    return Simulated(load, committed / max(steps, 1), drafted / max(steps, 1))


class _Bet:
    """How many nodes to draft at a load: fixed, or the best bet, remembered by batch and cache."""

    def __init__(self, costs: Costs, chances: Sequence[float], nodes: int | None) -> None:
        self.costs, self.chances, self.nodes = costs, chances, nodes
        self._known: dict[tuple[int, int], int] = {}

    def __call__(self, batch: int, cached: int) -> int:
        if not self.chances or self.nodes is not None:
            return min(self.nodes or 0, len(self.chances))
        key = batch, cached // (64 * batch)
        if key not in self._known:
            choices = budgets(len(self.chances))
            rates = tokens_per_second(self.costs, batch, self.chances, choices, cached)
            self._known[key] = best_nodes(rates)
        return self._known[key]


@dataclass(frozen=True)
class Check:
    """At a number of users, vanilla's time per token over a method's: measured and predicted."""

    users: int
    method: str
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        """By what share of the measured gain the prediction is off; above 0 it promised more."""
        return self.predicted / self.measured - 1


def gains(rows: Sequence[ServingRow], origin: str) -> dict[tuple[int, str], float]:
    """Vanilla's mean time per token over each other method's, by users and method."""
    plain = {
        row.users: row.tpot_ms.mean
        for row in rows
        if (row.method, row.origin) == ("vanilla", origin)
    }
    return {
        (row.users, row.method): plain[row.users] / row.tpot_ms.mean
        for row in rows
        if row.origin == origin and row.method != "vanilla"
        if row.users in plain and row.tpot_ms.mean > 0
    }


def check_prediction(rows: Sequence[ServingRow]) -> list[Check]:
    """Measured and simulated gains side by side, wherever there are both."""
    measured, predicted = gains(rows, "measured"), gains(rows, "simulated")
    return [
        Check(users, method, gain, predicted[users, method])
        for (users, method), gain in measured.items()
        if (users, method) in predicted
    ]
