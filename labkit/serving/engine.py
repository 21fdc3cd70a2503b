"""The engine that many users share: requests come and go at any step, one thread decodes them all::

    with ServingEngine.of(decoder, "mlp", slots=4) as engine:
        requests = [engine.submit(decoder.base.encode(prompt), 32) for prompt in prompts]
        for piece in requests[0]:
            print(decoder.base.decode(piece.tokens))

It is the measuring instrument of a lesson: no network, no users' accounts, no fairness but the
order of arrival. See `labkit.serving` for what to use in production.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Literal

import numpy as np

from labkit.errors import LabkitError
from labkit.kernels.engine import Engine
from labkit.sampling import Sampling
from labkit.serving.batch import Batch, Emitted, Fixed, Pace, Row, Step
from labkit.serving.costs import Curve, Measured, budgets
from labkit.serving.drafting import Drafting, drafting_for
from labkit.serving.switch import Decision, Switch

if TYPE_CHECKING:
    from labkit.speculative.decoder import Decoder

State = Literal["waiting", "running", "finished", "cancelled", "failed"]
OVER: tuple[State, ...] = ("finished", "cancelled", "failed")

WAITING_LINE = 256
"""Requests that may wait for a slot unless told otherwise."""

PROMPTS_MEASURED = (1, 8, 16, 32, 64)
"""Prompt tokens of a chunk whose reading is measured."""

ROWS_MEASURED = 128
"""The largest pass that is measured; beyond it the costs are a straight line."""

KEPT_STEPS = 10_000
"""Steps of which an engine remembers how they went."""


class QueueFullError(LabkitError):
    """The waiting line is full, so a request was refused."""


@dataclass(frozen=True)
class Piece:
    """One streamed output: its tokens, and when they were ready (`time.perf_counter`)."""

    tokens: tuple[int, ...]
    at: float


class Request:
    """A user's request: iterate over it to get outputs as they come; may be used by any thread."""

    def __init__(
        self,
        prompt: Sequence[int],
        max_new_tokens: int,
        sampling: Sampling,
        seed: int,
        on_cancel: Callable[[Request], None],
    ) -> None:
        self.prompt = tuple(prompt)
        self.max_new_tokens = max_new_tokens
        self.sampling, self.seed = sampling, seed
        self.submitted = time.perf_counter()
        self._on_cancel = on_cancel
        self._changed = threading.Condition()
        self._state: State = "waiting"
        self._pieces: list[Piece] = []
        self._failure: LabkitError | None = None

    def __repr__(self) -> str:
        return f"Request({len(self.prompt)} tokens, {self._state}, {len(self.tokens)} answered)"

    @property
    def state(self) -> State:
        """Where the request stands now."""
        return self._state

    @property
    def tokens(self) -> list[int]:
        """The tokens answered so far."""
        with self._changed:
            return [token for piece in self._pieces for token in piece.tokens]

    def __iter__(self) -> Iterator[Piece]:
        """Each output as soon as it is there; ends with the answer, or where it was cancelled.

        Raises `LabkitError` if the engine failed. Every iteration starts from the first output.
        """
        place = 0
        while True:
            with self._changed:
                while len(self._pieces) == place and self._state not in OVER:
                    self._changed.wait()
                new = self._pieces[place:]
            if not new:
                break
            place += len(new)
            yield from new
        if self._failure:
            raise self._failure

    def result(self) -> list[int]:
        """Wait for the answer; its tokens, or those before it was cancelled."""
        for _ in self:
            pass
        return self.tokens

    def cancel(self) -> None:
        """Give up the answer; its slot is free before the engine's next step."""
        self._on_cancel(self)

    def settle(self, state: State, failure: LabkitError | None = None) -> None:
        """The engine's word on where the request stands; what is over stays over."""
        with self._changed:
            if self._state not in OVER:
                self._state, self._failure = state, failure
            self._changed.notify_all()

    def deliver(self, tokens: tuple[int, ...], at: float, ended: bool) -> None:
        """The engine's outputs for the request."""
        with self._changed:
            self._pieces.append(Piece(tokens, at))
            if ended and self._state not in OVER:
                self._state = "finished"
            self._changed.notify_all()


@dataclass(frozen=True)
class Totals:
    """What an engine did so far: sums over its steps.

    ``row_steps`` counts a step once for each row that it answered, so tokens per step of one
    request is ``committed / row_steps``.
    """

    steps: int = 0
    row_steps: int = 0
    drafted: int = 0
    committed: int = 0

    def __sub__(self, earlier: Totals) -> Totals:
        return Totals(
            self.steps - earlier.steps,
            self.row_steps - earlier.row_steps,
            self.drafted - earlier.drafted,
            self.committed - earlier.committed,
        )

    def plus(self, step: Step) -> Totals:
        """The sums with one more step."""
        return Totals(
            self.steps + 1,
            self.row_steps + step.batch,
            self.drafted + step.drafted,
            self.committed + step.committed,
        )


