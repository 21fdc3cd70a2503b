"""What this machine charges for a check of n tokens, and which tree of drafts that favours.

Every figure is a median over repeats in which all of them take turns, since a machine's speed moves
within seconds: the passes, the heads, and a plain reading of memory by the same threads, which says
how near a pass is to the fastest that it could be. The result is kept in the cache folder, and the
heads' trees are as large as it favours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from labkit import threads
from labkit.devices import clock, numpy_generator
from labkit.errors import LabkitError
from labkit.kernels.engine import Engine, Rows
from labkit.paths import cache_dir
from labkit.records.base import Part, write_whole
from labkit.speculative.drafters.mlp import Heads
from labkit.speculative.generate import PREFILL_ROWS, generate, prefill
from labkit.speculative.theory import Prediction, best_tree, rank_acceptance, tree_study

if TYPE_CHECKING:
    from labkit.models import LanguageModel

TOKENS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Numbers of tokens whose pass is timed."""

CACHED = 200
"""Tokens that the cache holds meanwhile, where the model's context has room for them."""

FRONTIER = 6
"""Nodes of a tree that a head is run for at once, from the second head on."""

UNCALIBRATED_NODES = 12
"""Drafted nodes where this machine was not calibrated."""

PROMPTS = (
    "Our cellar smells of damp. What should we check first?",
    "Make up a riddle whose answer is a ladder.",
    "What happens to a letter between the letter box and the door?",
    "Sort these by weight, the heaviest first: a feather, a brick, a teapot, a grape.",
)
"""What the base model answers while the heads' acceptance is measured."""

ANSWER_TOKENS = 64
"""How long each of those answers may become."""


class Calibration(Part):
    """What was measured on one machine for one model and one path through it.

    ``verify_cost[n]`` is the time of a pass over n new tokens over the time of one, ``token_ms``.
    ``limit_ratio`` is the time of one token over the time that memory alone needs for
    ``bytes_per_pass`` at ``bandwidth_gb_s``. ``head_ms`` and ``tree`` are there where the model
    has heads; ``tree`` is the one favoured.
    """

    base: str
    path: str
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

    @property
    def contended(self) -> bool:
        """Whether other processes took so much of the processor that the times mean little."""
        return self.contention > threads.CONTENDED


@dataclass(frozen=True)
class Timings:
    """Seconds of each repeat (R, columns) by pass and by head, and bytes per second read (R,)."""

    passes: np.ndarray
    heads: np.ndarray
    speeds: np.ndarray


def calibrate(
    base: LanguageModel, engine: Engine, heads: Heads | None = None, repeats: int = 15
) -> Calibration:
    """Measure ``engine``'s passes and, where there are ``heads``, theirs and their acceptance."""
    if repeats < 1:
        raise LabkitError(f"{repeats} repeats were asked for: give at least 1.")
    cached = min(CACHED, base.context - TOKENS[-1])
    if cached < 1:
        raise LabkitError(
            f"The context of {base.name!r} is {base.context} tokens, too short to time a pass over "
            f"{TOKENS[-1]}: give another model."
        )
    busy = threads.contention()
    timings = time_all(engine, heads, cached, repeats)
    busy = max(busy, threads.contention())
    single = timings.passes[:, :1]
    ratios = np.median(timings.passes / single, axis=0)
    token_s = float(np.median(single))
    limits = single[:, 0] * timings.speeds / engine.bytes_per_pass
    costs = {n: float(ratio) for n, ratio in zip(TOKENS, ratios, strict=True)}
    head_s = np.median(timings.heads, axis=0).tolist()
    measured = Calibration(
        base=base.name,
        path=engine.name,
        device=str(engine.device),
        threads=engine.threads,
        waiting=threads.waiting(),
        contention=busy,
        repeats=repeats,
        cached_tokens=cached,
        token_ms=1e3 * token_s,
        verify_cost=costs,
        bytes_per_pass=engine.bytes_per_pass,
        bandwidth_gb_s=float(np.median(timings.speeds)) / 1e9,
        limit_ratio=float(np.median(limits)),
    )
    if heads is None:
        return measured
    acceptance = rank_acceptance(heads, own_texts(base, engine, heads.config.layers))
    study = tree_study("mlp", base.name, acceptance, costs, head_s, token_s)
    return measured.model_copy(
        update={
            "head_ms": tuple(1e3 * seconds for seconds in head_s),
            "acceptance": acceptance.shares,
            "places": acceptance.places,
            "tree": best_tree(study),
        }
    )


