"""The loop for many texts: continuous batching, drafted or plain, greedy or sampled.

A step makes two passes of the base model. The first is a chunk of prefill: it processes a limited
number of prompt tokens, so that running rows do not wait long for new ones (Agrawal et al. 2024).
The second processes the last token of every running row together with its draft; plain decoding is
the same pass without drafts. Rows join and leave between any two steps.

A row gets the tokens that it would get alone. Greedy rows take the largest logit. A sampled row
draws with one random number per token, which depends only on the row's seed and on the place of
the token in its output. A draft token is accepted if it is the token that the base model itself
draws there (Daliri et al. 2024), so on an exact engine neither the other rows nor the drafts change
a single sampled token.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, takewhile

import numpy as np
import torch

from labkit.errors import LabkitError
from labkit.kernels.engine import Engine, Output, Rows
from labkit.sampling import Sampling
from labkit.speculative.drafters.base import Drafter, watches
from labkit.speculative.drafters.mlp import MLPDrafter
from labkit.speculative.generate import PREFILL_ROWS, check_fits, prefill
from labkit.speculative.tree import Draft


@dataclass(eq=False)
class Row:
    """A request in its slot: its prompt, of which ``read`` tokens are processed, and its output.

    ``tokens`` are prompt and output, ``hidden`` is Z, for the next draft. Where the batch keeps
    them, ``logprob`` is log p of the output under the model's own distribution, and ``states`` are
    those that gave each token.
    """

    slot: int
    prompt: tuple[int, ...]
    limit: int
    sampling: Sampling
    seed: int
    tokens: list[int] = field(default_factory=list)
    read: int = 0
    hidden: torch.Tensor | None = None
    logprob: float = 0.0
    states: list[torch.Tensor] = field(default_factory=list)

    @property
    def output(self) -> list[int]:
        """The tokens generated so far."""
        return self.tokens[len(self.prompt) :]

    @property
    def left(self) -> int:
        """The number of tokens that may still be generated."""
        return self.limit - (len(self.tokens) - len(self.prompt))


@dataclass(frozen=True)
class Emitted:
    """The tokens that one pass gave to a row, and whether they ended it."""

    row: Row
    tokens: tuple[int, ...]
    ended: bool


@dataclass(frozen=True)
class BatchStep:
    """One step of the batch; times in seconds.

    ``prompt_rows`` prompt tokens were processed. ``batch`` rows were continued, ``nodes`` was the
    limit of each one's draft, ``drafted`` the nodes of all drafts. ``taken[r]`` rows had their node
    of rank r (0 the likeliest) accepted. ``check_s`` is the base model's pass and the choice that
    follows from it, ``rest_s`` the commit and the bookkeeping.
    """

    batch: int = 0
    prompt_rows: int = 0
    nodes: int = 0
    drafted: int = 0
    committed: int = 0
    taken: tuple[int, ...] = ()
    prefill_s: float = 0.0
    draft_s: float = 0.0
    check_s: float = 0.0
    rest_s: float = 0.0
    emitted: tuple[Emitted, ...] = ()

    @property
    def rows(self) -> int:
        """Rows of the second pass: the last token of each text, and the drafts."""
        return self.batch + self.drafted


class Drafting:
    """Drafts for all rows of a batch, by the drafters that ``make`` returns.

    Heads keep no state of a text, so one drafter serves all rows, and each head runs once for all
    of them. Any other drafter exists once per slot.
    """

    def __init__(self, make: Callable[[], Drafter]) -> None:
        self._make, self._slots = make, dict[int, Drafter]()
        first = make()
        self._heads = first if isinstance(first, MLPDrafter) and not watches(first) else None
        self.max_nodes, self.layers = first.max_nodes, first.layers

    def begin(self, slot: int, prompt: Sequence[int]) -> None:
        """Start a new text in ``slot``."""
        if self._heads is None:
            if slot not in self._slots:
                self._slots[slot] = self._make()
            self._slots[slot].begin(prompt)

    def see(self, slot: int, hidden: torch.Tensor) -> None:
        """Pass on the states (C, D) that gave the tokens committed last, to a `Watcher`."""
        drafter = self._slots.get(slot)
        if watches(drafter):
            drafter.see(hidden)

    def draft(self, rows: Sequence[Row], nodes: int) -> list[Draft]:
        """Return a draft of at most ``nodes`` for each row."""
        states = [row.hidden for row in rows if row.hidden is not None]
        if self._heads is not None:
            roots, z = [row.tokens[-1] for row in rows], torch.stack(states).float().cpu().numpy()
            return self._heads.grown(roots, z, min(nodes, self.max_nodes))
        pairs = zip(rows, states, strict=True)
        drafts = (self._slots[row.slot].draft(row.tokens, z) for row, z in pairs)
        return [draft.best_part(nodes) for draft in drafts]


def drafting_for(make: Callable[[], Drafter | None]) -> Drafting | None:
    """Return the `Drafting` by the drafters that ``make`` returns; None if they draft nothing."""
    return Drafting(make) if make() else None  # type: ignore[arg-type]


class Batch:
    """Rows in the slots of one cache, which is allocated once; not for several threads at once.

    ``capacity`` is the most tokens of a slot, prompt and output together. ``shared`` is a beginning
    of all prompts, or a whole prompt: it is processed once, here, and copied into every slot.
    ``pace`` returns the most nodes per row when so many rows are continued (default: all of them).
    ``chunk`` limits the prompt tokens of a step. With ``repeats``, a row also ends once its last
    ``repeats`` tokens have come twice before: a loop never ends by itself. ``keep`` names what rows
    keep besides tokens: "states" (with those after ``layers``; see `kernels.engine.Output`) and
    "logprobs".
    """

    def __init__(
        self,
        engine: Engine,
        slots: int,
        capacity: int,
        eos_ids: Collection[int] = (),
        drafting: Drafting | None = None,
        pace: Callable[[int], int] | None = None,
        *,
        shared: Sequence[int] = (),
        chunk: int = PREFILL_ROWS,
        repeats: int = 0,
        keep: Collection[str] = (),
        layers: Sequence[int] = (),
    ) -> None:
        if slots < 1 or capacity < 2:
            raise LabkitError(
                f"{slots} slots of {capacity} tokens were asked for: give at least 1 slot, of at "
                "least 2 tokens."
            )
        self.engine, self.slots, self.capacity = engine, slots, capacity
        self.eos_ids = frozenset(eos_ids)
        self.drafting = drafting
        self.max_nodes = drafting.max_nodes if drafting else 0
        self.pace = pace or (lambda _: self.max_nodes)
        self.layers = drafting.layers if drafting else tuple(layers)
        self.chunk, self.repeats, self.keep = chunk, repeats, frozenset(keep)
        self.cache = engine.new_cache(capacity + self.max_nodes + 1, slots + bool(shared))
        self.free = deque(range(slots))
        self.running: list[Row] = []
        self.passes = 0
        self.shared = tuple(shared)
        if shared:
            out = prefill(engine, shared, self.cache, slots, self.layers)
            self._after_shared = Output(out.hidden[-1:].clone(), out.logits[-1:].clone())
            self.passes = -(-len(shared) // PREFILL_ROWS)

    def check(self, prompt: Sequence[int], limit: int, sampling: Sampling) -> None:
        """Raise `LabkitError` for a request that no slot can serve."""
        check_fits(self.engine.context, prompt, limit)
        if len(prompt) + limit > self.capacity:
            raise LabkitError(
                f"The prompt has {len(prompt)} tokens and {limit} more were asked for, but a slot "
                f"of this engine holds {self.capacity}: shorten one or the other."
            )
        if sampling.typical:
            raise LabkitError(
                "Typical acceptance is not lossless, so an answer would depend on the load: use "
                "greedy decoding or plain sampling."
            )

    def join(
        self, prompt: Sequence[int], limit: int, sampling: Sampling | None = None, seed: int = 0
    ) -> Row:
        """Take a free slot for a request; its prompt is processed from the next step on."""
        sampling = sampling or Sampling()
        self.check(prompt, limit, sampling)
        row = Row(self.free.popleft(), tuple(prompt), limit, sampling, seed, list(prompt))
        if self.shared and row.prompt[: len(self.shared)] == self.shared:
            self.cache.copy_slot(self.slots, row.slot)
            row.read = len(self.shared)
        if self.drafting:
            self.drafting.begin(row.slot, row.prompt)
        self.running.append(row)
        return row

    def leave(self, row: Row) -> None:
        """Free the row's slot, whether its output is complete or not."""
        self.running.remove(row)
        self.cache.truncate(0, row.slot)
        self.free.append(row.slot)

    def step(self, emit: Callable[[Emitted], None] = lambda _: None) -> BatchStep:
        """Process a chunk of prompts, then continue every row that has a token; ended rows leave.

        ``emit`` is called as soon as a row gets tokens: the first one does not wait for the second
        pass.
        """
        began = time.perf_counter()
        first, prompt_rows = self._prefill()
        prefill_s = time.perf_counter() - began
        for emitted in first:
            emit(emitted)
        rows = [row for row in self.running if len(row.tokens) > len(row.prompt)]
        step = self._continue(rows) if rows else BatchStep()
        for emitted in step.emitted:
            emit(emitted)
        emitted_in_all = (*first, *step.emitted)
        return replace(step, prompt_rows=prompt_rows, prefill_s=prefill_s, emitted=emitted_in_all)

    def _prefill(self) -> tuple[list[Emitted], int]:
        """Process prompts in the order of arrival; each one finished gives its first token."""
        ready = [row for row in self.running if row.read == len(row.prompt) == len(row.tokens)]
        reading: list[tuple[Row, Rows]] = []
        room = self.chunk
        for row in self.running:
            if part := row.prompt[row.read : row.read + min(room, PREFILL_ROWS)]:
                reading.append((row, Rows(part, row.slot)))
                room -= len(part)
        emitted: list[Emitted] = []
        if ready:  # their prompt is the shared one
            many = len(ready), -1
            hidden, logits = self._after_shared.hidden, self._after_shared.logits
            emitted += self._first(ready, hidden.expand(many), logits.expand(many))
        if not reading:
            return emitted, 0
        out = self.engine.forward([piece for _, piece in reading], self.cache, "last", self.layers)
        self.passes += 1
        ends = np.cumsum([len(piece.tokens) for _, piece in reading]) - 1
        for row, piece in reading:
            self.cache.commit(range(len(piece.tokens)), row.slot)
            row.read += len(piece.tokens)
        done = [place for place, (row, _) in enumerate(reading) if row.read == len(row.prompt)]
        if done:
            rows = [reading[place][0] for place in done]
            emitted += self._first(rows, out.hidden[ends[done].tolist()], out.logits[done])
        return emitted, self.chunk - room

    def _first(
        self, rows: Sequence[Row], hidden: torch.Tensor, logits: torch.Tensor
    ) -> list[Emitted]:
        """Give each row its first token, from the states and logits at the end of its prompt."""
        tokens, logprobs = self._decide(rows, [Draft()] * len(rows), logits)
        return [
            self._emit(row, tokens[i : i + 1], hidden[i : i + 1], logprobs[i : i + 1])
            for i, row in enumerate(rows)
        ]

    def _continue(self, rows: Sequence[Row]) -> BatchStep:
        """Draft, check, verify and commit for all rows, in one pass of the base model."""
        clock = time.perf_counter
        t0 = clock()
        nodes = self.pace(len(rows)) if self.drafting else 0
        drafting = self.drafting if nodes else None
        made = drafting.draft(rows, nodes) if drafting else [Draft()] * len(rows)
        # No deeper than the row has tokens left, so that no pass reaches beyond the context.
        drafts = [draft.no_deeper(row.left - 1) for draft, row in zip(made, rows, strict=True)]
        t1 = clock()
        pieces = [
            draft.rows(row.tokens[-1], row.slot) for row, draft in zip(rows, drafts, strict=True)
        ]
        out = self.engine.forward(pieces, self.cache, "all", self.layers)
        self.passes += 1
        bounds = np.cumsum([0, *(len(piece.tokens) for piece in pieces)])
        tokens, logprobs = self._decide(rows, drafts, out.logits)
        t2 = clock()
        taken = [0] * self.max_nodes
        emitted = []
        for row, draft, (low, high) in zip(rows, drafts, pairwise(bounds), strict=True):
            path = draft.follow(tokens[low:high])
            kept = [0, *(node + 1 for node in path)]
            self.cache.commit(kept, row.slot)
            if path:
                ranks = draft.ranks()
                for node in path:
                    taken[ranks[node]] += 1
            at = [low + place for place in kept]
            found = [logprobs[place] for place in at] if logprobs else []
            emitted.append(self._emit(row, [tokens[place] for place in at], out.hidden[at], found))
        return BatchStep(
            batch=len(rows),
            nodes=nodes,
            drafted=sum(map(len, drafts)),
            committed=sum(len(some.tokens) for some in emitted),
            taken=tuple(taken),
            draft_s=t1 - t0,
            check_s=t2 - t1,
            rest_s=clock() - t2,
            emitted=tuple(emitted),
        )

    def _decide(
        self, rows: Sequence[Row], drafts: Sequence[Draft], logits: torch.Tensor
    ) -> tuple[list[int], list[float]]:
        """Return the base model's own token after each root and node, and its log p if kept.

        Tokens are chosen where the logits (N, V) are, and come to the host all at once.
        """
        chosen = logits.argmax(-1)
        drawing: dict[Sampling, tuple[list[int], list[float]]] = {}
        first = 0
        for row, draft in zip(rows, drafts, strict=True):
            if not row.sampling.greedy:
                places, numbers = drawing.setdefault(row.sampling, ([], []))
                places += range(first, first + len(draft) + 1)
                at = len(row.tokens) - len(row.prompt)
                numbers += [uniform(row.seed, at + depth) for depth in (0, *draft.depths)]
            first += len(draft) + 1
        for sampling, (places, numbers) in drawing.items():
            some = logits if len(places) == len(logits) else logits[places]
            given = torch.tensor(numbers, dtype=torch.float64, device=logits.device)
            chosen[places] = drawn(sampling, some, given)
        if "logprobs" not in self.keep:
            return chosen.tolist(), []
        picked = logits.gather(-1, chosen[:, None])[:, 0]
        logprobs = (picked - logits.logsumexp(-1)).double()
        tokens, found = torch.stack([chosen.double(), logprobs]).tolist()
        return [int(token) for token in tokens], found

    def _emit(
        self, row: Row, tokens: Sequence[int], hidden: torch.Tensor, logprobs: Sequence[float]
    ) -> Emitted:
        """Append tokens up to an end token, the limit or a loop; there the row leaves.

        ``hidden`` (C, D) are the states that gave the C tokens, ``logprobs`` their log p if kept.
        """
        ends = (place for place, token in enumerate(tokens) if token in self.eos_ids)
        count = min(next(ends, len(tokens)) + 1, len(tokens), row.left)
        kept = tuple(tokens[:count])
        row.tokens += kept
        if logprobs:
            value = sum(logprobs[:count])
            row.logprob += min(value, 0.0) if math.isfinite(value) else -1e30
        if "states" in self.keep:
            row.states.append(hidden[:count].clone())
        if self.drafting:
            row.hidden = hidden[-1].clone()  # the engine may overwrite its own
            self.drafting.see(row.slot, hidden)
        looping = self.repeats > 0 and loops(row.output, self.repeats)
        ended = kept[-1] in self.eos_ids or row.left == 0 or looping
        if ended:
            self.leave(row)
        return Emitted(row, kept, ended)

    def run(
        self,
        prompts: Sequence[Sequence[int]],
        limit: int,
        sampling: Sampling | None = None,
        seeds: Sequence[int] | None = None,
    ) -> list[Row]:
        """Continue every prompt to its end, a waiting one in each slot as it becomes free."""
        for prompt in prompts:
            self.check(prompt, limit, sampling or Sampling())
        rows: list[Row] = []
        while len(rows) < len(prompts) or self.running:
            while self.free and len(rows) < len(prompts):
                seed = seeds[len(rows)] if seeds is not None else 0
                rows.append(self.join(prompts[len(rows)], limit, sampling, seed))
            self.step()
        return rows


