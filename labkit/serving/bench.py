"""Latency against users: a model here, a server elsewhere, or a GPU that is only computed.

`labkit bench serving` prints what these functions return: an `Outcome`, whose ``log`` is the record
that the ServingCurves widget and `labkit.plots.plot_serving` draw.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from labkit import threads
from labkit.errors import LabkitError
from labkit.paths import data_dir
from labkit.provenance import FROM_PYTHON, provenance
from labkit.records import LossLog, ServingLog, ServingRow
from labkit.serving.costs import NodeTable
from labkit.serving.engine import ServingEngine
from labkit.serving.load import Load, Target, closed_loop, open_loop, summarise
from labkit.serving.simulate import (
    Check,
    GpuCosts,
    Job,
    chances_by_rank,
    check_prediction,
    simulate,
)
from labkit.serving.targets import EngineTarget, RemoteServer
from labkit.speculative.decoder import Decoder, heads_folder
from labkit.speculative.generate import PREFILL_ROWS

VANILLA, SPECULATIVE, SERVER = "vanilla", "mlp", "server"

MEASURED_TOKENS = 8
"""Output tokens for which a slot has room at least: costs are measured on steps after the first."""

MOST_SLOTS = 32
"""The most slots by default, however many users there are."""

OPEN_SLOTS = 16
"""Slots for requests that arrive at a rate."""

SIMULATED_PROMPT = 128
"""Tokens of a simulated prompt on average; they lie between half and one and a half of it."""

SIMULATED_NODES = 12
"""The most nodes that a simulated server drafts."""

PUBLISHED = (
    "What was published of such heads (Wertheimer et al. 2024): about twice the speed for Llama 2 "
    "13B, a gain that shrinks as requests are batched and holds until about 64 of them."
)
"""The shape of the figure that a simulation is compared with."""

PUBLISHED_GAINS = {1: 2.0, 64: 1.0}
"""The same as points, by users: the gain in time per token. The text gives both with "about"."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Level:
    """One load: so many users who wait for their answers, or requests at a rate."""

    users: int = 1
    rate: float | None = None

    def __str__(self) -> str:
        return f"{self.rate:g} requests/s" if self.rate else f"{self.users} users"


@dataclass(frozen=True)
class Loads:
    """The levels of a benchmark, one after another, and the requests of each.

    At each level ``requests`` are sent (at least one for each user), each for up to
    ``max_new_tokens``, from the prompts in an order by ``seed``.
    """

    levels: Sequence[Level]
    requests: int = 24
    max_new_tokens: int = 64
    seed: int = 0
    command: str = FROM_PYTHON

    def __post_init__(self) -> None:
        if not self.levels or self.requests < 1:
            raise LabkitError(
                f"{len(self.levels)} loads of {self.requests} requests: give at least 1 of each."
            )

    @property
    def most_users(self) -> int:
        """The users of the largest level."""
        return max(level.users for level in self.levels)

    @property
    def slots(self) -> int:
        """The slots that an engine has by default."""
        return min(
            max(OPEN_SLOTS if level.rate else level.users for level in self.levels), MOST_SLOTS
        )

    def choose(self, prompts: Sequence[str]) -> list[str]:
        """Return the prompts of the largest level; all of them before any is used again.

        >>> Loads([Level(1)], requests=5).choose(["a", "b"])
        ['a', 'b', 'a', 'b', 'a']
        """
        if not prompts:
            raise LabkitError("There is no prompt: give at least one.")
        rng = np.random.default_rng(self.seed)
        found: list[str] = []
        while len(found) < max(self.requests, self.most_users):
            found += [prompts[place] for place in rng.permutation(len(prompts))]
        return found[: max(self.requests, self.most_users)]

    def put(self, level: Level, target: Target, chosen: Sequence[str]) -> Load:
        """Put a level's load on a target."""
        sent = chosen[: max(self.requests, 1 if level.rate else level.users)]
        if level.rate:
            rng = np.random.default_rng(self.seed)
            return open_loop(target, sent, level.rate, self.max_new_tokens, rng)
        return closed_loop(target, sent, level.users, self.max_new_tokens)

    def log(
        self,
        name: str,
        base: str,
        target: str,
        rows: Sequence[ServingRow],
        note: str = "",
    ) -> ServingLog:
        """Return the record of these loads."""
        return ServingLog(
            name=name,
            base=base,
            target=target,
            max_new_tokens=self.max_new_tokens,
            rows=tuple(rows),
            provenance=provenance(self.command, self.seed, note),
        )


