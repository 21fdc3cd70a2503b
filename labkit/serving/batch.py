"""Continuous batching: rows join and leave between any two steps, and each gets what it gets alone.

A step has two passes of the base model. The first reads a chunk of prompts, at most `PREFILL_ROWS`
tokens however many wait, so that nobody who is already answered is held up for long (Agrawal et al.
2024). The second looks at the last token of every row that is being answered, with its drafts
beside it: vanilla is the same pass without drafts. How many nodes are drafted after each row is
decided anew for every step by a `Pace`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch

from labkit.errors import LabkitError
from labkit.kernels.engine import Engine, Output, Rows
from labkit.sampling import Sampling
from labkit.serving.drafting import Drafting
from labkit.speculative.generate import check_fits
from labkit.speculative.tree import Draft
from labkit.speculative.verify import greedy

PREFILL_ROWS = 64
"""Prompt tokens that one step reads at most."""

LEAST_CAPACITY = 16
"""Tokens that a slot holds at least."""


@dataclass(eq=False)
class Row:
    """A request in its slot: how much of its prompt was read, what came out, and Z."""

    slot: int
    prompt: Sequence[int]
    limit: int
    sampling: Sampling
    seed: int
    tokens: list[int] = field(default_factory=list)
    """Prompt and output."""
    read: int = 0
    hidden: torch.Tensor | None = None

    @property
    def output(self) -> list[int]:
        """The tokens answered so far."""
        return self.tokens[len(self.prompt) :]

    @property
    def left(self) -> int:
        """How many tokens may still come."""
        return self.limit - (len(self.tokens) - len(self.prompt))


@dataclass(frozen=True)
class Emitted:
    """What one step gave to a row, and whether that was its last."""

    row: Row
    tokens: tuple[int, ...]
    ended: bool


@dataclass(frozen=True)
class Step:
    """One step of the batch; times in seconds.

    ``prompt_rows`` prompt tokens were read. ``batch`` rows were answered, ``nodes`` was what each
    could draft, ``drafted`` what they did in all. ``taken[r]`` rows had their node of rank r (0 the
    likeliest) accepted. ``check_s`` is the base model's pass and the choice that follows from it,
    ``rest_s`` committing and bookkeeping.
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
        """Rows of the pass that answered: each one's last token, and the drafts."""
        return self.batch + self.drafted


class Pace(Protocol):
    """Decides how many nodes to draft after each row."""

    def nodes(self, batch: int) -> int:
        """The most nodes a row, when ``batch`` rows are being answered."""

    def learn(self, step: Step) -> None:
        """Hear how a step went."""


class Fixed:
    """The same number of nodes whatever the load; 0 is vanilla."""

    def __init__(self, nodes: int) -> None:
        self._nodes = nodes

    def nodes(self, batch: int) -> int:
        """See `Pace.nodes`."""
        return self._nodes

    def learn(self, step: Step) -> None:
        """Nothing changes its mind."""


