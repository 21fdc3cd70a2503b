"""Many continuations of one prompt: one prefill, one batch, drafted or plain.

Minimum Bayes risk decoding wants dozens of samples of one prompt. They share the prompt's keys and
values, which are computed once and copied, and then every reading of the weights serves them all.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch

from labkit.devices import torch_generator
from labkit.errors import LabkitError
from labkit.kernels.engine import Engine
from labkit.sampling import Sampling
from labkit.speculative.drafters.base import Drafter
from labkit.speculative.generate import check_fits, prefill
from labkit.speculative.tree import ROOT, Draft
from labkit.speculative.verify import speculative_sampling


@dataclass(frozen=True)
class Continuation:
    """One sample: its token ids, and log p under the model's own distribution, unfiltered."""

    tokens: tuple[int, ...]
    logprob: float


@dataclass
class _Row:
    """A continuation that is under way in one slot, with random numbers of its own."""

    index: int
    generator: torch.Generator
    hidden: torch.Tensor
    tokens: list[int] = field(default_factory=list)
    logprob: float = 0.0


def continue_many(
    engine: Engine,
    prompt: Sequence[int],
    count: int,
    max_new_tokens: int,
    sampling: Sampling,
    eos_ids: Collection[int] = (),
    seed: int = 0,
    drafter: Drafter | None = None,
    slots: int = 16,
) -> tuple[list[Continuation], int]:
    """``count`` samples of what follows ``prompt``, and the number of forward passes they took.

    Sample i depends on ``seed`` and i alone, not on the samples beside it (on an exact engine, to
    the last token). ``drafter`` must keep no state of one generation, as the heads do not; the
    samples are then drawn by speculative sampling, which leaves their distribution as it is.
    """
    if count < 1:
        raise LabkitError(f"{count} samples were asked for: give at least 1.")
    if sampling.greedy or sampling.typical:
        raise LabkitError("Samples need a temperature above 0, and lossless verification.")
    check_fits(engine, prompt, max_new_tokens)
    room, layers = (drafter.max_nodes, drafter.layers) if drafter else (0, ())
    slots = min(slots, count)
    cache = engine.new_cache(len(prompt) + max_new_tokens + room + 1, slots + 1)
    out = prefill(engine, prompt, cache, slots, layers)  # the last slot keeps the prompt
    start_logits, start_hidden = out.logits[-1:].clone(), out.hidden[-1].clone()
    done: list[Continuation | None] = [None] * count
    waiting, passes = list(range(count))[::-1], 1
    running: dict[int, _Row] = {}

    def extend(slot: int, row: _Row, tokens: Sequence[int], logs: Sequence[float]) -> None:
        """Append tokens up to an end; free the slot there."""
        for token, log in zip(tokens, logs, strict=True):
            row.tokens.append(token)
            row.logprob += log
            if token in eos_ids or len(row.tokens) == max_new_tokens:
                done[row.index] = Continuation(tuple(row.tokens), min(row.logprob, 0.0))
                running.pop(slot, None)
                return
        running[slot] = row

    while waiting or running:
        for slot in range(slots):
            while waiting and slot not in running:
                index = waiting.pop()
                cache.copy_slot(slots, slot)
                generator = torch_generator(seed * 1_000_003 + index, torch.device("cpu"))
                row = _Row(index, generator, start_hidden)
                probs = sampling.probabilities(start_logits)
                token = speculative_sampling(probs, Draft(), generator).token
                extend(slot, row, [token], [_log(start_logits[0], token)])
        if not running:
            break
        order = list(running.items())
        drafts = [
            _draft(drafter, prompt, row, sampling).no_deeper(max_new_tokens - len(row.tokens) - 1)
            for _, row in order
        ]
        rows = [
            draft.rows(row.tokens[-1], slot)
            for draft, (slot, row) in zip(drafts, order, strict=True)
        ]
        out = engine.forward(rows, cache, layers=layers)
        passes += 1
        first = 0
        for draft, (slot, row) in zip(drafts, order, strict=True):
            logits = out.logits[first : first + len(draft) + 1]
            hidden = out.hidden[first : first + len(draft) + 1]
            first += len(draft) + 1
            probs = sampling.probabilities(logits)
            verdict = speculative_sampling(probs, draft, row.generator)
            cache.commit([0, *(node + 1 for node in verdict.path)], slot)
            tokens = [draft.tokens[node] for node in verdict.path] + [verdict.token]
            places = [0, *(node + 1 for node in verdict.path)]
            logs = [_log(logits[place], token) for place, token in zip(places, tokens, strict=True)]
            row.hidden = hidden[(verdict.path[-1] if verdict.path else ROOT) + 1].clone()
            extend(slot, row, tokens, logs)
    return [sample for sample in done if sample is not None], passes


def _draft(drafter: Drafter | None, prompt: Sequence[int], row: _Row, sampling: Sampling) -> Draft:
    if drafter is None:
        return Draft()
    tokens = [*prompt, *row.tokens]
    return drafter.draft(tokens, row.hidden, row.generator, sampling.temperature)


def _log(logits: torch.Tensor, token: int) -> float:
    """log p(token) under the model's own distribution, from logits (V,)."""
    value = float(logits[token] - logits.logsumexp(-1))
    return value if math.isfinite(value) else -1e30
