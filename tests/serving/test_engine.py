"""The engine: order, refusals, cancelling, and answers that do not depend on the company."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Literal

import psutil
import pytest

from labkit.errors import LabkitError
from labkit.kernels.engine import Output, Rows
from labkit.sampling import Sampling
from labkit.serving.costs import Measured, measure_acceptance, node_table
from labkit.serving.engine import Request, ServingEngine
from labkit.speculative.batch import Batch, Drafting
from labkit.speculative.generate import generate
from labkit.speculative.tree import Draft
from tests.speculative.fakes import Planned, ToyCache, ToyEngine


class GatedEngine(ToyEngine):
    """A toy engine whose every pass waits for the test's leave, once ``gated``."""

    def __init__(self) -> None:
        super().__init__()
        self.gated = False
        self.leave = threading.Semaphore(0)
        self.broken = False
        self.allocated = 0

    def new_cache(self, capacity: int, slots: int = 1) -> ToyCache:
        self.allocated += 1
        return super().new_cache(capacity, slots)

    def forward(
        self,
        rows: Sequence[Rows],
        cache: ToyCache,
        logits: Literal["all", "last"] = "all",
        layers: Sequence[int] = (),
    ) -> Output:
        if self.gated:
            self.leave.acquire()
        if self.broken:
            raise ZeroDivisionError("a bug")
        return super().forward(rows, cache, logits)

    def open(self) -> None:
        """Let every pass from now on through."""
        self.gated = False
        self.leave.release(100)


@pytest.fixture
def toy() -> Iterator[GatedEngine]:
    made = GatedEngine()
    yield made
    made.open()


def engine_on(
    toy: GatedEngine,
    eos_ids: Collection[int] = (),
    drafting: Drafting | None = None,
    slots: int = 8,
    capacity: int = 512,
    nodes: int | None = None,
    line: int = 256,
) -> ServingEngine:
    """An engine on a toy; without a number of nodes, speculation goes by a measured table."""
    batch = Batch(toy, slots, capacity, eos_ids, drafting)
    if drafting and nodes is None:
        return ServingEngine(batch, node_table(batch), line)
    return ServingEngine(batch, nodes or 0, line)