def common_beginning(prompts: Sequence[Sequence[int]]) -> list[int]:
    """Return the tokens that all prompts begin with; none for a single prompt.

    >>> common_beginning([[1, 2, 3], [1, 2], [1, 2, 4]])
    [1, 2]
    """
    if len(prompts) < 2:
        return []
    first, last = min(map(list, prompts)), max(map(list, prompts))
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return [token for token, _ in same]


def uniform(seed: int, place: int) -> float:
    """Return a random number in [0, 1), always the same for a request's seed and a place."""
    key = np.random.Philox(key=np.array([seed % 2**64, place], np.uint64))
    return float(np.random.Generator(key).random())


def drawn(sampling: Sampling, logits: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Return the inverse of each row's distribution function at its number: (N, V) to (N,).

    Everything is computed where the logits are.

    >>> drawn(Sampling(temperature=1.0), torch.tensor([[0.5, 0.0, 0.5]] * 2).log(),
    ...       torch.tensor([0.49, 0.51])).tolist()
    [0, 2]
    """
    ids = None
    if 0 < sampling.top_k < logits.shape[-1]:  # the other filters need only look at these
        logits, ids = logits.topk(sampling.top_k)
    upto = sampling.probabilities(logits).cumsum(-1)  # (N, V)
    whole = upto[:, -1:]
    # Rounding must not carry the target past the last token that has any probability.
    target = torch.minimum(
        numbers[:, None] * whole, torch.nextafter(whole, torch.zeros_like(whole))
    )
    found = torch.searchsorted(upto, target, right=True)
    return (found if ids is None else ids.gather(-1, found))[:, 0]


def loops(output: Sequence[int], length: int) -> bool:
    """Return true if the last ``length`` tokens have come twice before, without overlap.

    >>> loops([1, 2, 9, 1, 2, 1, 2], 2), loops([1, 2, 9, 1, 2], 2)
    (True, False)
    """
    tail, found, at = output[-length:], 0, len(output) - 2 * length
    while at >= 0 and found < 2:
        if output[at : at + length] == tail:
            found += 1
            at -= length
        else:
            at -= 1
    return found == 2
