"""Evaluation of heads: tokens per step of chains and trees, loss and hits of each head.

The base model answers every prompt once, greedily. The steps that a drafter would have taken are
then counted on those answers: at each step its tree either holds what the base model wrote next, or
does not. Decoding would commit exactly those tokens, at a far higher cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from labkit.errors import LabkitError
from labkit.speculative.decoder import Decoder
from labkit.speculative.drafters.base import Drafter, watches
from labkit.speculative.drafters.mlp import Heads
from labkit.speculative.drafters.remembering import EagleHeads, looking_back, tree_drafter
from labkit.training.answers import Writing, continue_all

SLOTS = 12
"""Answers written at once: fewer than for training, since all states are held in memory."""
TREES = {"chain": (8, 1, 1), "tree8": (8, 6, 6), "tree16": (16, 8, 8)}
"""Drafted nodes, width and top-k of each tree that is measured; a chain has one node per head."""
NO_TOKEN = -1
"""The choice beyond the end of an answer: no draft token equals it."""


@dataclass(frozen=True)
class GreedyAnswer:
    """A prompt's greedy answer: token ids, and the states (A, D) that gave each of them."""

    prompt: list[int]
    tokens: list[int]
    states: torch.Tensor


def greedy_answers(
    decoder: Decoder, prompts: Sequence[str], new_tokens: int, layers: Sequence[int]
) -> list[GreedyAnswer]:
    """Return the base model's greedy answers, with the states that readers of ``layers`` need."""
    ids = [decoder.encode(prompt, new_tokens) for prompt in prompts]
    manner, ends = Writing(new_tokens), decoder.base.eos_ids
    rows = continue_all(decoder.engine, ids, manner, ends, layers=layers, slots=SLOTS)
    return [GreedyAnswer([*row.prompt], row.output, torch.cat(row.states)) for row in rows]


def count_steps(drafter: Drafter, answers: Iterable[GreedyAnswer]) -> tuple[int, int]:
    """Count the tokens committed and the steps taken if ``drafter`` drafted for these answers."""
    tokens = steps = 0
    for answer in answers:
        drafter.begin(answer.prompt)
        if watches(drafter):
            drafter.see(answer.states[:1])
        place = 0
        while rest := answer.tokens[place + 1 :]:
            text = [*answer.prompt, *answer.tokens[: place + 1]]
            draft = drafter.draft(text, answer.states[place])
            ahead = dict(enumerate(rest))
            choices = [ahead.get(depth, NO_TOKEN) for depth in (0, *draft.depths)]
            taken = min(len(draft.follow(choices)) + 1, len(rest))
            if watches(drafter):
                drafter.see(answer.states[place + 1 : place + 1 + taken])
            place += taken
            tokens += taken
            steps += 1
    return tokens, steps


def score_heads(heads: Heads, answers: Iterable[GreedyAnswer]) -> list[dict[str, float | None]]:
    """Return each head's ``loss`` in nats, ``top1`` and ``top4`` hits, given the tokens before.

    None for a head that no answer was long enough for. A token outside the draft vocabulary cannot
    be drafted: it is a miss, and its loss is taken as that of the least probable token in it.
    """
    count = heads.config.n_predict
    sums = np.zeros((count, 4))  # loss, top1, top4, places
    column = {int(token): place for place, token in enumerate(heads.draft_ids)}
    for answer in answers:
        if isinstance(heads, EagleHeads):
            heads.begin()
        states = looking_back(heads, answer.states.numpy(), answer.tokens)
        for place in range(len(answer.tokens) - 1):
            first = state = heads.start(states[place])
            for head in range(min(count, len(answer.tokens) - 1 - place)):
                before = state if heads.config.hierarchical else first
                given, target = answer.tokens[place + head : place + head + 2]
                state, logits, best, _ = heads.step(head, before, np.array([given]), 4)
                logs = torch.from_numpy(logits[0]).log_softmax(-1)
                loss = -float(logs[column[target]] if target in column else logs.min())
                sums[head] += (loss, best[0, 0] == target, target in best[0], 1)
            if isinstance(heads, EagleHeads):
                heads.read(answer.states[place : place + 1], answer.tokens[place : place + 1])
    return [
        {
            "loss": loss / places if places else None,
            "top1": top1 / places if places else None,
            "top4": top4 / places if places else None,
        }
        for loss, top1, top4, places in sums.tolist()
    ]


def evaluate_heads(decoder: Decoder, prompts: Sequence[str], new_tokens: int) -> dict[str, Any]:
    """Return what `labkit train eval` prints: ``tokens_per_step``, ``heads`` and ``tokens``.

    Tokens per step are means over tokens, the bonus token included; vanilla is 1.00. Raises
    `LabkitError` where every answer ended after one token, before any step.
    """
    heads = decoder.heads
    answers = greedy_answers(decoder, prompts, new_tokens, heads.config.layers)
    if all(len(answer.tokens) < 2 for answer in answers):
        raise LabkitError("Every answer ended after one token: give other or longer prompts.")
    steps = {}
    for name, (nodes, width, top_k) in TREES.items():
        tokens, count = count_steps(tree_drafter(heads, nodes, width, top_k), answers)
        steps[name] = tokens / count
    return {
        "tokens_per_step": steps,
        "heads": score_heads(heads, answers),
        "tokens": sum(len(answer.tokens) for answer in answers),
    }
