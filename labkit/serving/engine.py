"""The engine that many users share: requests come and go at any step, one thread decodes all::

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
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from labkit.errors import LabkitError
from labkit.sampling import Sampling
from labkit.serving.costs import NodeTable, node_table
from labkit.speculative.batch import Batch, Emitted, Row, drafting_for
from labkit.speculative.calibrate import PROMPTS

if TYPE_CHECKING:
    from labkit.speculative.decoder import Decoder

State = Literal["waiting", "running", "finished", "cancelled", "failed"]
OVER: tuple[State, ...] = ("finished", "cancelled", "failed")


@dataclass(frozen=True)
class Piece:
    """One streamed output: its tokens, and when they were ready (`time.perf_counter`)."""

    tokens: tuple[int, ...]
    at: float


@dataclass(eq=False)
class Request:
    """A user's request: iterate over it to get outputs as they come; may be used by any thread.

    ``submitted`` is when it was made (`time.perf_counter`).
    """

    prompt: tuple[int, ...]
    max_new_tokens: int
    sampling: Sampling
    seed: int
    on_cancel: Callable[[Request], None] = field(repr=False)
    submitted: float = field(default_factory=time.perf_counter)
    state: State = "waiting"
    _pieces: list[Piece] = field(default_factory=list, repr=False)
    _failure: LabkitError | None = field(default=None, repr=False)
    _changed: threading.Condition = field(default_factory=threading.Condition, repr=False)

    @property
    def tokens(self) -> list[int]:
        """The tokens answered so far."""
        with self._changed:
            return [token for piece in self._pieces for token in piece.tokens]

    def __iter__(self) -> Iterator[Piece]:
        """Iterate over the outputs as they come, up to the end of the answer or a cancellation.

        Raises `LabkitError` if the engine failed. Every iteration starts from the first output.
        """
        place = 0
        while True:
            with self._changed:
                while len(self._pieces) == place and self.state not in OVER:
                    self._changed.wait()
                new = self._pieces[place:]
            if not new:
                break
            place += len(new)
            yield from new
        if self._failure:
            raise self._failure

    def result(self) -> list[int]:
        """Wait for the answer and return its tokens (if it was cancelled, those before)."""
        return [token for piece in self for token in piece.tokens]

    def cancel(self) -> None:
        """Cancel the request; its slot is free before the engine's next step."""
        self.on_cancel(self)

    def deliver(self, tokens: tuple[int, ...], at: float) -> None:
        """Add an output, unless the request is over. Called by the engine."""
        with self._changed:
            if self.state not in OVER:
                self._pieces.append(Piece(tokens, at))
            self._changed.notify_all()

    def settle(self, state: State, failure: LabkitError | None = None) -> None:
        """Set the state, unless the request is over. Called by the engine."""
        with self._changed:
            if self.state not in OVER:
                self.state, self._failure = state, failure
            self._changed.notify_all()


