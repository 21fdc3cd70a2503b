"""Latency against users: a model here, a server elsewhere, or a GPU that is only computed.

`labkit bench serving` prints what these functions return: an `Outcome`, whose ``log`` is the record
that the ServingCurves widget and `labkit.plots.plot_serving` draw.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from labkit import threads
from labkit.errors import LabkitError
from labkit.paths import data_dir
from labkit.provenance import FROM_PYTHON, provenance
from labkit.questions import read_questions
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

OPEN_SLOTS, MOST_SLOTS = 16, 32
"""Slots by default: for requests that arrive at a rate; the most, however many users there are."""

SHORTEST, LONGEST = 64, 192
"""Tokens of made-up prompts, which are spread evenly between these."""

SIMULATED_NODES = 12
"""The most nodes that a simulated server drafts."""

PUBLISHED = (
    "What was published of such heads (Wertheimer et al. 2024): about twice the speed for Llama 2 "
    "13B, a gain that shrinks as requests are batched and holds until about 64 of them."
)
"""The shape of the figure that a simulation is compared with."""

PUBLISHED_GAINS = {1: 2.0, 64: 1.0}
"""The same as points, by users: the gain in time per token. The text gives both with "about"."""

PAUSE = 1.0
"""Seconds between two attempts to reach a server that is starting."""

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
    def most_requests(self) -> int:
        """The requests of the largest level."""
        return max(self.requests, *(level.users for level in self.levels))

    def choose(self, prompts: Sequence[str]) -> list[str]:
        """Return the prompts of the largest level; all of them before any is used again.

        >>> Loads([Level(1)], requests=5).choose(["a", "b"])
        ['a', 'b', 'a', 'b', 'a']
        """
        if not prompts:
            raise LabkitError("There is no prompt: give at least one.")
        rng = np.random.default_rng(self.seed)
        found: list[str] = []
        while len(found) < self.most_requests:
            found += [prompts[place] for place in rng.permutation(len(prompts))]
        return found[: self.most_requests]

    def put(self, level: Level, target: Target, chosen: Sequence[str]) -> Load:
        """Put a level's load on a target."""
        sent = chosen[: max(self.requests, 1 if level.rate else level.users)]
        if level.rate:
            rng = np.random.default_rng(self.seed)
            return open_loop(target, sent, level.rate, self.max_new_tokens, rng)
        return closed_loop(target, sent, level.users, self.max_new_tokens)

    def log(
        self, name: str, base: str, target: str, rows: Sequence[ServingRow], *, note: str = ""
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
    (None: not compared). ``decisions`` has by method, in words, the best number of draft nodes for
    each batch size. ``contention`` is the share of the processor that other processes took;
    ``lost`` says why the target stopped answering, if it did.
    """

    log: ServingLog
    identical: bool | None = None
    decisions: Mapping[str, list[str]] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    contention: float | None = None
    lost: str | None = None

    @property
    def contended(self) -> bool:
        """Whether other processes took so much of the processor that the times mean little."""
        return self.contention is not None and self.contention > threads.CONTENDED


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
    wanted = max(OPEN_SLOTS if level.rate else level.users for level in loads.levels)
    slots = slots or min(wanted, MOST_SLOTS)
    base, target = decoder.base.name, f"this process, {decoder.engine.name}, {slots} slots"
    engines = {name: partial(ServingEngine.of, decoder, name, slots, capacity) for name in methods}
    record = partial(loads.log, f"{base} served here", base, target)
    return bench_served(engines, ids, loads, record, check, say)


def bench_served(
    methods: Mapping[str, Callable[[], ServingEngine]],
    prompts: Mapping[str, Sequence[int]],
    loads: Loads,
    record: Callable[[Sequence[ServingRow]], ServingLog],
    check: bool,
    say: Say,
) -> Outcome:
    """Measure a model in this process; see `bench_engine`.

    ``methods`` open their engines, ``prompts`` have their token ids, ``record`` makes the record of
    the rows.
    """
    chosen = loads.choose(list(prompts))
    rows: list[ServingRow] = []
    simulated: list[ServingRow] = []
    answers: dict[str, set[object]] = {}
    taken = [threads.contention()]
    with ExitStack() as stack:
        engines: dict[str, ServingEngine] = {}
        for method, opened in methods.items():
            say(f"{method}: measuring what steps take")
            engines[method] = stack.enter_context(opened())
        tables = {method: engine.table for method, engine in engines.items() if engine.table}
        decisions = {
            method: [table.describe(2**i) for i in range(engines[method].batch.slots.bit_length())]
            for method, table in tables.items()
        }
        if check and not (VANILLA in engines and tables):
            raise LabkitError(
                "A prediction is checked for a speculative method against vanilla: name both."
            )
        for level in loads.levels:
            jobs: list[Job] = []
            for method, engine in engines.items():
                target = EngineTarget(engine, prompts.__getitem__)
                load = _measure(target, level, loads, chosen)
                rows.append(summarise(load, level.users, method, rate=level.rate))
                say(f"{level}, {method}: {in_words(rows[-1])}")
                for answer in load.good:
                    answers.setdefault(answer.prompt, set()).add(answer.output)
                if method == VANILLA:
                    jobs = [Job(len(prompts[a.prompt]), a.tokens) for a in load.good]
            if check and not level.rate:
                costs = next(iter(tables.values())).costs
                slots = engines[VANILLA].batch.slots
                for method, table in {VANILLA: NodeTable(costs, ()), **tables}.items():
                    made = simulate(table, jobs, level.users, slots, PREFILL_ROWS, loads.seed)
                    simulated.append(summarise(made, level.users, method, "simulated"))
            taken.append(threads.contention())
    rows += simulated
    return Outcome(
        record(rows),
        identical=all(len(outputs) == 1 for outputs in answers.values()),
        decisions=decisions,
        checks=tuple(check_prediction(rows)),
        contention=float(np.mean(taken)),
    )


def _measure(target: EngineTarget, level: Level, loads: Loads, chosen: Sequence[str]) -> Load:
    """Put one level's load on an engine, and count its steps."""
    target.ask(chosen[0], 4)  # so that nothing is slow for the first time within the load
    before = target.engine.totals
    load = loads.put(level, target, chosen)
    target.engine.drain()
    done = target.engine.totals - before
    steps = done["row_steps"]
    if not steps:
        return load
    return replace(
        load, tokens_per_step=done["committed"] / steps, nodes_per_step=done["drafted"] / steps
    )


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
            rows.append(summarise(load, level.users, SERVER, rate=level.rate))
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


def bench_command(
    command: Sequence[str],
    url: str = "http://127.0.0.1:8000",
    users: Sequence[int] = (1, 8),
    requests: int = 24,
    start_s: float = 600.0,
) -> ServingLog:
    """Start the server, measure it under each number of users, stop it, and return the log.

    Raises `LabkitError` if the command cannot be run, ends, or does not answer within ``start_s``.
    """
    try:
        process = subprocess.Popen([*command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError as error:
        raise LabkitError(f"Cannot start {command[0]!r}: {error.strerror or error}.") from None
    try:
        server = _reached(process, url, time.monotonic() + start_s)
        prompts = [question.turns[0] for question in read_questions()]
        return bench_server(server, prompts, Loads([Level(n) for n in users], requests)).log
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _reached(process: subprocess.Popen, url: str, until: float) -> RemoteServer:
    """Return the server once it answers."""
    while True:
        try:
            return RemoteServer(url)
        except LabkitError as error:
            if process.poll() is not None:
                raise LabkitError(
                    f"The server's command ended with status {process.returncode}: run it in a "
                    "terminal to see why."
                ) from None
            if time.monotonic() > until:
                raise LabkitError(f"The server did not start in time. {error}") from None
        time.sleep(PAUSE)


def bench_simulated(
    gpu: str, parameters: float, accept: Sequence[Sequence[float]], loads: Loads
) -> Outcome:
    """Compute every level for a Llama-shaped model on a GPU, vanilla and with heads.

    ``accept[h][r]`` is how often the choice of rank r of head h + 1 is right.
    """
    if any(level.rate for level in loads.levels):
        raise LabkitError("A simulation has users who wait for their answers: give no rates.")
    check_acceptance(accept)
    capacity = LONGEST + loads.max_new_tokens
    costs = GpuCosts.of(gpu, parameters, capacity, len(accept))
    tables = {
        VANILLA: NodeTable(costs, ()),
        SPECULATIVE: NodeTable(costs, tuple(chances_by_rank(accept, SIMULATED_NODES))),
    }
    rng = np.random.default_rng(loads.seed)
    room = costs.slots(capacity)
    rows = []
    for level in loads.levels:
        lengths = made_up_lengths(max(loads.requests, 4 * level.users), rng)
        jobs = [Job(length, loads.max_new_tokens) for length in lengths]
        for method, table in tables.items():
            made = simulate(table, jobs, level.users, min(level.users, room), seed=loads.seed)
            rows.append(summarise(made, level.users, method, "simulated"))
    billions = parameters / 1e9
    log = loads.log(
        name=f"{billions:g}B on {costs.gpu.name}",
        base=f"Llama-shaped, {billions:g}B",
        target=f"{costs.gpu.name}, weights in {costs.weight}, {room} slots",
        rows=rows,
        note=PUBLISHED,
    )
    return Outcome(log)


def made_up_lengths(count: int, rng: np.random.Generator) -> list[int]:
    """Return the tokens of so many made-up prompts, in a random order."""
    lengths = np.linspace(SHORTEST, LONGEST, count).astype(int)
    return rng.permutation(lengths).tolist()


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


def in_words(row: ServingRow) -> str:
    """Return a row in half a line, to show progress."""
    said = (
        f"TTFT {row.ttft_ms.mean:.0f} ms, TPOT {row.tpot_ms.mean:.1f} ms, "
        f"{row.tokens_per_s:.0f} tokens/s"
    )
    return f"{said}, {row.errors} of {row.requests} failed" if row.errors else said