class Batch:
    """Rows in slots of one cache, which is allocated once; not for several threads at once.

    ``capacity`` is the most tokens that a slot can hold, prompt and output together.
    """

    def __init__(
        self,
        engine: Engine,
        slots: int,
        capacity: int,
        eos_ids: Collection[int] = (),
        drafting: Drafting | None = None,
        pace: Pace | None = None,
    ) -> None:
        if slots < 1 or capacity < LEAST_CAPACITY:
            raise LabkitError(
                f"{slots} slots of {capacity} tokens were asked for: give at least 1 slot, of at "
                f"least {LEAST_CAPACITY} tokens."
            )
        self.engine, self.slots, self.capacity = engine, slots, capacity
        self.eos_ids = frozenset(eos_ids)
        self.drafting = drafting
        self.pace = pace or Fixed(drafting.max_nodes if drafting else 0)
        self.max_nodes = drafting.max_nodes if drafting else 0
        self.layers = drafting.layers if drafting else ()
        self.cache = engine.new_cache(capacity + self.max_nodes + 1, slots)
        self.free = deque(range(slots))
        self.running: list[Row] = []

    def check(self, prompt: Sequence[int], limit: int, sampling: Sampling) -> None:
        """Raise `LabkitError` for a request that no slot could ever serve."""
        check_fits(self.engine, prompt, limit)
        if len(prompt) + limit > self.capacity:
            raise LabkitError(
                f"The prompt has {len(prompt)} tokens and {limit} more were asked for, but a slot "
                f"of this engine holds {self.capacity}: shorten one or the other."
            )
        if sampling.typical:
            raise LabkitError(
                "Typical acceptance is not lossless, so an answer would depend on the load: "
                "serve with greedy decoding or plain sampling."
            )

    def join(
        self, prompt: Sequence[int], limit: int, sampling: Sampling | None = None, seed: int = 0
    ) -> Row:
        """Take a free slot for a request; its prompt is read from the next step on."""
        sampling = sampling or Sampling()
        self.check(prompt, limit, sampling)
        row = Row(self.free.popleft(), tuple(prompt), limit, sampling, seed, list(prompt))
        if self.drafting:
            self.drafting.begin(row.slot, row.prompt)
        self.running.append(row)
        return row

    def leave(self, row: Row) -> None:
        """Give the row's slot back, whether its answer is complete or not."""
        self.running.remove(row)
        self.cache.truncate(0, row.slot)
        self.free.append(row.slot)

    def step(self, emit: Callable[[Emitted], None] = lambda _: None) -> Step:
        """Read a chunk of prompts, then answer every row that can be; rows that end leave.

        ``emit`` is handed what a row gets as soon as it is there: a first token does not wait for
        the second pass.
        """
        began = time.perf_counter()
        first, prompt_rows = self._prefill()
        prefill_s = time.perf_counter() - began
        for emitted in first:
            emit(emitted)
        rows = [row for row in self.running if row.hidden is not None]
        step = self._answer(rows) if rows else Step()
        for emitted in step.emitted:
            emit(emitted)
        step = replace(
            step,
            prompt_rows=prompt_rows,
            prefill_s=prefill_s,
            emitted=(*first, *step.emitted),
        )
        self.pace.learn(step)
        return step

    def _prefill(self) -> tuple[tuple[Emitted, ...], int]:
        """Read prompts in the order in which they came; those read to the end get a first token."""
        pieces: list[Rows] = []
        reading: list[Row] = []
        room = PREFILL_ROWS
        for row in self.running:
            if row.read < len(row.prompt) and room:
                part = row.prompt[row.read : row.read + room]
                room -= len(part)
                pieces.append(Rows(part, row.slot))
                reading.append(row)
        if not pieces:
            return (), 0
        out = self.engine.forward(pieces, self.cache, "last", self.layers)
        emitted = []
        end = 0
        for place, (row, piece) in enumerate(zip(reading, pieces, strict=True)):
            many = len(piece.tokens)
            end += many
            self.cache.commit(range(many), row.slot)
            row.read += many
            if row.read == len(row.prompt):
                scores = self._scores(row, out.logits[place : place + 1], Draft())
                token = int(scores[0].argmax())
                emitted.append(self._emit(row, [token], out.hidden[end - 1].clone()))
        return tuple(emitted), PREFILL_ROWS - room

    def _answer(self, rows: Sequence[Row]) -> Step:
        """The pass over every row's last token and its drafts."""
        clock = time.perf_counter
        nodes = self.pace.nodes(len(rows)) if self.drafting else 0
        t0 = clock()
        drafts = self._draft(rows, nodes)
        t1 = clock()
        pieces = [
            draft.rows(row.tokens[-1], row.slot) for row, draft in zip(rows, drafts, strict=True)
        ]
        out = self.engine.forward(pieces, self.cache, "all", self.layers)
        verdicts = self._verify(out, rows, drafts)
        t2 = clock()
        emitted, taken = self._commit(out, rows, drafts, verdicts)
        return Step(
            batch=len(rows),
            nodes=nodes,
            drafted=sum(map(len, drafts)),
            committed=sum(len(answer.tokens) for answer in emitted),
            taken=taken,
            draft_s=t1 - t0,
            check_s=t2 - t1,
            rest_s=clock() - t2,
            emitted=emitted,
        )

    def _draft(self, rows: Sequence[Row], nodes: int) -> list[Draft]:
        """A draft for each row, no deeper than what it may still answer."""
        if not self.drafting or not nodes:
            return [Draft()] * len(rows)
        hidden = torch.stack([row.hidden for row in rows if row.hidden is not None])  # (B, D)
        slots, texts = [row.slot for row in rows], [row.tokens for row in rows]
        drafts = self.drafting.draft(slots, texts, hidden, nodes)
        return [draft.no_deeper(row.left - 1) for row, draft in zip(rows, drafts, strict=True)]

    def _verify(
        self, out: Output, rows: Sequence[Row], drafts: Sequence[Draft]
    ) -> list[tuple[tuple[int, ...], int]]:
        """The accepted path and the token after it, for each row."""
        if not any(map(len, drafts)) and all(row.sampling.greedy for row in rows):
            return [((), token) for token in out.logits.argmax(-1).tolist()]
        found = []
        first = 0
        for row, draft in zip(rows, drafts, strict=True):
            logits = out.logits[first : first + len(draft) + 1]
            first += len(draft) + 1
            verdict = greedy(self._scores(row, logits, draft), draft)
            found.append((verdict.path, verdict.token))
        return found

    def _scores(self, row: Row, logits: torch.Tensor, draft: Draft) -> torch.Tensor:
        """What the row takes the largest of, after the root and each node: (N + 1, V)."""
        if row.sampling.greedy:
            return logits
        at = len(row.tokens) - len(row.prompt)
        places = [at, *(at + depth for depth in draft.depths)]
        return sampled_scores(row.sampling.probabilities(logits), row.seed, places)

    def _commit(
        self,
        out: Output,
        rows: Sequence[Row],
        drafts: Sequence[Draft],
        verdicts: Sequence[tuple[tuple[int, ...], int]],
    ) -> tuple[tuple[Emitted, ...], tuple[int, ...]]:
        """Keep the accepted paths; count the accepted nodes by rank."""
        taken = [0] * self.max_nodes
        lasts = []
        first = 0
        for row, draft, (path, _) in zip(rows, drafts, verdicts, strict=True):
            self.cache.commit([0, *(node + 1 for node in path)], row.slot)
            lasts.append(first + (path[-1] + 1 if path else 0))
            first += len(draft) + 1
            if path:
                places = draft.ranks()
                for node in path:
                    taken[places[node]] += 1
        hidden = out.hidden[lasts]  # (B, D), a copy: the engine overwrites its own
        emitted = tuple(
            self._emit(row, [*(draft.tokens[node] for node in path), token], z)
            for row, draft, (path, token), z in zip(rows, drafts, verdicts, hidden, strict=True)
        )
        return emitted, tuple(taken)

    def _emit(self, row: Row, tokens: Sequence[int], hidden: torch.Tensor) -> Emitted:
        """Append what the row gets, up to an end token or its limit; there it leaves."""
        kept: list[int] = []
        ended = False
        for token in tokens[: row.left]:
            kept.append(token)
            if token in self.eos_ids:
                ended = True
                break
        row.tokens += kept
        row.hidden = hidden
        ended = ended or row.left == 0
        if ended:
            self.leave(row)
        return Emitted(row, tuple(kept), ended)


def sampled_scores(probs: torch.Tensor, seed: int, places: Sequence[int]) -> torch.Tensor:
    """Scores whose largest is a draw from each row of ``probs`` (N, V).

    The largest of log p + Gumbel noise is a draw from p. The noise depends on nothing but the
    request's seed and the place (N,) of the token in its output, so what is drawn does not depend
    on who drafted, how much, or whether at all (Daliri et al. 2024): sampled answers are the same
    alone and in a batch, as greedy ones are.
    """
    noise = {
        place: torch.from_numpy(gumbel(seed, place, probs.shape[-1])).to(probs)
        for place in set(places)
    }
    return probs.log() + torch.stack([noise[place] for place in places])


def gumbel(seed: int, place: int, count: int) -> np.ndarray:
    """``count`` numbers of Gumbel's distribution, the same for the same seed and place."""
    key = np.random.Philox(key=np.array([seed % 2**64, place], np.uint64))
    return -np.log(np.random.Generator(key).standard_exponential(count))