class ServingEngine(AbstractContextManager["ServingEngine"]):
    """Serves requests on one base model with continuous batching; `submit` from any thread.

    ``batch`` decodes: as many requests at once as it has slots, the cache for all of them allocated
    once. ``line`` requests may wait, in their order; the next is refused. ``nodes`` is how much is
    drafted after each row, a number for any load or a `NodeTable` (see `node_table`). ``totals``
    sums the steps: ``row_steps`` counts a step once for each row that it answered, so the tokens
    per step of one request are ``committed`` / ``row_steps``. ``failure`` is the error that stopped
    the engine, if one did.
    """

    def __init__(self, batch: Batch, nodes: int | NodeTable = 0, line: int = 256) -> None:
        if line < 0:
            raise LabkitError(f"The waiting line's length is {line}: give 0 or more.")
        if not isinstance(nodes, NodeTable) and not 0 <= nodes <= batch.max_nodes:
            raise LabkitError(f"{nodes} nodes a row were asked for: give 0 to {batch.max_nodes}.")
        self.table = nodes if isinstance(nodes, NodeTable) else None
        self.batch, self.line = batch, line
        batch.pace = nodes.nodes if isinstance(nodes, NodeTable) else lambda _: nodes
        self.totals: Counter[str] = Counter()
        self.failure: LabkitError | None = None
        self._waiting: deque[Request] = deque()
        self._rows: dict[Row, Request] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="labkit serving", daemon=True)
        self._thread.start()

    @classmethod
    def of(
        cls,
        decoder: Decoder,
        method: str = "mlp",
        slots: int = 8,
        capacity: int = 512,
        nodes: int | None = None,
    ) -> ServingEngine:
        """Return an engine for a decoder's base model by one of its methods.

        ``nodes`` are drafted after each row; None measures first how many are best at which load
        (see `node_table`).
        """
        base, drafting = decoder.base, drafting_for(lambda: decoder.drafter(method))
        room = min(capacity, base.context)
        batch = Batch(decoder.engine, slots, room, base.eos_ids, drafting)
        if drafting and nodes is None:
            return cls(batch, node_table(batch, [base.encode(text) for text in PROMPTS]))
        return cls(batch, nodes or 0)

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(
        self,
        prompt: Sequence[int],
        max_new_tokens: int = 64,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> Request:
        """Request a continuation of ``prompt`` (token ids); returns at once.

        Its output is what it would be alone, greedy or sampled by ``seed``. Raises `LabkitError`
        if slots and line are full, for a request that no slot could serve, and after the engine was
        closed.
        """
        sampling = sampling or Sampling()
        self.batch.check(prompt, max_new_tokens, sampling)
        request = Request(tuple(prompt), max_new_tokens, sampling, seed, self._cancel)
        with self._changed:
            if self.failure or self._closing:
                raise self.failure or LabkitError("The engine is closed: start another.")
            if len(self._waiting) >= self.line + len(self.batch.free):
                raise LabkitError(
                    f"The engine is full: {self.batch.slots} slots are taken and {self.line} "
                    "requests wait, as many as may: try again later."
                )
            self._waiting.append(request)
            self._changed.notify_all()
        return request

    def drain(self) -> None:
        """Wait until every request so far is over and its slot free."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._rows)

    def close(self) -> None:
        """Cancel all unanswered requests and stop; a second call does nothing."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _cancel(self, request: Request) -> None:
        with self._changed:
            if request in self._waiting:
                self._waiting.remove(request)
            request.settle("cancelled")

    def _run(self) -> None:
        """Run the engine's thread: let requests join and leave, then take a step, until closed.

        In the end no request is left unanswered, and all slots are free.
        """
        try:
            while self._arrange():
                step = self.batch.step(self._deliver)
                self.totals = self.totals + Counter(  # a new one: others hold the old sums
                    row_steps=step.batch, drafted=step.drafted, committed=step.committed
                )
        except Exception as error:  # of any kind: no request may wait for ever
            reason = f"The engine stopped on an error ({type(error).__name__}: {error})."
            self.failure = LabkitError(reason)
            self.failure.__cause__ = error
        state: State = "failed" if self.failure else "cancelled"
        with self._changed:
            for row in self._rows:
                if row in self.batch.running:
                    self.batch.leave(row)
            for request in (*self._rows.values(), *self._waiting):
                request.settle(state, self.failure)
            self._rows.clear()
            self._waiting.clear()
            self._changed.notify_all()

    def _arrange(self) -> bool:
        """Let requests leave and join, wait if there are none; return False to close."""
        with self._changed:
            while not self._closing:
                for row, request in list(self._rows.items()):
                    if request.state == "cancelled":
                        self.batch.leave(row)
                        del self._rows[row]
                while self._waiting and self.batch.free:
                    request = self._waiting.popleft()
                    row = self.batch.join(
                        request.prompt, request.max_new_tokens, request.sampling, request.seed
                    )
                    self._rows[row] = request
                    request.settle("running")
                if self._rows:
                    return True
                self._changed.notify_all()  # wakes drain()
                self._changed.wait()
            return False

    def _deliver(self, emitted: Emitted) -> None:
        """Pass the batch's output on to its request."""
        request = self._rows[emitted.row]
        request.deliver(emitted.tokens, time.perf_counter())
        if emitted.ended:
            request.settle("finished")
            with self._changed:
                del self._rows[emitted.row]
