"""Both halves of the lab together: samples for a Bayes decision, drawn by speculation."""

from __future__ import annotations

import time
from dataclasses import dataclass

from labkit.records import Sample
from labkit.sampling import Sampling
from labkit.speculative.decoder import Decoder
from labkit.speculative.drafters.base import Drafter
from labkit.speculative.many import continue_many


@dataclass(frozen=True)
class Drawn:
    """Samples as they were drawn, the time in seconds and the forward passes that it took."""

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
    method: str | Drafter = "mlp",
) -> Drawn:
    """``count`` samples of what the model answers to ``prompt``, by ``mlp`` or ``vanilla``.

    ``method`` may be a drafter of one's own that keeps no state of a generation.
    Speculative sampling is lossless: both methods draw from the same distribution, one of them in
    fewer passes. Each sample carries log p under the model's own distribution; ready for
    `labkit.mbr.decide.decode`.
    """
    ids = decoder.encode(prompt, max_new_tokens)
    began = time.perf_counter()
    found, passes = continue_many(
        decoder.engine,
        ids,
        count,
        max_new_tokens,
        sampling or Sampling(temperature=1.0),
        decoder.base.eos_ids,
        seed,
        decoder.drafter(method) if isinstance(method, str) else method,
    )
    seconds = time.perf_counter() - began
    samples = tuple(
        Sample(text=decoder.base.decode(s.tokens), logprob=s.logprob, tokens=len(s.tokens))
        for s in found
    )
    return Drawn(samples, seconds, passes)
