"""The cost of checking n tokens on this machine, and the candidate tree that pays best at it.

Every figure is a median over repeats in which all jobs take turns, since a machine's speed moves
within seconds: the passes, the heads, and a plain read of memory by the same threads, which says
how near a pass is to the fastest possible. A calibration belongs to a machine, a model and an
engine (its storage and number format included). It is kept in the cache folder, and heads draft
as many nodes as it favours: none where no tree pays.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from labkit import threads
from labkit.devices import clock
from labkit.errors import LabkitError
from labkit.kernels import engine_for
from labkit.kernels.cuda import CudaEngine
from labkit.kernels.engine import Engine, Rows
from labkit.paths import cache_dir, data_dir
from labkit.records.base import Part, write_whole
from labkit.speculative.batch import Batch
from labkit.speculative.drafters.mlp import Heads, TorchHeads
from labkit.speculative.drafters.remembering import has_context
from labkit.speculative.generate import PREFILL_ROWS, prefill
from labkit.speculative.theory import Prediction, best_tree, rank_acceptance, tree_study

if TYPE_CHECKING:
    from labkit.models import LanguageModel

TOKENS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Sizes of the passes that are timed, in tokens."""

CACHED = 200
"""Tokens in the cache during the timing, if the model's context has room for them."""

FRONTIER = 6
"""Nodes of a tree for which a head runs at once, from the second head on."""

UNCALIBRATED_NODES = 7
"""Drafted nodes before the first calibration, with float32 on a CPU: a pass over 8 tokens costs
little more than one over 1, and on some processors one over 12 half as much again."""

GPU_NODES = 12
"""The same on a GPU, where more tokens are free."""

QUICK = 3
"""Repeats of the calibration that a decoder makes for itself."""

WORTH = 1.05
"""A tree is drafted if it is predicted to be this many times as fast as drafting nothing."""

PROMPTS = (
    "Our cellar smells of damp. What should we check first?",
    "Make up a riddle whose answer is a ladder.",
    "What happens to a letter between the letter box and the door?",
    "Sort these by weight, the heaviest first: a feather, a brick, a teapot, a grape.",
)
"""Prompts whose answers measure the heads' acceptance."""

ANSWER_TOKENS = 64
"""The most tokens of each answer."""


class Calibration(Part):
    """The measurements of one machine for one model and one engine.

    ``verify_cost[n]`` is the time of a pass over n new tokens over the time of one, ``token_ms``.
    ``limit_ratio`` is the time of one token over the time that memory alone needs for
    ``bytes_per_pass`` at ``bandwidth_gb_s``. ``head_ms`` and ``tree`` are set if the model has
    heads; ``tree`` is the one favoured. ``launches`` is how many kernels a pass over one token runs
    on CUDA, and elsewhere how many of torch's operators (none where a pass is compiled by numba).
    ``parts`` are the milliseconds of each part of a pass over
    one token and over `CHECKED`, if they were timed.
    """

    version: Literal[2]
    """Rises when kernels or shipped heads change, so that what was kept is measured anew."""
    base: str
    path: str
    machine: str = ""
    device: str
    threads: int
    waiting: str
    contention: float
    repeats: int
    cached_tokens: int
    token_ms: float
    verify_cost: dict[int, float]
    bytes_per_pass: int
    bandwidth_gb_s: float
    limit_ratio: float
    head_ms: tuple[float, ...] = ()
    acceptance: tuple[tuple[float, ...], ...] = ()
    places: int = 0
    tree: Prediction | None = None
    launches: int | None = None
    parts: dict[str, tuple[float, float]] = Field(default_factory=dict)

    @property
    def nodes(self) -> int | None:
        """The nodes of the favoured tree, 0 if it gains too little; None if there are no heads."""
        if self.tree is None:
            return None
        return self.tree.nodes if self.tree.speedup >= WORTH else 0

    @property
    def contended(self) -> bool:
        """True if other processes took so much of the processor that the times mean little."""
        return self.contention > threads.CONTENDED


