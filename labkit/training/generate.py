"""Answers of the base model, many at a time: what phase 2 trains on.

A batch shares each reading of the weights, so generation is bound by arithmetic, and the one rule
is to keep every row busy: a row that finishes is given the next prompt at once, and that prompt is
read in the same pass in which the other rows go on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch

from labkit.kernels.engine import Engine, Rows
from labkit.speculative.generate import PREFILL_ROWS, check_fits, prefill

READ_AT_ONCE = 1024
"""No more prompts are begun in a pass that is to read so many tokens of new ones."""

Choose = Callable[[torch.Tensor], torch.Tensor]
"""From logits (N, V) to token ids (N,)."""


def greedy(logits: torch.Tensor) -> torch.Tensor:
    """The most probable token of each row."""
    return logits.argmax(-1)


@dataclass
class _Row:
    """A sequence being continued in one slot of the cache: what of its prompt is yet to be read,
    the answer so far, and the states that gave it."""

    index: int
    unread: Sequence[int]
    answer: list[int] = field(default_factory=list)
    states: list[torch.Tensor] = field(default_factory=list)

    @property
    def next(self) -> Sequence[int]:
        """What the next pass looks at: a piece of the prompt, or the answer's last token."""
        return self.unread[:PREFILL_ROWS] or self.answer[-1:]


def continue_all(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    eos_ids: Collection[int],
    slots: int = 24,
    choose: Choose = greedy,
    repeats: int | None = None,
    states: list[torch.Tensor] | None = None,
    layers: Sequence[int] = (),
) -> list[list[int]]:
    """Continue every prompt until an end token (kept) or ``max_new_tokens``.

    At most ``slots`` rows run at once. With ``repeats``, a row also ends where its last ``repeats``
    tokens have stood in its answer twice before: a small model that loops goes on for ever, and a
    loop teaches a head nothing new. ``states``, if given, is filled with the base model's hidden
    states, one tensor (A, D) for each prompt: row a is the state that gave answer token
    a, so heads can be trained without passing the answers through the base model again. It holds
    the states after ``layers`` too; see `kernels.engine.Output`.
    """
    for prompt in prompts:
        check_fits(engine, prompt, max_new_tokens)
    longest = max(map(len, prompts)) + max_new_tokens
    cache = engine.new_cache(longest, slots + 1)
    shared = _shared_beginning(prompts)
    if shared:  # the beginning that all prompts have, a chat template's as a rule: looked at once
        prefill(engine, prompts[0][:shared], cache, slots)
    answers: list[list[int]] = [[] for _ in prompts]
    kept: dict[int, torch.Tensor] = {}
    waiting = list(range(len(prompts)))[::-1]
    running: dict[int, _Row] = {}

    def settle(slot: int, row: _Row, token: int, hidden: torch.Tensor) -> None:
        """Append a token; free the slot where that ends the row."""
        row.answer.append(token)
        if states is not None:
            row.states.append(hidden.clone())
        ended = token in eos_ids or len(row.answer) == max_new_tokens
        if ended or (repeats and _loops(row.answer, repeats)):
            answers[row.index] = row.answer
            if states is not None:
                kept[row.index] = torch.stack(row.states)
            del running[slot]

    while waiting or running:
        room = READ_AT_ONCE
        for slot in range(slots):
            if slot not in running and waiting and room > 0:
                index = waiting.pop()
                running[slot] = _Row(index, prompts[index][shared:])
                cache.copy_slot(slots, slot)
                room -= len(running[slot].next)
        order = list(running.items())
        rows = [Rows(row.next, slot) for slot, row in order]
        out = engine.forward(rows, cache, "last", layers)
        ends = accumulate(len(piece.tokens) for piece in rows)
        tokens = choose(out.logits).tolist()
        for (slot, row), piece, end, token in zip(order, rows, ends, tokens, strict=True):
            cache.commit(range(len(piece.tokens)), slot)
            row.unread = row.unread[len(piece.tokens) :]
            if not row.unread:
                settle(slot, row, token, out.hidden[end - 1])
    if states is not None:
        states.extend(kept[index] for index in range(len(prompts)))
    return answers


def _shared_beginning(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with, one of each left over.

    >>> _shared_beginning([[1, 2, 3], [1, 2], [1, 2, 4]])
    1
    """
    most = min(map(len, prompts)) - 1
    places = (place for place in range(most) if len({prompt[place] for prompt in prompts}) > 1)
    return next(places, most)


def _loops(answer: list[int], length: int) -> bool:
    """Whether the last ``length`` tokens have stood there twice before, without overlap."""
    tail, found, at = answer[-length:], 0, len(answer) - 2 * length
    while at >= 0 and found < 2:
        if answer[at : at + length] == tail:
            found += 1
            at -= length
        else:
            at -= 1
    return found == 2


def sampler(
    temperature: float, top_p: float, generator: torch.Generator, most: int = 1000
) -> Choose:
    """Draw from the ``most`` probable tokens under ``temperature``, cut to a mass of ``top_p``."""

    def choose(logits: torch.Tensor) -> torch.Tensor:
        top, ids = logits.topk(min(most, logits.shape[-1]))
        probs = (top / temperature).softmax(-1)
        probs = probs.masked_fill(probs.cumsum(-1) - probs >= top_p, 0)
        return ids.gather(-1, torch.multinomial(probs, 1, generator=generator))[:, 0]

    return choose