@dataclass(frozen=True)
class Outcome:
    """The result of a benchmark.

    ``identical`` says whether every prompt got the same answer by every method and at every load
    (None: not compared). ``tables`` has the best number of draft nodes for each batch size, by
    method. ``contention`` is the share of the processor that other processes took; ``lost`` says
    why the target stopped answering, if it did.
    """

    log: ServingLog
    identical: bool | None = None
    tables: Mapping[str, NodeTable] = field(default_factory=dict)
    slots: int = 0
    checks: tuple[Check, ...] = ()
    contention: float | None = None
    lost: str | None = None

    @property
    def decisions(self) -> dict[str, list[str]]:
        """The tables in words."""
        batches = [2**i for i in range(self.slots.bit_length())]
        return {name: [t.describe(size) for size in batches] for name, t in self.tables.items()}

    @property
    def contended(self) -> bool:
        """Whether other processes took so much of the processor that the times mean little."""
        return self.contention is not None and self.contention > threads.CONTENDED


@dataclass(frozen=True)
class Served:
    """A model in this process: how to open its engines, and what it is asked.

    ``prompts`` has the token ids of each prompt. ``note`` is what a reader of the
    record must know.
    """

    name: str
    base: str
    engine: str
    slots: int
    prompts: Mapping[str, Sequence[int]]
    open: Callable[[str], ServingEngine]
    note: str = ""


def bench_engine(
    decoder: Decoder,
    prompts: Sequence[str],
    loads: Loads,
    methods: Sequence[str] = (VANILLA, SPECULATIVE),
    slots: int | None = None,
    check: bool = False,
    say: Say = lambda _: None,
) -> Outcome:
    """Measure every level by every method, in turn, with the engine of this process.

    ``check`` also simulates the same users, with the costs and the acceptance that were measured
    before the load, and compares the gains.
    """
    encode, most = decoder.encode, loads.max_new_tokens
    ids = {prompt: encode(prompt, most) for prompt in dict.fromkeys(loads.choose(prompts))}
    capacity = max(map(len, ids.values())) + max(most, MEASURED_TOKENS)
    slots = slots or loads.slots
    base = decoder.base.name
    served = Served(
        name=f"{base} served here",
        base=base,
        engine=decoder.engine.name,
        slots=slots,
        prompts=ids,
        open=lambda method: ServingEngine.of(decoder, method, slots, capacity),
    )
    return bench_served(served, loads, methods, check, say)


def bench_served(
    served: Served, loads: Loads, methods: Sequence[str], check: bool, say: Say
) -> Outcome:
    """Measure a model in this process; see `bench_engine`."""
    chosen = loads.choose(list(served.prompts))
    rows: list[ServingRow] = []
    simulated: list[ServingRow] = []
    answers: dict[str, set[object]] = {}
    taken = [threads.contention()]
    with ExitStack() as stack:
        engines: dict[str, ServingEngine] = {}
        for method in methods:
            say(f"{method}: measuring what steps take")
            engines[method] = stack.enter_context(served.open(method))
        tables = {method: engine.table for method, engine in engines.items() if engine.table}
        if check and not (VANILLA in engines and tables):
            raise LabkitError(
                "A prediction is checked for a speculative method against vanilla: name both."
            )
        for level in loads.levels:
            jobs: list[Job] = []
            for method, engine in engines.items():
                load, row = _measure(engine, method, level, loads, chosen, served)
                rows.append(row)
                say(f"{level}, {method}: {in_words(row)}")
                for answer in load.good:
                    answers.setdefault(answer.prompt, set()).add(answer.output)
                if method == VANILLA:
                    jobs = [Job(len(served.prompts[a.prompt]), a.tokens) for a in load.good]
            if check and not level.rate:
                costs = next(iter(tables.values())).costs
                for method, table in {VANILLA: NodeTable(costs, ()), **tables}.items():
                    made = simulate(
                        table, jobs, level.users, served.slots, PREFILL_ROWS, loads.seed
                    )
                    simulated.append(made.row(level.users, method))
            taken.append(threads.contention())
    target = f"this process, {served.engine}, {served.slots} slots"
    rows += simulated
    return Outcome(
        loads.log(served.name, served.base, target, rows, served.note),
        identical=all(len(outputs) == 1 for outputs in answers.values()),
        tables=tables,
        slots=served.slots,
        checks=tuple(check_prediction(rows)),
        contention=float(np.mean(taken)),
    )


def _measure(
    engine: ServingEngine,
    method: str,
    level: Level,
    loads: Loads,
    chosen: Sequence[str],
    served: Served,
) -> tuple[Load, ServingRow]:
    """Put one level's load on an engine; return it and its row."""
    target = EngineTarget(engine, served.prompts.__getitem__)
    target.ask(chosen[0], 4)  # so that nothing is slow for the first time within the load
    before = engine.totals
    load = loads.put(level, target, chosen)
    engine.drain()
    row, done = level_row(level, load, method), engine.totals - before
    if done["row_steps"]:
        update = {
            "tokens_per_step": done["committed"] / done["row_steps"],
            "nodes_per_step": done["drafted"] / done["row_steps"],
        }
        row = row.model_copy(update=update)
    return load, row


