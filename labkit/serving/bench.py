"""Latency against users: a decoder here, a server elsewhere, or a GPU that is only computed.

What `labkit bench serving` prints; each function returns an `Outcome`, whose ``log`` is the record
that the ServingCurves widget and `labkit.plots.plot_serving` draw.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from labkit import threads
from labkit.errors import LabkitError
from labkit.paths import data_dir
from labkit.provenance import provenance
from labkit.records import LossLog, ServingLog, ServingRow
from labkit.serving.batch import LEAST_CAPACITY, PREFILL_ROWS, Step
from labkit.serving.engine import WAITING_LINE, ServingEngine
from labkit.serving.load import Answer, Load, Target, closed_loop, open_loop, summarise
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

VANILLA, SPECULATIVE, SERVER = "vanilla", "mlp", "server"

MOST_SLOTS = 32
"""Slots where nobody says how many, however many users there are."""

OPEN_SLOTS = 16
"""Slots for requests that arrive at a rate."""

SIMULATED_PROMPT = 128
"""Tokens of a simulated prompt on average; they lie between half and one and a half of it."""

SIMULATED_NODES = 12
"""Nodes that a simulated server drafts at most."""

PUBLISHED = (
    "What was published of such heads (Wertheimer et al. 2024): about twice the speed for Llama 2 "
    "13B, a gain that shrinks as requests are batched and holds until about 64 of them."
)
"""The shape of the figure that a simulation is to be held against."""


@dataclass(frozen=True)
class Level:
    """One load: so many users who wait for their answers, or requests at a rate."""

    users: int = 1
    rate: float | None = None

    def __str__(self) -> str:
        return f"{self.rate:g} requests/s" if self.rate else f"{self.users} users"

    def load(self, target: Target, prompts: Sequence[str], max_new_tokens: int, seed: int) -> Load:
        """Put the load on a target."""
        if self.rate:
            rng = np.random.default_rng(seed)
            return open_loop(target, prompts, self.rate, max_new_tokens, rng)
        return closed_loop(target, prompts, self.users, max_new_tokens)

    def seen(self, load: Load) -> int:
        """The users of a row: those there were, or the requests under way on average."""
        return max(1, round(load.in_flight)) if self.rate else self.users


@dataclass(frozen=True)
class Outcome:
    """What a benchmark found.

    ``identical`` says whether every prompt got the same answer by every method and at every load
    (None where that was not looked at). ``decisions`` are the switch's changes of mind in words.
    ``contention`` is the share of the processor that other processes took; ``lost`` says why the
    target stopped answering, where it did.
    """

    log: ServingLog
    identical: bool | None = None
    decisions: dict[str, list[str]] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    contention: float | None = None
    lost: str | None = None

    @property
    def contended(self) -> bool:
        """Whether other processes took so much of the processor that the times mean little."""
        return self.contention is not None and self.contention > threads.CONTENDED


def bench_engine(
    decoder: Decoder,
    levels: Sequence[Level],
    prompts: Sequence[str],
    requests: int = 24,
    max_new_tokens: int = 64,
    methods: Sequence[str] = (VANILLA, SPECULATIVE),
    slots: int | None = None,
    check: bool = False,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Measure every level by every method, in turn, with the engine of this process.

    ``requests`` are sent at each level (at least one a user), from ``prompts`` in an order by
    ``seed``. ``check`` also simulates the same users with costs that were measured before the load
    and the acceptance found at the first level, and compares the gains.
    """
    chosen = select(prompts, most_requests(levels, requests), seed)
    ids = {prompt: decoder.encode(prompt, max_new_tokens) for prompt in dict.fromkeys(chosen)}
    capacity = max(LEAST_CAPACITY, max(map(len, ids.values())) + max_new_tokens)
    slots = slots or min(
        max(level.users if not level.rate else OPEN_SLOTS for level in levels), MOST_SLOTS
    )
    rows: list[ServingRow] = []
    answers: dict[str, set[object]] = {}
    taken = [threads.contention()]
    simulated: list[ServingRow] = []
    with ExitStack() as stack:
        engines: dict[str, ServingEngine] = {}
        for method in methods:
            say(f"{method}: measuring what steps take")
            engine = ServingEngine.of(decoder, method, slots, capacity, line=WAITING_LINE)
            engines[method] = stack.enter_context(engine)
        predict = _Prediction(engines, slots, seed) if check else None
        for level in levels:
            sent = chosen[: max(requests, 1 if level.rate else level.users)]
            for method, engine in engines.items():
                target = EngineTarget(engine, ids.__getitem__)
                target.ask(sent[0], 4)  # whatever is slow the first time is not this load's fault
                before = engine.totals
                load = level.load(target, sent, max_new_tokens, seed)
                engine.drain()
                row, done = level_row(level, load, method), engine.totals - before
                if done.row_steps:
                    update = {
                        "tokens_per_step": done.committed / done.row_steps,
                        "nodes_per_step": done.drafted / done.row_steps,
                    }
                    row = row.model_copy(update=update)
                rows.append(row)
                for answer in load.good:
                    answers.setdefault(answer.prompt, set()).add(answer.output)
                if predict:
                    predict.see(method, list(engine.steps)[-done.steps :], load.good, ids)
                say(f"{level}, {method}: {in_words(row)}")
            if predict and not level.rate:
                simulated += predict.rows(level.users)
            taken.append(threads.contention())
        decisions = {
            method: [str(decision) for decision in engine.decisions]
            for method, engine in engines.items()
            if engine.decisions
        }
    log = ServingLog(
        name=f"{decoder.base.name} served here",
        base=decoder.base.name,
        target=f"this process, {decoder.engine.name}, {slots} slots",
        max_new_tokens=max_new_tokens,
        rows=tuple(rows + simulated),
        provenance=provenance(
            command_line(f"--base {decoder.base.name}", levels, requests, max_new_tokens), seed
        ),
    )
    return Outcome(
        log,
        identical=all(len(outputs) == 1 for outputs in answers.values()),
        decisions=decisions,
        checks=tuple(check_prediction(log.rows)),
        contention=float(np.mean(taken)),
    )


