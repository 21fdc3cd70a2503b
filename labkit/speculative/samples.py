"""Samples of a language model's answer for a Bayes decision, drawn by speculation."""

from __future__ import annotations

import time
from dataclasses import dataclass

from labkit.errors import LabkitError
from labkit.records import Sample
from labkit.sampling import Sampling
from labkit.speculative.batch import Batch, Drafting, common_beginning, drafting_for
from labkit.speculative.decoder import Decoder
from labkit.speculative.drafters.mlp import MLPDrafter

SLOTS = 16
"""Samples drawn at once."""


@dataclass(frozen=True)
class Drawn:
    """Samples in the order of drawing, the time in seconds and the number of forward passes."""

    samples: tuple[Sample, ...]
    seconds: float
    passes: int


def draw_samples(
    decoder: Decoder,
    prompt: str,
    count: int,
    max_new_tokens: int = 64,
    sampling: Sampling | None = None,
    seed: int = 0,
    method: str | MLPDrafter = "mlp",
) -> Drawn:
    """Draw ``count`` answers to ``prompt``, with drafts or by ``vanilla``; see `Decoder.drafter`.

    The prompt is processed once. Sample i depends on ``seed`` and i alone: on an exact engine every
    method draws the same samples, some in fewer passes. Each sample carries log p under the model's
    own distribution, unfiltered; the samples are ready for `labkit.mbr.decide.decode`. Raises
    `LabkitError` for a count below 1 and for greedy decoding.
    """
    sampling = sampling or Sampling(temperature=1.0)
    if count < 1:
        raise LabkitError(f"{count} samples were asked for: give at least 1.")
    if sampling.greedy:
        raise LabkitError("Samples need a temperature above 0.")
    drafting = (
        drafting_for(lambda: decoder.drafter(method))
        if isinstance(method, str)
        else Drafting(lambda: method)
    )
    prompts = [decoder.encode(prompt, max_new_tokens)] * count
    began = time.perf_counter()
    batch = Batch(
        decoder.engine,
        min(count, SLOTS),
        len(prompts[0]) + max_new_tokens,
        decoder.base.eos_ids,
        drafting,
        shared=common_beginning(prompts),
        keep=("logprobs",),
    )
    seeds = [seed * 1_000_003 + index for index in range(count)]
    rows = batch.run(prompts, max_new_tokens, sampling, seeds)
    seconds = time.perf_counter() - began
    show = decoder.base.decode
    samples = [
        Sample(text=show(row.output), logprob=row.logprob, tokens=len(row.output)) for row in rows
    ]
    return Drawn(tuple(samples), seconds, batch.passes)