def bench_server(
    server: RemoteServer, prompts: Sequence[str], loads: Loads, say: Say = lambda _: None
) -> Outcome:
    """Measure every level on a server elsewhere; if it is lost midway, return what was measured.

    Raises `LabkitError` where the very first level got no answer.
    """
    chosen = loads.choose(prompts)
    rows: list[ServingRow] = []
    lost = None
    for level in loads.levels:
        load = loads.put(level, server, chosen)
        lost = load.lost
        try:
            rows.append(level_row(level, load, SERVER))
            say(f"{level}: {in_words(rows[-1])}")
        except LabkitError as error:
            if not rows:
                raise
            lost = lost or str(error)
        if lost:
            break
    name = f"{server.model} served at {server.name}"
    log = loads.log(name, server.model, server.name, rows)
    return Outcome(log, lost=lost)


def bench_simulated(
    gpu: str, parameters: float, accept: Sequence[Sequence[float]], loads: Loads
) -> Outcome:
    """Compute every level for a Llama-shaped model on a GPU, vanilla and with heads.

    ``accept[h][r]`` is how often the choice of rank r of head h + 1 is right. Prompts have about
    `SIMULATED_PROMPT` tokens.
    """
    if any(level.rate for level in loads.levels):
        raise LabkitError("A simulation has users who wait for their answers: give no rates.")
    check_acceptance(accept)
    longest = SIMULATED_PROMPT * 3 // 2
    costs = GpuCosts.of(gpu, parameters, longest + loads.max_new_tokens, len(accept))
    tables = {
        VANILLA: NodeTable(costs, ()),
        SPECULATIVE: NodeTable(costs, tuple(chances_by_rank(accept, SIMULATED_NODES))),
    }
    rng = np.random.default_rng(loads.seed)
    room = costs.slots(longest + loads.max_new_tokens)
    rows = []
    for level in loads.levels:
        count = max(loads.requests, 4 * level.users)
        lengths = rng.permutation(np.linspace(SIMULATED_PROMPT // 2, longest, count).astype(int))
        jobs = [Job(int(length), loads.max_new_tokens) for length in lengths]
        for method, table in tables.items():
            made = simulate(table, jobs, level.users, min(level.users, room), seed=loads.seed)
            rows.append(made.row(level.users, method))
    billions = parameters / 1e9
    log = loads.log(
        name=f"{billions:g}B on {costs.gpu.name}",
        base=f"Llama-shaped, {billions:g}B",
        target=f"{costs.gpu.name}, weights in {costs.width_name}, {room} slots",
        rows=rows,
        note=PUBLISHED,
    )
    return Outcome(log)


def check_acceptance(accept: Sequence[Sequence[float]]) -> None:
    """Raise `LabkitError` unless each head has shares between 0 and 1 that add up to at most 1."""
    if not accept or any(min(shares) < 0 or sum(shares) > 1 for shares in accept):
        raise LabkitError(
            f"The heads are right {[list(shares) for shares in accept]} of the time: give each a "
            "share between 0 and 1, as in 0.6,0.5,0.4."
        )


def shipped_acceptance(base: str) -> list[float]:
    """Return how often each shipped head's first choice is right.

    Taken from the evaluation on the benchmark's prompts where one is shipped, else from the
    training's own validation. Raises `LabkitError` where no heads are shipped for ``base``.
    """
    folder = heads_folder(base)
    if (folder / "evaluation.json").is_file():
        heads = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))["heads"]
        return [float(head["top1"]) for head in heads]
    path = folder / "losslog.json"
    if not path.is_file():
        raise LabkitError(
            f"No record of heads for {base!r} is in {data_dir() / 'heads'}: say how often each "
            "head is right, as in --acceptance 0.6,0.5,0.4."
        )
    validation = LossLog.load(path).validation
    if not validation:
        raise LabkitError(f"{path} has no validation: say how often each head is right.")
    return list(validation[-1].accept)


def level_row(level: Level, load: Load, method: str) -> ServingRow:
    """Return a measured level as a row; at a rate, ``users`` are those under way on average."""
    users = max(1, round(load.in_flight)) if level.rate else level.users
    return summarise(load, users, method).model_copy(update={"rate_per_s": level.rate})


def in_words(row: ServingRow) -> str:
    """Return a row in half a line, to show progress."""
    said = (
        f"TTFT {row.ttft_ms.mean:.0f} ms, TPOT {row.tpot_ms.mean:.1f} ms, "
        f"{row.tokens_per_s:.0f} tokens/s"
    )
    return f"{said}, {row.errors} of {row.requests} failed" if row.errors else said