def calibrate(
    base: LanguageModel, engine: Engine, heads: Heads | None = None, repeats: int = 15
) -> Calibration:
    """Measure ``engine``'s passes and, where there are ``heads``, theirs and their acceptance."""
    if repeats < 1:
        raise LabkitError(f"The number of repeats is {repeats}: give at least 1.")
    cached = min(CACHED, base.context - TOKENS[-1])
    if cached < 1:
        raise LabkitError(
            f"The context of {base.name!r} is {base.context} tokens, too short to time a pass over "
            f"{TOKENS[-1]}: give another model."
        )
    busy = threads.contention()
    passes, of_each_head, speeds = time_all(engine, heads, cached, repeats)
    busy = max(busy, threads.contention())
    single = passes[:, :1]
    ratios = np.median(passes / single, axis=0)
    token_s = float(np.median(single))
    limits = single[:, 0] * speeds / engine.bytes_per_pass
    launches = count_launches(passes_over((1,), engine, cached)[0], engine.device)
    costs = {n: float(ratio) for n, ratio in zip(TOKENS, ratios, strict=True)}
    of_heads: dict[str, Any] = {}
    if heads is not None:
        head_s = np.median(of_each_head, axis=0).tolist()
        acceptance = rank_acceptance(heads, own_texts(base, engine, heads.config.layers))
        of_heads = {
            "head_ms": tuple(1e3 * seconds for seconds in head_s),
            "acceptance": acceptance.shares,
            "places": acceptance.places,
            "tree": best_tree(tree_study("mlp", base.name, acceptance, costs, head_s, token_s)),
        }
    return Calibration(
        version=2,
        base=base.name,
        path=engine.name,
        machine=machine(),
        device=str(engine.device),
        threads=engine.threads,
        waiting=threads.waiting(),
        contention=busy,
        repeats=repeats,
        cached_tokens=cached,
        token_ms=1e3 * token_s,
        verify_cost=costs,
        bytes_per_pass=engine.bytes_per_pass,
        bandwidth_gb_s=float(np.median(speeds)) / 1e9,
        limit_ratio=float(np.median(limits)),
        launches=launches,
        **of_heads,
    )


