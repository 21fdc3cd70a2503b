"""The loop: prefill, draft, verify, commit. Vanilla decoding is the loop without a drafter."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch

from labkit.errors import LabkitError
from labkit.kernels.engine import Engine, Rows
from labkit.sampling import Sampling
from labkit.speculative import verify
from labkit.speculative.drafters.base import Drafter, watches
from labkit.speculative.tree import Draft
from labkit.speculative.verify import Verdict

PREFILL_ROWS = 64
"""Prompt tokens processed in one pass."""

TIE = 1e-4
"""Two largest logits that lie closer than this, relatively, are a tie."""


@dataclass(frozen=True)
class GeneratedStep:
    """One pass of the loop; times in seconds."""

    draft: Draft
    verdict: Verdict
    committed: tuple[int, ...]
    cut: bool
    draft_s: float
    check_s: float
    rest_s: float
    probs: torch.Tensor | None = None
    """The base model's distribution after the root and each node, (N + 1, V): only in detail."""


@dataclass(frozen=True)
class Generation:
    """The output of the loop: the first token (from the prefill), then the steps."""

    prompt: tuple[int, ...]
    first: int
    steps: tuple[GeneratedStep, ...]
    prefill_s: float
    narrow: tuple[int, ...] = ()
    """Places (counted in output tokens) where the base model's two largest logits all but tie."""

    @property
    def tokens(self) -> list[int]:
        """Every generated token, in order."""
        return [self.first, *(token for step in self.steps for token in step.committed)]

    @property
    def seconds(self) -> float:
        """Time of the whole generation, prefill included."""
        return self.prefill_s + sum(s.draft_s + s.check_s + s.rest_s for s in self.steps)

    @property
    def tokens_per_step(self) -> float:
        """Acceptance length: tokens committed per step, the bonus included; vanilla is 1.00."""
        return (len(self.tokens) - 1) / len(self.steps) if self.steps else 1.0


def generate(
    engine: Engine,
    prompt: Sequence[int],
    max_new_tokens: int,
    drafter: Drafter | None = None,
    sampling: Sampling | None = None,
    eos_ids: Collection[int] = (),
    generator: torch.Generator | None = None,
    detail: bool = False,
    watch: Callable[[GeneratedStep], None] | None = None,
    stop: Callable[[Sequence[int]], bool] = lambda _: False,
) -> Generation:
    """Continue ``prompt`` until an end token, ``max_new_tokens``, or where ``stop`` says so.

    With greedy decoding the output is what it is without a drafter, token for token; with sampling
    it has the same distribution (unless ``sampling.typical``). ``watch`` is called after each step,
    ``stop`` after each new token with the whole text, prompt included.
    A draft goes no deeper than what may still be committed, so no pass reaches beyond the context.
    Raises `LabkitError` for an empty prompt, a count below 1, more tokens than the context holds,
    or sampling without a generator.
    """
    sampling = sampling or Sampling()
    check_fits(engine.context, prompt, max_new_tokens)
    if not sampling.greedy and generator is None:
        raise LabkitError("Sampling needs a torch.Generator, so that a seed gives the same output.")
    room, layers = (drafter.max_nodes, drafter.layers) if drafter else (0, ())
    cache = engine.new_cache(len(prompt) + max_new_tokens + room + 1)
    clock = time.perf_counter
    began = clock()
    out = prefill(engine, prompt, cache, layers=layers)
    first = _choose(out.logits[-1:], sampling, generator)
    hidden = out.hidden[-1]
    narrow = [0] if not engine.exact and tied(out.logits[-1]) else []
    if drafter:
        drafter.begin(prompt)
    if watches(drafter):
        drafter.see(out.hidden[-1:])
    prefill_s = clock() - began
    tokens, steps = [*prompt, first], []
    ended = first in eos_ids or stop(tokens)
    while len(tokens) - len(prompt) < max_new_tokens and not ended:
        t0 = clock()
        left = max_new_tokens - (len(tokens) - len(prompt))
        draft = _draft(drafter, tokens, hidden, sampling, generator).no_deeper(left - 1)
        t1 = clock()
        out = engine.forward([draft.rows(tokens[-1])], cache, layers=layers)
        t2 = clock()
        verdict = verify_draft(out.logits, draft, sampling, generator)
        path = [0, *(node + 1 for node in verdict.path)]
        cache.commit(path)
        hidden = out.hidden[path[-1]]
        if watches(drafter):
            drafter.see(out.hidden[path])
        committed = [draft.tokens[node] for node in verdict.path] + [verdict.token]
        kept = []
        for token in committed:
            kept.append(token)
            if ended := token in eos_ids or stop([*tokens, *kept]):
                break
        t3 = clock()
        if not engine.exact:
            at = len(tokens) - len(prompt)
            narrow += [at + i for i, row in enumerate(path[: len(kept)]) if tied(out.logits[row])]
        probs = out.logits.float().softmax(-1) if detail else None
        cut, times = len(kept) < len(committed), (t1 - t0, t2 - t1, t3 - t2)
        step = GeneratedStep(draft, verdict, tuple(kept), cut, *times, probs)
        steps.append(step)
        tokens += kept
        if watch:
            watch(step)
    return Generation(tuple(prompt), first, tuple(steps), prefill_s, tuple(narrow))


def prefill(
    engine: Engine, prompt: Sequence[int], cache, slot: int = 0, layers: Sequence[int] = ()
):
    """Read the prompt into the cache; return the last pass's output."""
    for start in range(0, len(prompt), PREFILL_ROWS):
        part = prompt[start : start + PREFILL_ROWS]
        out = engine.forward([Rows(part, slot)], cache, "last", layers)
        cache.commit(range(len(part)), slot)
    return out


def check_fits(context: int, prompt: Sequence[int], max_new_tokens: int) -> None:
    """Raise `LabkitError` for a prompt or an output length that the model cannot decode."""
    if not len(prompt):
        raise LabkitError("The prompt is empty: give at least one token.")
    if not hasattr(type(max_new_tokens), "__index__"):
        raise LabkitError(f"max_new_tokens is {max_new_tokens!r}: give a whole number.")
    if max_new_tokens < 1:
        raise LabkitError(f"max_new_tokens is {max_new_tokens}: give at least 1.")
    if len(prompt) + max_new_tokens > context:
        raise LabkitError(
            f"The prompt has {len(prompt):,} tokens and {max_new_tokens:,} more were asked for, "
            f"beyond the model's context of {context:,}: shorten one or the other."
        )


def _draft(drafter, tokens, hidden, sampling, generator) -> Draft:
    if drafter is None:
        return Draft()
    if sampling.greedy or sampling.typical:
        return drafter.draft(tokens, hidden)
    return drafter.draft(tokens, hidden, generator, sampling.temperature)


def verify_draft(logits: torch.Tensor, draft: Draft, sampling: Sampling, generator) -> Verdict:
    """Return the verdict on ``draft`` by the rule for ``sampling``: logits (N + 1, V)."""
    if sampling.greedy:
        return verify.greedy(logits, draft)
    probs = sampling.probabilities(logits)
    if sampling.typical:
        return verify.typical_acceptance(probs, draft, generator)
    return verify.speculative_sampling(probs, draft, generator)


def _choose(logits: torch.Tensor, sampling: Sampling, generator) -> int:
    """Return one token from logits (1, V), without a draft."""
    return verify_draft(logits, Draft(), sampling, generator).token


def tied(logits: torch.Tensor) -> bool:
    """Return whether the two largest logits lie within `TIE` of each other, relatively."""
    first, second = logits.float().topk(2).values.tolist()
    return first - second <= TIE * max(abs(first), abs(second))
