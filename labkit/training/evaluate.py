"""How good heads are: tokens per step of chains and trees, loss and hits of each head.

The base model answers every prompt once, greedily. What a drafter would have gained is then read
off those answers: at each step its tree either holds what the base model went on to write, or
not. That is exactly what decoding would commit, at a fraction of its cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from labkit.speculative.decoder import Decoder
from labkit.speculative.drafters.base import Drafter, Watcher
from labkit.speculative.drafters.context import ContextHeads, has_context
from labkit.speculative.drafters.eagle import EagleHeads, tree_drafter
from labkit.speculative.drafters.mlp import Heads
from labkit.speculative.tree import ROOT, Draft
from labkit.training.generate import continue_all

NEW_TOKENS = 96
TREES = {"chain": (8, 1, 1), "tree8": (8, 6, 6), "tree16": (16, 8, 8)}
"""Drafted nodes, width and top-k of each tree that is measured; a chain has a node a head."""


@dataclass(frozen=True)
class Answer:
    """A prompt's greedy answer: token ids, and the states (A, D) that gave each of them."""

    prompt: list[int]
    tokens: list[int]
    states: torch.Tensor


def greedy_answers(
    decoder: Decoder,
    prompts: Sequence[str],
    new_tokens: int = NEW_TOKENS,
    layers: Sequence[int] = (),
    slots: int = 12,
) -> list[Answer]:
    """Return the base model's greedy answers, with the states that readers of ``layers`` want."""
    ids = [decoder.encode(prompt, new_tokens) for prompt in prompts]
    states: list[torch.Tensor] = []
    answers = continue_all(
        decoder.engine, ids, new_tokens, decoder.base.eos_ids, slots, states=states, layers=layers
    )
    return [Answer(*parts) for parts in zip(ids, answers, states, strict=True)]


def accepted(draft: Draft, continuation: Sequence[int]) -> int:
    """How many nodes of a draft are accepted where the base model writes ``continuation``.

    >>> from labkit.speculative.tree import chain
    >>> accepted(chain([5, 6, 7], "example"), [5, 6, 9])
    2
    """
    at, count = ROOT, 0
    for token in continuation:
        found = [node for node in draft.children(at) if draft.tokens[node] == token]
        if not found:
            break
        at, count = found[0], count + 1
    return count


def count_steps(drafter: Drafter, answers: Iterable[Answer]) -> tuple[int, int]:
    """(tokens committed, steps taken) if ``drafter`` drafted for these answers."""
    tokens = steps = 0
    for answer in answers:
        drafter.begin(answer.prompt)
        if isinstance(drafter, Watcher):
            drafter.see(answer.states[:1])
        place, last = 0, len(answer.tokens) - 1
        while place < last:
            draft = drafter.draft(
                [*answer.prompt, *answer.tokens[: place + 1]], answer.states[place]
            )
            rest = answer.tokens[place + 1 :]
            taken = min(accepted(draft, rest) + 1, len(rest))
            if isinstance(drafter, Watcher):
                drafter.see(answer.states[place + 1 : place + 1 + taken])
            place += taken
            tokens += taken
            steps += 1
    return tokens, steps


def score_heads(heads: Heads, answers: Iterable[Answer]) -> list[dict[str, float]]:
    """Of each head, given the right tokens before: ``loss`` in nats, ``top1`` and ``top4`` hits.

    A token outside the draft vocabulary cannot be drafted: it is a miss, and its loss is taken as
    that of the least probable token of the draft vocabulary.
    """
    count = heads.config.n_predict
    sums = [{"loss": 0.0, "top1": 0, "top4": 0, "places": 0} for _ in range(count)]
    column = {int(token): place for place, token in enumerate(heads.draft_ids)}
    for answer in answers:
        states = answer.states
        if isinstance(heads, EagleHeads):
            heads.begin()
        if has_context(heads):
            context = cast("ContextHeads", heads).new_context().extend(states, answer.tokens)
            states = torch.cat([torch.from_numpy(context), states], dim=1)
        for place in range(len(answer.tokens) - 1):
            first = state = heads.start(states[place].numpy())
            for head in range(min(count, len(answer.tokens) - 1 - place)):
                before = state if heads.config.hierarchical else first
                given = torch.tensor([answer.tokens[place + head]]).numpy()
                state, logits, best, _ = heads.step(head, before, given, 4)
                target = answer.tokens[place + head + 1]
                logs = torch.from_numpy(logits[0]).log_softmax(-1)
                at = column.get(target)
                total = sums[head]
                total["loss"] -= float(logs[at] if at is not None else logs.min())
                total["top1"] += int(best[0, 0] == target)
                total["top4"] += int(target in best[0])
                total["places"] += 1
            if isinstance(heads, EagleHeads):
                heads.read(answer.states[place : place + 1], answer.tokens[place : place + 1])
    return [
        {key: total[key] / max(total["places"], 1) for key in ("loss", "top1", "top4")}
        for total in sums
    ]


def evaluate_heads(
    decoder: Decoder, prompts: Sequence[str], new_tokens: int = NEW_TOKENS
) -> dict[str, Any]:
    """What `labkit train eval` prints: ``tokens_per_step``, ``heads`` and ``tokens``.

    Tokens per step are means over tokens, the bonus token included; vanilla is 1.00.
    """
    heads = decoder.heads
    answers = greedy_answers(decoder, prompts, new_tokens, heads.config.layers)
    steps = {}
    for name, (nodes, width, top_k) in TREES.items():
        tokens, count = count_steps(tree_drafter(heads, nodes, width, top_k), answers)
        steps[name] = tokens / max(count, 1)
    return {
        "tokens_per_step": steps,
        "heads": score_heads(heads, answers),
        "tokens": sum(len(answer.tokens) for answer in answers),
    }