class ServingEngine:
    """Serves requests on one base model with continuous batching; `submit` from any thread.

    ``engine`` is the base model's forward pass; ``drafting`` makes it speculative (None: vanilla).
    ``slots`` requests are answered at once, each of at most ``capacity`` tokens, prompt and output
    together; the cache for all of them is allocated here, once. ``line`` requests may wait, in
    their order; the next is refused. ``nodes`` fixes how much is drafted after each row; None
    leaves it to a `Switch`, which first measures what steps take here.
    """

    def __init__(
        self,
        engine: Engine,
        eos_ids: Collection[int] = (),
        drafting: Drafting | None = None,
        slots: int = 8,
        capacity: int = 512,
        line: int = WAITING_LINE,
        nodes: int | None = None,
    ) -> None:
        if line < 0:
            raise LabkitError(f"The waiting line's length is {line}: give 0 or more.")
        if nodes is not None and not 0 <= nodes <= (drafting.max_nodes if drafting else 0):
            most = drafting.max_nodes if drafting else 0
            raise LabkitError(f"{nodes} nodes a row were asked for: give 0 to {most}.")
        self._batch = Batch(engine, slots, capacity, eos_ids, drafting)
        self._batch.pace = self._pace(nodes)
        self.slots, self.capacity, self.line = slots, capacity, line
        self.steps: deque[Step] = deque(maxlen=KEPT_STEPS)
        self.totals = Totals()
        self._waiting: deque[Request] = deque()
        self._rows: dict[Row, Request] = {}
        self._cancelled: set[Request] = set()
        self._changed = threading.Condition()
        self._closing = False
        self._failure: LabkitError | None = None
        self._thread = threading.Thread(target=self._run, name="labkit serving", daemon=True)
        self._thread.start()

    @classmethod
    def of(
        cls,
        decoder: Decoder,
        method: str = "mlp",
        slots: int = 8,
        capacity: int = 512,
        line: int = WAITING_LINE,
        nodes: int | None = None,
    ) -> ServingEngine:
        """An engine for a decoder's base model by one of its methods."""
        drafting = drafting_for(lambda: decoder.drafter(method))
        capacity = min(capacity, decoder.base.context)
        return cls(decoder.engine, decoder.base.eos_ids, drafting, slots, capacity, line, nodes)

    def _pace(self, nodes: int | None) -> Pace:
        drafting = self._batch.drafting
        if drafting is None:
            return Fixed(0)
        if nodes is not None:
            return Fixed(nodes)
        return Switch(drafting.max_nodes, measure_costs(self._batch))

    def __enter__(self) -> ServingEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def failure(self) -> LabkitError | None:
        """What stopped the engine, if anything did."""
        return self._failure

    @property
    def switch(self) -> Switch | None:
        """What decides how much is drafted; None where that is fixed."""
        return self._batch.pace if isinstance(self._batch.pace, Switch) else None

    @property
    def decisions(self) -> list[Decision]:
        """The switch's changes of mind, in order."""
        return list(self.switch.decisions) if self.switch else []

    @property
    def free_slots(self) -> int:
        """Slots that no request holds."""
        with self._changed:
            return len(self._batch.free)

    @property
    def waiting(self) -> int:
        """Requests in the waiting line."""
        with self._changed:
            return len(self._waiting)

    def submit(
        self,
        prompt: Sequence[int],
        max_new_tokens: int = 64,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> Request:
        """Ask for a continuation of ``prompt`` (token ids); returns at once.

        Its output is what it would be alone, greedy or sampled by ``seed``. Raises
        `QueueFullError` where slots and line are full, and `LabkitError` for a request that no
        slot could serve, or once the engine is closed.
        """
        sampling = sampling or Sampling()
        self._batch.check(prompt, max_new_tokens, sampling)
        request = Request(prompt, max_new_tokens, sampling, seed, self._cancel)
        with self._changed:
            if self._failure or self._closing:
                raise self._failure or LabkitError("The engine is closed: start another.")
            if len(self._waiting) >= self.line + len(self._batch.free):
                raise QueueFullError(
                    f"The engine is full: {self.slots} slots are taken and {self.line} requests "
                    "wait, as many as may: try again later."
                )
            self._waiting.append(request)
            self._changed.notify_all()
        return request

    def drain(self) -> None:
        """Wait until every request so far is over and its slot free."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._rows)

    def close(self) -> None:
        """Cancel what is not answered yet and stop; harmless when done twice."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _cancel(self, request: Request) -> None:
        with self._changed:
            if request in self._waiting:
                self._waiting.remove(request)
                request.settle("cancelled")
            elif request.state == "running":
                self._cancelled.add(request)

    def _run(self) -> None:
        """The engine's thread: let requests in and out, then take a step; until closed."""
        try:
            while self._arrange():
                step = self._batch.step(self._deliver)
                self.steps.append(replace(step, emitted=()))
                self.totals = self.totals.plus(step)
        except Exception as error:  # whatever it was, nobody may wait for ever
            reason = f"The engine stopped on an error ({type(error).__name__}: {error})."
            self._failure = LabkitError(reason)
            self._failure.__cause__ = error
        self._finish()

    def _arrange(self) -> bool:
        """Let requests out and in, waiting for some if need be; False once it is to close."""
        with self._changed:
            while not self._closing:
                self._let_out()
                self._let_in()
                if self._rows:
                    return True
                self._changed.notify_all()  # to whoever waits for the last to go
                self._changed.wait()
            return False

    def _let_out(self) -> None:
        """Free the slots of those who cancelled."""
        for row, request in list(self._rows.items()):
            if request in self._cancelled:
                self._batch.leave(row)
                del self._rows[row]
                request.settle("cancelled")
        self._cancelled.clear()

    def _let_in(self) -> None:
        """Give free slots to those who wait, in their order."""
        while self._waiting and self._batch.free:
            request = self._waiting.popleft()
            row = self._batch.join(
                request.prompt, request.max_new_tokens, request.sampling, request.seed
            )
            self._rows[row] = request
            request.settle("running")

    def _deliver(self, emitted: Emitted) -> None:
        """Give a request what the batch had for it."""
        request = self._rows[emitted.row]
        request.deliver(emitted.tokens, time.perf_counter(), emitted.ended)
        if emitted.ended:
            with self._changed:
                del self._rows[emitted.row]

    def _finish(self) -> None:
        """Tell every request that is not answered that it will not be, and free the slots."""
        state: State = "failed" if self._failure else "cancelled"
        with self._changed:
            for row, request in self._rows.items():
                if row in self._batch.running:
                    self._batch.leave(row)
                request.settle(state, self._failure)
            for request in self._waiting:
                request.settle(state, self._failure)
            self._rows.clear()
            self._waiting.clear()
            self._changed.notify_all()


def measure_costs(batch: Batch, seed: int = 0, repeats: int = 4) -> Measured:
    """Measure what steps of a batch take here, on made-up requests; leaves the batch empty.

    All kinds of step take turns, ``repeats`` times, and of each the fastest counts: something may
    be compiled the first time, and other processes can only make a step slower. Takes a few
    seconds on a small model.
    """
    rng = np.random.default_rng(seed)
    length = min(32, batch.capacity // 2)
    counts = sorted({*(count for count in budgets(batch.slots) if count), batch.slots})
    pace, eos_ids = batch.pace, batch.eos_ids
    batch.eos_ids = frozenset()  # a made-up request runs to its limit
    prefill: dict[int, float] = {}
    steps: dict[tuple[int, int], Step] = {}

    def join(tokens: int) -> None:
        prompt = rng.integers(0, batch.engine.vocabulary, tokens).tolist()
        batch.join(prompt, batch.capacity - tokens)

    def leave(rows: Sequence[Row]) -> None:
        for row in rows:
            batch.leave(row)

    try:
        for _ in range(repeats):
            for tokens in PROMPTS_MEASURED:
                if tokens < batch.capacity:
                    join(tokens)
                    seconds = batch.step().prefill_s
                    prefill[tokens] = min(seconds, prefill.get(tokens, seconds))
                    leave(batch.running[:])
            for count, nodes in product(counts, budgets(batch.max_nodes)):
                if nodes and count * (1 + nodes) > ROWS_MEASURED:
                    continue
                batch.pace = Fixed(nodes)
                leave([row for row in batch.running if row.left < row.limit / 2])  # trees get cut
                while len(batch.running) < count:
                    join(length)
                step = batch.step()
                known = steps.get((count, nodes), step)
                steps[count, nodes] = min(step, known, key=_answering_s)
            leave(batch.running[:])
    finally:
        leave(batch.running[:])
        batch.pace, batch.eos_ids = pace, eos_ids
    check: dict[int, list[float]] = {}
    draft: dict[int, list[float]] = {}
    for step in steps.values():
        check.setdefault(step.rows, []).append(step.check_s + step.rest_s)
        if step.drafted:
            draft.setdefault(step.drafted, []).append(step.draft_s)
    return Measured(
        Curve(prefill),
        Curve({rows: float(np.mean(seconds)) for rows, seconds in check.items()}),
        Curve({nodes: float(np.mean(seconds)) for nodes, seconds in draft.items()} or {1: 0.0}),
    )


def _answering_s(step: Step) -> float:
    return step.draft_s + step.check_s + step.rest_s
