"""The controlled study: every method with every storage, on kinds of text, in one run.

What speculation is worth depends on what it is compared with. So every method meets vanilla with
the same storage, and also the fastest plain decoder of them all, whatever its program; on the same
prompts, in turns, with intervals over the prompts.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from labkit import threads
from labkit.bootstrap import ratio
from labkit.paths import data_dir
from labkit.questions import Question, read_questions, sample
from labkit.records import StorageRow, StorageStudy
from labkit.speculative.bench import (
    LLAMA_CPP,
    PEERS,
    TRANSFORMERS,
    VANILLA,
    Run,
    Runner,
    Turn,
    ask,
    by_category,
    check_prompts,
    compare,
    runners,
    score,
    speed,
    speeds,
)
from labkit.speculative.decoder import UNBOUNDED, Decoder

Arm = tuple[str, str]
"""A storage and a method."""

PLAIN = (VANILLA, TRANSFORMERS, LLAMA_CPP[0])
"""Methods that draft nothing."""

HOMES = {peer: "q4_1" if peer in LLAMA_CPP else "float32" for peer in PEERS}
"""The storage whose weights another library decodes with."""


def own_prompts(each: int, seed: int) -> list[Question]:
    """Draw the lab's own prompts: up to ``each`` natural ones, and as many repetitive ones.

    The answer to a repetitive prompt repeats much of the prompt: a copy, a correction, a quotation.
    """
    rng = np.random.default_rng(seed)
    natural = sample(read_questions(), each, rng)
    repetitive = read_questions(data_dir() / "prompts" / "repetitive.jsonl")
    return [
        *(replace(question, category="natural") for question in natural),
        *sample(repetitive, each, rng),
    ]


def storage_study(
    decoders: Sequence[Decoder],
    questions: Sequence[Question],
    methods: Sequence[str],
    max_new_tokens: int,
    repeats: int,
    seed: int = 0,
    watch: Callable[[str], None] = lambda _: None,
) -> StorageStudy:
    """Decode the prompts' first turns with every storage by every method, and compare.

    At each prompt all of them take turns, in an order drawn anew. A prompt's category is its kind
    of text. Other libraries run with the storage of `HOMES`. What cannot run here is noted.
    """
    first, storages = decoders[0], [decoder.storage for decoder in decoders]
    questions = [replace(question, turns=question.turns[:1]) for question in questions]
    check_prompts(first.base, questions, max_new_tokens)
    absent = {
        method: f"It runs with the storage {HOMES[method]}, which is not in this study."
        for method in methods
        if HOMES.get(method, first.storage) not in storages
    }
    ready: dict[str, dict[str, Runner]] = {}
    for decoder in decoders:
        wanted = [name for name in methods if HOMES.get(name, decoder.storage) == decoder.storage]
        ready[decoder.storage], lacking = runners(decoder, wanted, max_new_tokens)
        here = f"{data_dir().parent}{os.sep}"  # which is nobody else's folder
        absent |= {method: why.replace(here, "") for method, why in lacking.items()}
        watch(f"{decoder.storage} is ready: trees of {decoder.max_nodes} nodes")
    for method, why in absent.items():
        watch(f"Without {method}: {why}")
    arms = {(storage, name): run for storage, each in ready.items() for name, run in each.items()}
    probe, rng = first.engine.bandwidth_probe(), np.random.default_rng(seed)
    contention, bandwidth = [threads.contention()], [probe()]

    def shuffled(every: list[Arm]) -> list[Arm]:
        return [every[place] for place in rng.permutation(len(every))]

    turns: list[Turn] = []
    for turn in ask(first.base, questions, arms, max_new_tokens, repeats, watch, shuffled):
        turns.append(turn)
        contention.append(threads.contention())
        bandwidth.append(probe())
        watch(f"{turn.question.id} ({turn.question.category})")
    fastest = max((arm for arm in arms if arm[1] in PLAIN), key=lambda arm: speed(turns, arm))
    return StorageStudy(
        base=first.base.name,
        threads=first.engine.threads,
        prompts=len(questions),
        max_new_tokens=max_new_tokens,
        repeats=repeats,
        contention=statistics.fmean(contention),
        bandwidth_gb_s=statistics.median(bandwidth) / 1e9,
        fastest=fastest,
        absent=absent,
        rows=tuple(
            row(decoder, group, method, fastest, text)
            for text, group in by_category(turns).items()
            for decoder in decoders
            for method in ready[decoder.storage]
        ),
    )


def row(
    decoder: Decoder, asked: Sequence[Turn], method: str, fastest: Arm, text: str
) -> StorageRow:
    """Return a method's figures with the decoder's storage on the prompts of one kind of text.

    ``fastest`` is the fastest plain decoder's arm, which is compared on the same prompts.
    """
    turns = [replace(turn, runs=of_storage(turn, decoder.storage)) for turn in asked]
    found = score(turns, method, partial(compare, decoder.engine))
    own = speeds(turns, method)
    speedup, speedup_bounds = ratio(own, speeds(turns, VANILLA))
    of_fastest, of_fastest_bounds = ratio(own, speeds(asked, fastest))
    return StorageRow(
        text=text,
        storage=decoder.storage,
        method=method,
        nodes=0 if method in (*PEERS, *UNBOUNDED) else decoder.max_nodes,
        tokens_per_s=found.tokens_per_s,
        tokens_per_step=found.tokens_per_step,
        speedup=speedup,
        speedup_bounds=speedup_bounds,
        of_fastest=of_fastest,
        of_fastest_bounds=of_fastest_bounds,
        identical=found.identical,
        ties=found.ties,
        speeds=tuple(own),
    )


def of_storage(turn: Turn, storage: str) -> dict[str, list[Run]]:
    """Return a turn's runs with one storage, by method."""
    return {name: runs for (kind, name), runs in turn.runs.items() if kind == storage}