def time_all(
    engine: Engine, heads: Heads | None, cached: int, repeats: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Time the passes over `TOKENS`, the heads and the probe, in turn, ``repeats`` times.

    Returns seconds (R, passes) and (R, heads), and the bytes per second (R,) that the probe read.
    Everything runs once untimed first, which compiles and warms it.
    """
    passes = passes_over(TOKENS, engine, cached)
    probe = engine.bandwidth_probe()
    jobs = [*passes, *(head_steps(heads, engine) if heads is not None else [])]
    for job in (*jobs, probe):
        job()
    speeds, seconds = np.empty(repeats), np.empty((repeats, len(jobs)))
    for repeat in range(repeats):
        speeds[repeat] = probe()
        seconds[repeat] = [timed(job, engine) for job in jobs]
    return seconds[:, : len(passes)], seconds[:, len(passes) :], speeds


def timed(job: Callable[[], object], engine: Engine) -> float:
    """Return the seconds that ``job`` takes where ``engine`` computes."""
    began = clock(engine.device)
    job()
    return clock(engine.device) - began


def passes_over(counts: Sequence[int], engine: Engine, cached: int) -> list[Callable[[], object]]:
    """Return passes over so many tokens after ``cached`` others, on CUDA as a step makes them."""
    tokens = (
        np.random.default_rng(0).integers(engine.vocabulary, size=cached + max(counts)).tolist()
    )
    cache = engine.new_cache(len(tokens))
    prefill(engine, tokens[:cached], cache)
    rows = [[Rows(tokens[cached : cached + count])] for count in counts]
    if isinstance(engine, CudaEngine):
        return [engine.lean_pass(each, cache) for each in rows]
    return [partial(engine.forward, each, cache) for each in rows]


def count_launches(run: Callable[[], object], device: torch.device) -> int:
    """Return how many kernels ``run`` runs on CUDA, or elsewhere how many of torch's operators.

    >>> count_launches(lambda: torch.zeros(2)[:1] + 1, torch.device("cpu"))
    2
    """
    run()  # compiled and recorded before
    if device.type == "cuda":
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            run()
            torch.cuda.synchronize(device)
        names = [event.name for event in seen.events() if event.device_type == DeviceType.CUDA]
        return sum(not name.startswith("Mem") for name in names)  # copies are no kernels
    with Operators() as operators:
        run()
    return operators.count


class Operators(TorchDispatchMode):
    """A count of torch's operators, without those that only look at a tensor in another way."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one operator and run it."""
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def head_steps(heads: Any, engine: Engine) -> list[Callable[[], object]]:
    """Return a call that runs each head: for 1 node, or from the second on for `FRONTIER`.

    A context layer reads two places before the first head. On CUDA a head is recorded, as it is in
    a step there.
    """
    first = state = heads.start(np.ones(heads.config.z_dim, np.float32))
    steps: list[Callable[[], object]] = []
    for head in range(heads.config.n_predict):
        many = FRONTIER if head else 1
        source = state if heads.config.hierarchical else first
        states, given = np.repeat(source[:1], many, axis=0), np.arange(many)
        state = heads.step(head, states, given, FRONTIER)[0]
        if isinstance(engine, CudaEngine) and isinstance(heads, TorchHeads):
            put = partial(torch.as_tensor, device=engine.device)
            run = partial(heads.run, head, put(states), put(given), FRONTIER)
            steps.append(engine.recorded(run))
        else:
            steps.append(partial(heads.step, head, states, given, FRONTIER))
    if has_context(heads):
        memory, first_head = heads.new_context(), steps[0]
        width = heads.config.z_dim - heads.config.emb_dim
        steps[0] = lambda: (memory.extend(torch.zeros(2, width), [0, 0]), first_head())
    return steps


def own_texts(
    base: LanguageModel, engine: Engine, layers: Sequence[int] = ()
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the greedy answers to `PROMPTS`: states (T, D) and the tokens after them."""
    prompts = [base.encode(prompt) for prompt in PROMPTS]
    room = min(max(map(len, prompts)) + ANSWER_TOKENS, base.context)
    batch = Batch(engine, len(prompts), room, base.eos_ids, keep=("states",), layers=layers)
    rows = [batch.join(ids, min(ANSWER_TOKENS, base.context - len(ids))) for ids in prompts]
    while batch.running:
        batch.step()
    return [(torch.cat(row.states).float().cpu().numpy(), np.asarray(row.output)) for row in rows]


COMPARED = 40
"""Held-out sentences that two storages are compared on."""

CHECKED = 8
"""Tokens of the larger of the passes whose parts are timed."""


def time_parts(engine: Engine, repeats: int = 15) -> dict[str, tuple[float, float]]:
    """Return the milliseconds of each part of a pass over 1 and over `CHECKED` tokens.

    Raises `LabkitError` for an engine that cannot run its parts apart.
    """
    split = getattr(engine, "parts", None)
    if split is None:
        raise LabkitError(f"The engine {engine.name!r} cannot time the parts of a pass.")
    cached = min(CACHED, engine.context - CHECKED)
    cache = engine.new_cache(cached + CHECKED)
    prefill(engine, [0] * cached, cache)
    passes = [split([Rows([0] * count)], cache) for count in (1, CHECKED)]
    seconds = [
        [[timed(run, engine) for run in parts.values()] for parts in passes]
        for _ in range(repeats + 1)  # the first, untimed, compiles
    ]
    one, many = 1e3 * np.median(seconds[1:], axis=0)
    return dict(zip(passes[0], zip(one.tolist(), many.tolist(), strict=True), strict=True))


class Difference(Part):
    """The distance between two storages of one model, over ``tokens`` tokens of a text.

    ``logit_error`` is the root mean square difference of the logits over their own deviation,
    ``equal_tokens`` the share of places whose most probable token is the same.
    """

    tokens: int
    logit_error: float
    equal_tokens: float
    perplexity: float
    reference_perplexity: float


def difference(engine: Engine, reference: Engine, tokens: Sequence[int]) -> Difference:
    """Compare ``engine`` with ``reference`` on a text, each reading it a `PREFILL_ROWS` at a time.

    Raises `LabkitError` for a text of fewer than two tokens or beyond the context.
    """
    if len(tokens) < 2:
        raise LabkitError("The text is too short to compare two storages: give at least 2 tokens.")
    squares, spread, equal, losses = 0.0, 0.0, 0, np.zeros(2)
    both = [(each, each.new_cache(len(tokens))) for each in (engine, reference)]
    for low in range(0, len(tokens) - 1, PREFILL_ROWS):
        piece = tokens[low : min(low + PREFILL_ROWS, len(tokens) - 1)]
        found = []
        for each, cache in both:
            found.append(each.forward([Rows(piece)], cache).logits.double().cpu().clone())
            cache.commit(range(len(piece)))
        ours, theirs = found
        squares += float((ours - theirs).square().mean(-1).sum())
        spread += float(theirs.var(-1).sum())
        equal += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
        following = torch.tensor(tokens[low + 1 : low + 1 + len(piece)])[:, None]
        losses -= [float(x.log_softmax(-1).gather(1, following).sum()) for x in found]
    many = len(tokens) - 1
    perplexity, reference_perplexity = np.exp(losses / many).tolist()
    return Difference(
        tokens=many,
        logit_error=(squares / spread) ** 0.5,
        equal_tokens=equal / many,
        perplexity=perplexity,
        reference_perplexity=reference_perplexity,
    )


def unlike_float32(base: LanguageModel, engine: Engine) -> Difference:
    """Compare ``engine`` with the same weights in float32, on held-out English sentences."""
    lines = (data_dir() / "sentences" / "deu-eng.tsv").read_text(encoding="utf-8").splitlines()
    text = " ".join(line.split("\t")[1] for line in lines[:COMPARED])
    tokens = base.encode(text, chat=False)
    return difference(engine, engine_for(base), tokens)


def machine() -> str:
    """Return the class of this machine: its kind of processor and the cores of this process."""
    return f"{platform.machine()}, {threads.cores()} cores"


def kept_at(base: str, path: str) -> Path:
    """Return where the calibration of a model and a path through it is kept on this machine."""
    names = (base, path, machine())
    plain = [re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")[-60:] for name in names]
    return cache_dir() / "calibration" / f"{'--'.join(plain)}.json"


def keep(calibration: Calibration) -> Path | None:
    """Keep a calibration for later; None, and nothing kept, if the machine was busy."""
    if calibration.contended:
        return None
    return write_whole(kept_at(calibration.base, calibration.path), calibration.model_dump_json())


def kept(base: str, path: str) -> Calibration | None:
    """Return the calibration that was kept, or None if there is none that can be read."""
    try:
        text = kept_at(base, path).read_text(encoding="utf-8")
        return Calibration.model_validate_json(text)
    except (OSError, ValueError):  # never calibrated here, damaged, or by another version
        return None


def default_nodes(base: LanguageModel, engine: Engine, heads: Callable[[], Heads]) -> int:
    """Return the nodes of the tree that pays best for this machine and engine; 0 if none pays.

    Without a calibration: `UNCALIBRATED_NODES` for float32, whose checks cost little, or on a GPU
    `GPU_NODES`. With smaller weights on a CPU a check costs more, and a fixed tree could lose: then
    a quick calibration is made now.
    """
    fixed = UNCALIBRATED_NODES if engine.device.type == "cpu" else GPU_NODES
    found = kept(base.name, engine.name)
    if (found is None or found.nodes is None) and "weights once, " in engine.name:
        try:
            found = calibrate(base, engine, heads(), QUICK)
        except LabkitError:  # no heads: the method that needs them says so
            return fixed
        keep(found)
    return fixed if found is None or found.nodes is None else found.nodes


def summary(calibration: Calibration, unlike: Difference | None = None) -> str:
    """Return the calibration as text: a line a fact, a column for each number of tokens."""
    header = "".join(f"{n:>7}" for n in calibration.verify_cost)
    costs = "".join(f"{ratio:>7.2f}" for ratio in calibration.verify_cost.values())
    lines = [
        f"{calibration.base}: {calibration.path} on {calibration.device}, "
        f"{calibration.threads} threads",
        f"one token: {calibration.token_ms:.1f} ms, {calibration.limit_ratio:.2f} times what it "
        f"takes to read {calibration.bytes_per_pass / 1e6:.0f} MB at "
        f"{calibration.bandwidth_gb_s:.1f} GB/s",
        f"tokens {header}",
        f"time   {costs}",
    ]
    if calibration.tree is not None:
        tree = calibration.tree
        lines.append(
            f"tree favoured: {tree.nodes} nodes, {tree.depth} deep; predicted "
            f"{tree.tokens_per_step:.2f} tokens a step, {tree.speedup:.2f} times vanilla's speed"
        )
        if not calibration.nodes:
            lines.append(f"too little to pay (below {WORTH}), so nothing is drafted by default")
    for part, (one, many) in calibration.parts.items():
        lines.append(f"{part:<20}{one:7.2f} ms for 1 token {many:7.2f} ms for {CHECKED}")
    if unlike is not None:
        lines.append(
            f"against float32, over {unlike.tokens} tokens: logit error {unlike.logit_error:.4f}, "
            f"same token {unlike.equal_tokens:.1%}, perplexity {unlike.perplexity:.2f} for "
            f"{unlike.reference_perplexity:.2f}"
        )
    if calibration.contended:
        lines.append(
            f"Other processes took {calibration.contention:.0%} of the processor: these times mean "
            "little, and they were not kept."
        )
    return "\n".join(lines)
