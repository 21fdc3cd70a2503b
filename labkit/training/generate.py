"""Answers of the base model, many at a time: what phase 2 trains on."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from labkit.kernels.engine import Engine
from labkit.sampling import Sampling
from labkit.speculative.batch import Batch, common_beginning

READ_AT_ONCE = 1024
"""Prompt tokens processed in one step: nobody waits for an answer here, so slots fill at once."""


def continue_all(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    eos_ids: Collection[int],
    slots: int = 24,
    sampling: Sampling | None = None,
    seed: int = 0,
    repeats: int = 0,
    states: list[torch.Tensor] | None = None,
    layers: Sequence[int] = (),
) -> list[list[int]]:
    """Continue every prompt until an end token (kept) or ``max_new_tokens``.

    At most ``slots`` rows run at once. With ``repeats``, a row also ends where its last ``repeats``
    tokens have come twice before: a loop teaches a head nothing new. ``states``, if given, is
    filled with the base model's hidden states, one tensor (A, D) for each prompt: row a is the
    state that gave answer token a, so heads train without passing the answers through the base
    model again. It holds the states after ``layers`` too; see `kernels.engine.Output`.
    """
    batch = Batch(
        engine,
        min(slots, len(prompts)),
        max(map(len, prompts)) + max_new_tokens,
        eos_ids,
        shared=common_beginning(prompts),
        chunk=READ_AT_ONCE,
        repeats=repeats,
        keep=() if states is None else ("states",),
        layers=layers,
    )
    seeds = [seed * 1_000_003 + index for index in range(len(prompts))]
    rows = batch.run(prompts, max_new_tokens, sampling, seeds)
    if states is not None:
        states.extend(torch.cat(row.states) for row in rows)
    return [row.output for row in rows]