class _Prediction:
    """The same users, simulated: costs from before the load, acceptance from its first level."""

    def __init__(self, engines: dict[str, ServingEngine], slots: int, seed: int) -> None:
        drafting = {m: e for m, e in engines.items() if e.switch}
        if VANILLA not in engines or not drafting:
            raise LabkitError(
                "A prediction is checked for a speculative method against vanilla: name both."
            )
        self.costs = {m: copy.deepcopy(e.switch.costs) for m, e in drafting.items() if e.switch}
        self.slots, self.seed = slots, seed
        self.chances: dict[str, list[float]] = {}
        self.jobs: list[Job] = []

    def see(
        self,
        method: str,
        steps: Sequence[Step],
        answers: Sequence[Answer],
        ids: dict[str, list[int]],
    ) -> None:
        """Hear how a level went: vanilla's answers are the jobs, the first drafts give chances."""
        if method == VANILLA:
            self.jobs = [Job(len(ids[answer.prompt]), answer.tokens) for answer in answers]
        elif method in self.costs:
            self.chances.setdefault(method, accepted_by_rank(steps))

    def rows(self, users: int) -> list[ServingRow]:
        """The simulated rows of a level, vanilla's first."""
        rows: list[ServingRow] = []
        for method, costs in self.costs.items():
            for name, chances in ((VANILLA, []), (method, self.chances[method])):
                if name == VANILLA and rows:
                    continue
                made = simulate(
                    costs, self.jobs, users, chances, self.slots, PREFILL_ROWS, seed=self.seed
                )
                rows.append(
                    summarise(
                        made.load,
                        users,
                        name,
                        "simulated",
                        made.tokens_per_step,
                        made.nodes_per_step,
                    )
                )
        return rows


def accepted_by_rank(steps: Sequence[Step]) -> list[float]:
    """How often a row had its node of each rank accepted, over the steps that could draft it."""
    chances: list[float] = []
    while True:
        rank = len(chances)
        allowed = [step for step in steps if step.nodes > rank and step.batch]
        if not allowed:
            return chances
        chances.append(
            sum(step.taken[rank] for step in allowed) / sum(step.batch for step in allowed)
        )


