"""A simulation of the same users on a machine that is not at hand.

The simulation takes the very steps of the batch: a chunk of prompts, then every row's last token
with its drafts, as many as are best at that load. Only the clock is computed: each part of a step
takes the time that a `Costs` gives. Those are `Measured` ones, or `GpuCosts`: the weights, the
cache and the arithmetic of a Llama-shaped model on a GPU's roofline (Williams et al. 2009).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from labkit.errors import LabkitError
from labkit.records import ServingRow, gains
from labkit.serving.costs import Costs, NodeTable
from labkit.serving.load import Answer, Load
from labkit.speculative.theory import Roofline
from labkit.training.plan import GPUS, Machine

GOLDEN = (math.sqrt(5) - 1) / 2

BYTES_A_WEIGHT = {"16 bits": 2.0, "8 bits": 1.0, "4 bits": 0.5}
"""Sizes of a stored weight; the largest that fits the memory is taken."""

BANDWIDTH_REACHED, SPEED_REACHED, LAUNCH_S = 0.75, 0.6, 1e-3
"""Assumed, not measured: the shares of the data sheet's bandwidth and speed that a good server
reaches, and the overhead of a step in seconds."""

VOCABULARY, HEAD_WIDTH = 32_000, 4096
"""Llama 2's, and the published speculators' inner width; a narrower model has its own width."""


@dataclass(frozen=True)
class GpuCosts(Costs):
    """Costs of a Llama-shaped model on a GPU by its roofline; see `labkit.serving.costs.Costs`.

    A pass reads the weights once and the cache of all its rows, and multiplies each row by every
    weight; attention's own arithmetic is left out, since it is small at these lengths. The model
    has ``layers`` of ``width``, and ``heads`` that speculate on top of it; a weight is stored in
    ``weight`` (see `BYTES_A_WEIGHT`).
    """

    gpu: Machine
    parameters: float
    layers: int
    width: int
    heads: int
    weight: str

    @classmethod
    def of(cls, gpu: str, parameters: float, capacity: int, heads: int = 3) -> GpuCosts:
        """Return a model on a GPU, with the widest weights that leave room for ``capacity`` tokens.

        It has the proportions of Llama: a layer has 12 width^2 weights, and a model is 128 times as
        wide as it has layers (Touvron et al. 2023: 40 layers of 5,120 for 13 billion). Raises
        `LabkitError` for an unknown GPU, or a model that does not fit even in 4 bits.

        >>> costs = GpuCosts.of("a100", 13e9, 256)
        >>> costs.layers, costs.width, costs.weight
        (40, 5176, '16 bits')
        """
        if gpu not in GPUS:
            raise LabkitError(f"There is no GPU {gpu!r}: give one of {', '.join(GPUS)}.")
        if not 1e6 <= parameters <= 1e13:
            raise LabkitError(
                f"A model of {parameters:g} parameters was asked for: give 1e6 to 1e13."
            )
        width = (128 * parameters / 12) ** (1 / 3)
        layers = max(1, round(width / 128))
        for weight in BYTES_A_WEIGHT:
            costs = cls(GPUS[gpu], parameters, layers, round(width), heads, weight)
            if costs.slots(capacity) >= 1:
                return costs
        raise LabkitError(
            f"A model of {parameters:g} parameters does not fit one {GPUS[gpu].name} even in 4 "
            "bits: give a smaller model or a larger GPU."
        )

    @property
    def head_parameters(self) -> int:
        """Weights that one head reads: its projection and its table over the vocabulary."""
        inner = min(HEAD_WIDTH, self.width)
        return inner * (max(inner, self.width) + VOCABULARY)

    @property
    def cache_bytes(self) -> int:
        """Keys and values of one token in 16 bits, in every layer, as many heads as queries."""
        return 2 * 2 * self.layers * self.width

    def slots(self, capacity: int) -> int:
        """Return how many texts of ``capacity`` tokens fit into what the weights leave free."""
        weights = self.parameters + self.heads * self.head_parameters
        left = 0.9 * self.gpu.memory - weights * BYTES_A_WEIGHT[self.weight]
        return int(left // (capacity * self.cache_bytes))

    def _roofline(self, parameters: float) -> Roofline:
        return Roofline(
            pass_bytes=parameters * BYTES_A_WEIGHT[self.weight],
            parameters=parameters,
            bandwidth=self.gpu.bandwidth * BANDWIDTH_REACHED,
            speed=self.gpu.speed * SPEED_REACHED,
        )

    def check_s(self, rows: float, cached: int) -> float:
        """See `labkit.serving.costs.Costs.check_s`."""
        roof = self._roofline(self.parameters)
        reading = cached * self.cache_bytes / roof.bandwidth
        return LAUNCH_S + roof.seconds(math.ceil(rows)) + reading

    def draft_s(self, batch: int, nodes: float) -> float:
        """See `labkit.serving.costs.Costs.draft_s`; the heads run one after another."""
        if not nodes:
            return 0.0
        run = min(self.heads, math.ceil(nodes))
        rows = math.ceil(batch * nodes / run)
        return run * (LAUNCH_S / 10 + self._roofline(self.head_parameters).seconds(rows))


def chances_by_rank(accept: Sequence[Sequence[float]], nodes: int) -> list[float]:
    """Return the chance that the n-th likeliest node of a tree is accepted, up to ``nodes``.

    ``accept[h][r]`` is how often the choice of rank r of head h + 1 is right, given that those
    before it were; a node's chance is the product along its path.

    >>> [round(chance, 3) for chance in chances_by_rank([[0.5, 0.2], [0.4]], 4)]
    [0.5, 0.2, 0.2, 0.08]
    """
    chances = [
        math.prod(path) for depth in range(1, len(accept) + 1) for path in product(*accept[:depth])
    ]
    return sorted(chances, reverse=True)[:nodes]


@dataclass(frozen=True)
class Job:
    """A request: tokens of its prompt, and of its answer."""

    prompt: int
    output: int


@dataclass
class _Row:
    """A job under way.

    ``luck`` moves by the golden ratio with every step, which fills 0..1 evenly, so that small
    samples are fair.
    """

    job: Job
    sent: float
    luck: float
    read: int = 0
    answered: int = 0
    arrivals: list[float] = field(default_factory=list)


def simulate(
    table: NodeTable,
    jobs: Sequence[Job],
    users: int,
    slots: int | None = None,
    prefill_rows: int = 512,
    seed: int = 0,
) -> Load:
    """Let ``users`` send the ``jobs`` between them, each the next one once its last is answered.

    ``table`` has the costs, the chances of draft nodes (none: vanilla) and how many are drafted at
    which load. ``slots`` rows are answered at once (None: one for each user); a step reads up to
    ``prefill_rows`` prompt tokens.
    """
    if users < 1 or not jobs:
        raise LabkitError(f"{users} users with {len(jobs)} requests: give at least 1 of each.")
    if slots is not None and slots < 1:
        raise LabkitError(f"{slots} slots were asked for: give at least 1.")
    run = _Run(table, jobs, np.random.default_rng(seed))
    for _ in range(users):
        run.send()
    while run.waiting or run.running:
        while run.waiting and len(run.running) < (slots or users):
            run.running.append(run.waiting.popleft())
        run.prefill(prefill_rows)
        run.answer()
    answers = tuple(sorted(run.done, key=lambda answer: answer.sent))
    steps = max(run.steps, 1)
    return Load(answers, run.clock, None, run.committed / steps, run.drafted / steps)


class _Run:
    """The state of a simulation: its clock, its rows, and the sums over its steps."""

    def __init__(self, table: NodeTable, jobs: Sequence[Job], rng: np.random.Generator) -> None:
        self.table, self.rng = table, rng
        self.coming = iter(jobs)
        self.waiting: deque[_Row] = deque()
        self.running: list[_Row] = []
        self.done: list[Answer] = []
        self.clock, self.drafted = 0.0, 0.0
        self.steps, self.committed = 0, 0

    def send(self) -> None:
        """Let a user send the next job, if there is one."""
        job = next(self.coming, None)
        if job is not None:
            self.waiting.append(_Row(job, self.clock, float(self.rng.random())))

    def give(self, row: _Row, tokens: int) -> None:
        """Give a row its tokens; once it has all of them, its user sends the next job."""
        row.answered += tokens
        row.arrivals.append(self.clock)
        if row.answered == row.job.output:
            self.done.append(Answer("", row.sent, tuple(row.arrivals), row.job.output))
            self.running.remove(row)
            self.send()

    def prefill(self, most: int) -> None:
        """Read up to ``most`` prompt tokens; rows read to the end get their first token."""
        room = most
        for row in self.running:
            part = min(room, row.job.prompt - row.read)
            row.read += part
            room -= part
        if room == most:
            return
        self.clock += self.table.costs.prefill_s(most - room)
        for row in list(self.running):
            if row.read == row.job.prompt and not row.answered:
                self.give(row, 1)

    def answer(self) -> None:
        """Draft after every row that has a first token, check, and give what is accepted."""
        rows = [row for row in self.running if row.answered]
        if not rows:
            return
        table, many = self.table, len(rows)
        cached = sum(row.job.prompt + row.answered for row in rows)
        nodes = table.nodes(many, cached)
        drafted = nodes * table.filled
        self.clock += table.costs.draft_s(many, drafted)
        self.clock += table.costs.check_s(many * (1 + drafted), cached)
        hope = sum(table.chances[:nodes])
        for row in rows:
            row.luck = (row.luck + GOLDEN) % 1
            accepted = min(math.floor(hope + row.luck), row.job.output - row.answered - 1)
            self.committed += 1 + accepted
            self.give(row, 1 + accepted)
        self.drafted += drafted * many
        self.steps += many


@dataclass(frozen=True)
class Check:
    """Vanilla's time per token over a method's at a number of users: measured and predicted."""

    users: int
    method: str
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        """The prediction's error as a share of the measured gain; above 0 it promised more."""
        return self.predicted / self.measured - 1


def check_prediction(rows: Sequence[ServingRow]) -> list[Check]:
    """Return measured and simulated gains side by side, wherever there are both."""
    measured, predicted = gains(rows, "measured"), gains(rows, "simulated")
    return [
        Check(users, method, gain, predicted[users, method])
        for (users, method), gain in measured.items()
        if (users, method) in predicted
    ]