def time_all(engine: Engine, heads: Heads | None, cached: int, repeats: int) -> Timings:
    """Time the probe, the passes over `TOKENS` and the heads, in turn, ``repeats`` times.

    Everything runs once untimed first, which compiles and warms it.
    """
    tokens = numpy_generator(0).integers(engine.vocabulary, size=cached + TOKENS[-1]).tolist()
    cache = engine.new_cache(cached + TOKENS[-1])
    prefill(engine, tokens[:cached], cache)
    probe = engine.bandwidth_probe()

    def one_pass(count: int) -> Callable[[], object]:
        rows = [Rows(tokens[cached : cached + count])]
        return lambda: engine.forward(rows, cache)

    passes = [one_pass(count) for count in TOKENS]
    steps = head_steps(heads, tokens) if heads is not None else []
    jobs = [*passes, *steps]
    for job in jobs:
        job()
    probe()
    seconds = np.empty((repeats, len(jobs)))
    speeds = np.empty(repeats)
    for repeat in range(repeats):
        speeds[repeat] = probe()
        for column, job in enumerate(jobs):
            began = clock(engine.device)
            job()
            seconds[repeat, column] = clock(engine.device) - began
    return Timings(seconds[:, : len(passes)], seconds[:, len(passes) :], speeds)


def head_steps(heads: Heads, tokens: Sequence[int]) -> list[Callable[[], object]]:
    """For each head a call that runs it, for 1 node or, from the second on, for `FRONTIER`."""
    first = state = heads.start(np.ones(heads.config.z_dim, np.float32))
    steps: list[Callable[[], object]] = []
    for head in range(heads.config.n_predict):
        many = FRONTIER if head else 1
        source = state if heads.config.hierarchical else first
        states, given = np.repeat(source[:1], many, axis=0), np.asarray(tokens[:many])
        steps.append(partial(heads.step, head, states, given, FRONTIER))
        state = heads.step(head, states, given, FRONTIER)[0]
    return steps


def own_texts(
    base: LanguageModel, engine: Engine, layers: Sequence[int] = ()
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The base model's greedy answers to `PROMPTS`: states (T, D) and the tokens after them."""
    texts = []
    for prompt in PROMPTS:
        ids = base.encode(prompt)
        room = min(ANSWER_TOKENS, base.context - len(ids))
        answer = generate(engine, ids, room, eos_ids=base.eos_ids).tokens
        texts.append((states_of(engine, ids, answer, layers), np.asarray(answer)))
    return texts


def states_of(
    engine: Engine, prompt: Sequence[int], answer: Sequence[int], layers: Sequence[int] = ()
) -> np.ndarray:
    """Z at the place before each token of the answer: (T, D)."""
    cache = engine.new_cache(len(prompt) + len(answer))
    if len(prompt) > 1:
        prefill(engine, prompt[:-1], cache)
    rest = [prompt[-1], *answer[:-1]]
    states = []
    for low in range(0, len(rest), PREFILL_ROWS):
        piece = rest[low : low + PREFILL_ROWS]
        out = engine.forward([Rows(piece)], cache, "last", layers)
        states.append(out.hidden.float().cpu().numpy().copy())
        cache.commit(range(len(piece)))
    return np.concatenate(states)


def kept_at(base: str, path: str) -> Path:
    """Where the calibration of a model and a path through it is kept."""
    plain = [re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")[-60:] for name in (base, path)]
    return cache_dir() / "calibration" / f"{plain[0]}--{plain[1]}.json"


def keep(calibration: Calibration) -> Path | None:
    """Keep a calibration for later; None, and nothing kept, where the machine was busy."""
    if calibration.contended:
        return None
    return write_whole(kept_at(calibration.base, calibration.path), calibration.model_dump_json())


def kept(base: str, path: str) -> Calibration | None:
    """The calibration that was kept, or None where there is none that can be read."""
    try:
        text = kept_at(base, path).read_text(encoding="utf-8")
        return Calibration.model_validate_json(text)
    except (OSError, ValueError):  # never calibrated here, damaged, or by another version
        return None


def default_nodes(base: str, path: str = "weights once") -> int:
    """The nodes of the tree that this machine's calibration favours, at least one.

    `UNCALIBRATED_NODES` where it was not calibrated with heads.
    """
    found = kept(base, path)
    if found is None or found.tree is None:
        return UNCALIBRATED_NODES
    return max(1, found.tree.nodes)


def summary(calibration: Calibration) -> str:
    """The calibration for a person: a line a fact, a column for each number of tokens."""
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
    if calibration.contended:
        lines.append(
            f"Other processes took {calibration.contention:.0%} of the processor: these times mean "
            "little, and they were not kept."
        )
    return "\n".join(lines)