@contextlib.contextmanager
def serving(toy: GatedEngine, *given: Any, **settings: Any) -> Iterator[ServingEngine]:
    """An engine that closes even where the test fails while it waits for the gate."""
    engine = engine_on(toy, *given, **settings)
    try:
        yield engine
    finally:
        toy.open()
        engine.close()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for another thread to have done something; never for a set time."""
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("what was waited for did not happen")


def drafting(toy: ToyEngine) -> Drafting:
    return Drafting(lambda: Planned(toy, 3, lambda step: step % 4, decoys=1))


def test_outputs_stream_as_they_come_and_make_up_the_result(toy: GatedEngine) -> None:
    with serving(toy, slots=2, capacity=60, drafting=drafting(toy), nodes=6) as engine:
        request = engine.submit([1, 2], 20)
        pieces = list(request)
        assert [t for piece in pieces for t in piece.tokens] == toy.greedy([1, 2], 20)
        assert request.result() == toy.greedy([1, 2], 20)
        assert len(pieces[0].tokens) == 1, "the first token comes from reading the prompt"
        assert max(len(piece.tokens) for piece in pieces) == 4
        moments = [request.submitted, *(piece.at for piece in pieces)]
        assert moments == sorted(moments)
        assert request.state == "finished"
        assert list(request) == pieces, "a second look finds the same outputs"


def test_a_first_token_does_not_wait_for_the_step_to_end(toy: GatedEngine) -> None:
    with serving(toy, slots=1, capacity=60) as engine:
        toy.gated = True
        request = engine.submit([1, 2], 2)
        toy.leave.release()
        assert next(iter(request)).tokens == tuple(toy.greedy([1, 2], 1))
        assert request.state == "running"
        toy.open()
        assert request.result() == toy.greedy([1, 2], 2)


@pytest.mark.parametrize("speculative", [False, True])
def test_many_at_once_are_answered_as_alone_or_refused_and_the_cancelled_harm_nobody(
    toy: GatedEngine, speculative: bool
) -> None:
    made = drafting(toy) if speculative else None
    nodes = 6 if speculative else None
    prompts = [[i % 11, (i * 7) % 11, i % 5] for i in range(200)]
    requests: list[Request] = []
    with serving(toy, (), made, slots=5, capacity=40, line=100, nodes=nodes) as engine:
        toy.gated = True
        for number, prompt in enumerate(prompts):
            with contextlib.suppress(LabkitError):
                requests.append(engine.submit(prompt, 12, seed=number))
        assert len(requests) == 105
        with pytest.raises(LabkitError, match="5 slots are taken and 100 requests wait"):
            engine.submit([1], 12)
        readers = [threading.Thread(target=request.result) for request in requests]
        for reader in readers:
            reader.start()
        toy.leave.release(4)  # two steps, so that the first five have two or three tokens
        wait_until(lambda: all(len(request.tokens) >= 2 for request in requests[:5]))
        for request in requests[::3]:
            request.cancel()
        toy.open()
        for reader in readers:
            reader.join()
        engine.drain()
        assert len(engine.batch.free) == 5
        assert not engine._waiting
        assert engine.submit([1], 5).result() == toy.greedy([1], 5)
    for index, request in enumerate(requests):
        alone = toy.greedy(request.prompt, 12)
        if index % 3:
            assert request.state == "finished"
            assert request.tokens == alone
        else:
            assert request.tokens == alone[: len(request.tokens)]
    assert all(0 < len(requests[index].tokens) < 12 for index in (0, 3)), "cancelled midway"
    assert [r.state for r in requests[::3]] == ["cancelled"] * 35


def test_the_cache_is_allocated_once_however_many_come(toy: GatedEngine) -> None:
    with serving(toy, slots=2, capacity=40) as engine:
        before = toy.allocated
        for _ in range(3):
            for request in [engine.submit([i], 5) for i in range(8)]:
                request.result()
        assert before == toy.allocated == 1


def test_nothing_of_an_answered_or_cancelled_request_is_kept(toy: GatedEngine) -> None:
    with serving(toy, slots=2, capacity=40) as engine:
        toy.gated = True
        given_up, *others = [engine.submit([i], 5) for i in range(6)]
        while given_up.state != "running":
            time.sleep(0.01)
        given_up.cancel()
        toy.open()
        for request in others:
            request.result()
        engine.drain()
        seen = [weakref.ref(request) for request in (given_up, *others)]
        del given_up, others, request
        wait_until(lambda: gc.collect() >= 0 and not any(ref() for ref in seen))


def test_those_who_wait_are_served_in_the_order_in_which_they_came(toy: GatedEngine) -> None:
    with serving(toy, slots=1, capacity=40) as engine:
        toy.gated = True
        requests = [engine.submit([i], 3) for i in range(6)]
        wait_until(lambda: len(engine.batch.free) == 0)
        assert [request.state for request in requests] == ["running"] + ["waiting"] * 5
        toy.open()
        for request in requests:
            request.result()
        ends = [list(request)[-1].at for request in requests]
        assert ends == sorted(ends)


def test_a_place_in_the_line_that_is_given_up_is_somebody_elses(toy: GatedEngine) -> None:
    with serving(toy, slots=1, capacity=40, line=1) as engine:
        toy.gated = True
        running = engine.submit([1], 8)
        wait_until(lambda: running.state == "running")
        waiting = engine.submit([2], 3)
        with pytest.raises(LabkitError, match="1 slots are taken and 1 requests wait"):
            engine.submit([3], 3)
        waiting.cancel()
        assert waiting.state == "cancelled"
        assert waiting.result() == []
        third = engine.submit([3], 3)
        running.cancel()
        toy.open()
        assert third.result() == toy.greedy([3], 3)
        assert running.result() == toy.greedy([1], 8)[: len(running.tokens)]
        assert running.state == "cancelled"


def test_closing_ends_every_request_and_refuses_new_ones(toy: GatedEngine) -> None:
    engine = engine_on(toy, slots=1, capacity=40)
    toy.gated = True
    running, waiting = engine.submit([1], 30), engine.submit([2], 3)
    wait_until(lambda: running.state == "running")
    closer = threading.Thread(target=engine.close)
    closer.start()
    wait_until(lambda: engine._closing)
    toy.open()
    closer.join()
    assert running.state == waiting.state == "cancelled"
    assert waiting.result() == []
    assert len(engine.batch.free) == 1
    with pytest.raises(LabkitError, match="The engine is closed"):
        engine.submit([1], 3)
    engine.close()


def test_a_bug_in_the_model_reaches_everyone_who_waits_for_it(toy: GatedEngine) -> None:
    engine = engine_on(toy, slots=1, capacity=40)
    toy.gated = True
    running, waiting = engine.submit([1], 30), engine.submit([2], 3)
    wait_until(lambda: running.state == "running")
    toy.broken = True
    toy.open()
    for request in (running, waiting):
        with pytest.raises(LabkitError, match=r"stopped on an error .* a bug"):
            request.result()
        assert request.state == "failed"
    with pytest.raises(LabkitError, match="a bug"):
        engine.submit([1], 3)
    assert isinstance(engine.failure and engine.failure.__cause__, ZeroDivisionError)
    engine.drain()
    engine.close()


def test_sampled_answers_are_the_same_alone_and_in_company(toy: GatedEngine) -> None:
    warm = Sampling(temperature=1.3)
    with serving(toy, slots=1, capacity=40) as alone:
        expected = [alone.submit([i], 15, warm, seed=i).result() for i in range(6)]
    assert len({tuple(output) for output in expected}) == 6
    with serving(toy, drafting=drafting(toy), slots=4, capacity=40, nodes=6) as engine:
        requests = [engine.submit([i], 15, warm, seed=i) for i in range(6)]
        assert [request.result() for request in requests] == expected
        assert engine.submit([0], 15, warm, seed=77).result() != expected[0]


def test_totals_count_what_was_drafted_and_committed(toy: GatedEngine) -> None:
    made = Drafting(lambda: Planned(toy, 3, lambda _: 1))
    with serving(toy, drafting=made, slots=1, capacity=60, nodes=3) as engine:
        start = engine.totals
        engine.submit([1], 21).result()
        engine.drain()
        wait_until(lambda: (engine.totals - start)["committed"] == 20)
        done = engine.totals - start
        assert done["row_steps"] == 10
        assert done["drafted"] == 3 * 9 + 1
        assert engine.table is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"line": -1}, "line's length is -1"),
        ({"nodes": 1}, "1 nodes a row were asked for: give 0 to 0"),
        ({"slots": 0}, "at least 1 slot"),
        ({"capacity": 1}, "at least 2 tokens"),
    ],
)
def test_an_engine_that_could_not_serve_is_refused(
    toy: GatedEngine, settings: dict[str, int], said: str
) -> None:
    with pytest.raises(LabkitError, match=said):
        engine_on(toy, **settings)


def test_measuring_covers_every_kind_of_step_and_leaves_the_batch_as_it_was(
    toy: GatedEngine,
) -> None:
    batch = Batch(toy, 3, 40, {4}, drafting(toy))
    pace = batch.pace
    table = node_table(batch)
    costs = table.costs
    assert isinstance(costs, Measured)
    assert {1, 2, 3, 1 + 6, 3 * (1 + 6)} <= set(costs.check.sizes)
    assert {1, 6, 18} <= set(costs.draft.sizes)
    assert set(costs.prefill.sizes) == {1, 8, 16, 32}
    assert (batch.eos_ids, batch.pace, batch.running) == ({4}, pace, [])
    with ServingEngine(batch, table) as engine:
        assert len(engine.batch.free) == 3
        assert engine.submit([1], 12).result() == generate(toy, [1], 12, eos_ids={4}).tokens


@pytest.mark.parametrize("right", [0, 2, 4])
def test_acceptance_is_measured_by_rank(toy: GatedEngine, right: int) -> None:
    made = Drafting(lambda: Planned(toy, 4, lambda _: right))
    batch = Batch(toy, 2, 400, (), made)
    chances, drafted = measure_acceptance(batch, [[1, 2], [3]])
    assert chances == pytest.approx([1.0] * right + [0.0] * (4 - right))
    assert drafted == 1
    assert batch.running == []


def test_a_drafter_that_seldom_drafts_is_charged_for_what_it_drafts_only(toy: GatedEngine) -> None:
    class Seldom(Planned):
        def draft(self, *given: Any) -> Draft:
            draft = super().draft(*given)
            return draft if self.steps % 4 == 0 else Draft()

    batch = Batch(toy, 2, 400, (), Drafting(lambda: Seldom(toy, 4, lambda _: 4)))
    chances, drafted = measure_acceptance(batch, [[1, 2], [3]])
    assert chances == pytest.approx([0.25] * 4)
    assert drafted == pytest.approx(0.25)


def test_memory_comes_back_once_a_crowd_has_gone(toy: GatedEngine) -> None:
    """The process may grow by a few MB for its threads and lists, not with each request."""
    with serving(toy, slots=4, capacity=40) as engine:

        def crowd() -> int:
            for request in [engine.submit([i % 11, i % 7], 6) for i in range(120)]:
                request.result()
            engine.drain()
            gc.collect()
            return psutil.Process().memory_info().rss

        first = crowd()
        assert max(crowd() for _ in range(3)) - first < 20e6