def bench_server(
    server: RemoteServer,
    levels: Sequence[Level],
    prompts: Sequence[str],
    requests: int = 24,
    max_new_tokens: int = 64,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Measure every level on a server elsewhere; where it is lost midway, what there is until then.

    Raises `LabkitError` where the very first level got no answer.
    """
    chosen = select(prompts, most_requests(levels, requests), seed)
    rows: list[ServingRow] = []
    lost = None
    for level in levels:
        sent = chosen[: max(requests, 1 if level.rate else level.users)]
        load = level.load(server, sent, max_new_tokens, seed)
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
    log = ServingLog(
        name=f"{server.model} served at {server.name}",
        base=server.model,
        target=server.name,
        max_new_tokens=max_new_tokens,
        rows=tuple(rows),
        provenance=provenance(
            command_line(f"--url {server.name}", levels, requests, max_new_tokens), seed
        ),
    )
    return Outcome(log, lost=lost)


def bench_simulated(
    gpu: str,
    parameters: float,
    levels: Sequence[Level],
    accept: Sequence[Sequence[float]],
    requests: int = 24,
    max_new_tokens: int = 64,
    seed: int = 0,
) -> Outcome:
    """Compute every level for a Llama-shaped model on a GPU, vanilla and with heads.

    ``accept[h][r]`` is how often head h + 1's choice of rank r is right. Prompts are of about
    `SIMULATED_PROMPT` tokens.
    """
    if any(level.rate for level in levels):
        raise LabkitError("A simulation has users who wait for their answers: give no rates.")
    if not accept or any(min(shares) < 0 or sum(shares) > 1 for shares in accept):
        raise LabkitError(
            f"The heads are right {[list(shares) for shares in accept]} of the time: give each a "
            "share between 0 and 1, as in 0.6,0.5,0.4."
        )
    longest = SIMULATED_PROMPT * 3 // 2
    costs = GpuCosts.of(gpu, parameters, longest + max_new_tokens, len(accept))
    chances = chances_by_rank(accept, SIMULATED_NODES)
    rng = np.random.default_rng(seed)
    room = costs.slots(longest + max_new_tokens)
    rows = []
    for level in levels:
        count = max(requests, 4 * level.users)
        lengths = rng.permutation(np.linspace(SIMULATED_PROMPT // 2, longest, count).astype(int))
        jobs = [Job(int(length), max_new_tokens) for length in lengths]
        slots = min(level.users, room)
        for method, drafted in ((VANILLA, []), (SPECULATIVE, chances)):
            made = simulate(costs, jobs, level.users, drafted, slots, seed=seed)
            steps = made.tokens_per_step, made.nodes_per_step
            rows.append(summarise(made.load, level.users, method, "simulated", *steps))
    billions = parameters / 1e9
    gpu_given = f"--simulate --model-params {parameters:g} --gpu {gpu}"
    log = ServingLog(
        name=f"{billions:g}B on {costs.gpu.name}",
        base=f"Llama-shaped, {billions:g}B",
        target=f"{costs.gpu.name}, weights in {costs.width_name}, {room} slots",
        max_new_tokens=max_new_tokens,
        rows=tuple(rows),
        provenance=provenance(
            command_line(gpu_given, levels, requests, max_new_tokens), seed, PUBLISHED
        ),
    )
    return Outcome(log)


def shipped_acceptance(base: str) -> list[list[float]]:
    """How often each head's first choice was right, by the log of the shipped heads' training.

    Raises `LabkitError` where no heads are shipped for ``base``.
    """
    path = heads_folder(base) / "losslog.json"
    if not path.is_file():
        raise LabkitError(
            f"No record of heads for {base!r} is in {data_dir() / 'heads'}: say how often each "
            "head is right, as in --acceptance 0.6,0.5,0.4."
        )
    validation = LossLog.load(path).validation
    if not validation:
        raise LabkitError(f"{path} has no validation: say how often each head is right.")
    return [[share] for share in validation[-1].accept]


def select(prompts: Sequence[str], count: int, seed: int) -> list[str]:
    """``count`` prompts in an order by ``seed``; all of them before any comes again."""
    if not prompts:
        raise LabkitError("There is no prompt: give at least one.")
    rng = np.random.default_rng(seed)
    found: list[str] = []
    while len(found) < count:
        found += [prompts[place] for place in rng.permutation(len(prompts))]
    return found[:count]


def most_requests(levels: Sequence[Level], requests: int) -> int:
    """Requests of the largest level."""
    if not levels or requests < 1:
        raise LabkitError(f"{len(levels)} loads of {requests} requests: give at least 1 of each.")
    return max(requests, *(level.users for level in levels))


def level_row(level: Level, load: Load, method: str) -> ServingRow:
    """A measured level as a row."""
    return summarise(load, level.seen(load), method, rate_per_s=level.rate)


def in_words(row: ServingRow) -> str:
    """A row in half a line, for whoever waits."""
    said = (
        f"TTFT {row.ttft_ms.mean:.0f} ms, TPOT {row.tpot_ms.mean:.1f} ms, "
        f"{row.tokens_per_s:.0f} tokens/s"
    )
    return f"{said}, {row.errors} of {row.requests} failed" if row.errors else said


def command_line(target: str, levels: Sequence[Level], requests: int, max_new_tokens: int) -> str:
    """The command that puts these loads on ``target``, as a record's provenance has it.

    >>> command_line("--base tiny", [Level(1), Level(4)], 24, 64)
    'labkit bench serving --base tiny --users 1,4 --requests 24 --max-new-tokens 64'
    """
    rates = ",".join(f"{level.rate:g}" for level in levels if level.rate)
    users = ",".join(str(level.users) for level in levels)
    load = f"--rates {rates}" if rates else f"--users {users}"
    return (
        f"labkit bench serving {target} {load} --requests {requests}"
        f" --max-new-tokens {max_new_tokens}"
    )
