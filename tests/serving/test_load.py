"""The load: users who wait and users who do not, and the definitions of what they felt."""

from __future__ import annotations

import threading
import time
from collections import Counter

import numpy as np
import pytest

from labkit.errors import LabkitError
from labkit.serving.engine import ServingEngine
from labkit.serving.load import Answer, Load, closed_loop, open_loop, spread, summarise
from labkit.serving.targets import EngineTarget
from labkit.speculative.batch import Batch
from tests.speculative.fakes import ToyEngine


class Desk:
    """A target that answers at once, and remembers who stood at it at the same time."""

    def __init__(self, lost_after: int | None = None, fail: frozenset[int] = frozenset()) -> None:
        self.lock = threading.Lock()
        self.asked: list[str] = []
        self.at_once = 0
        self.most = 0
        self.crowd = threading.Barrier(1)
        self.lost_after, self.fail = lost_after, fail

    def ask(self, prompt: str, max_new_tokens: int) -> Answer:
        sent = time.perf_counter()
        with self.lock:
            number = len(self.asked)
            self.asked.append(prompt)
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        if number < self.crowd.parties:
            self.crowd.wait(60)
        with self.lock:
            self.at_once -= 1
        gone = self.lost_after is not None and number >= self.lost_after
        error = "no luck" if gone or number in self.fail else None
        return Answer(prompt, sent, (time.perf_counter(),), max_new_tokens, error=error)

    def lost(self) -> str | None:
        gone = self.lost_after is not None and len(self.asked) > self.lost_after
        return "The desk is gone." if gone else None


def test_definitions_are_vllms() -> None:
    answer = Answer("p", 10.0, (10.5, 10.6, 11.0), tokens=6)
    assert answer.ttft == pytest.approx(0.5)
    assert answer.e2e == pytest.approx(1.0)
    assert answer.gaps == pytest.approx([0.1, 0.4])
    assert answer.tpot == pytest.approx((1.0 - 0.5) / 5)
    assert Answer("p", 0.0, (1.0,), tokens=1).tpot is None


def test_gaps_are_pooled_over_requests_and_failures_count_only_as_errors() -> None:
    load = Load(
        (
            Answer("a", 0.0, (1.0, 1.2, 1.4), tokens=5),
            Answer("b", 0.5, (1.0, 2.0), tokens=2),
            Answer("c", 0.0, (9.0,), tokens=70, error="it broke"),
            Answer("d", 0.0, (), tokens=0, error="refused"),
        ),
        seconds=2.0,
    )
    row = summarise(load, 2, "vanilla")
    assert row.itl_ms.mean == pytest.approx(1e3 * (0.2 + 0.2 + 1.0) / 3)
    assert row.itl_ms.p50 == pytest.approx(200)
    assert row.tpot_ms.mean == pytest.approx(1e3 * (0.4 / 4 + 1.0) / 2)
    assert row.ttft_ms.mean == pytest.approx(750)
    assert row.tokens_per_s == pytest.approx(7 / 2)
    assert (row.requests, row.errors) == (4, 2)
    assert load.in_flight == pytest.approx((1.4 + 1.5) / 2)


def test_percentiles_are_numpys() -> None:
    values = np.random.default_rng(0).exponential(size=57)
    found = spread(values.tolist())
    assert found.p50 == pytest.approx(1e3 * np.percentile(values, 50))
    assert found.p90 == pytest.approx(1e3 * np.percentile(values, 90))
    assert found.p99 == pytest.approx(1e3 * np.percentile(values, 99))
    assert spread([]).mean == 0


def test_a_load_without_a_single_answer_has_no_row() -> None:
    failed = Load((Answer("a", 0.0, (), 0, error="The queue is full."),), 0.0)
    with pytest.raises(LabkitError, match="None of 1 requests was answered: The queue is full"):
        summarise(failed, 1, "vanilla")


@pytest.mark.parametrize("users", [1, 3])
def test_in_a_closed_loop_so_many_ask_at_once_and_every_prompt_is_asked_once(users: int) -> None:
    desk = Desk()
    desk.crowd = threading.Barrier(users)
    load = closed_loop(desk, [str(i) for i in range(20)], users, 7)
    assert desk.most == users
    assert Counter(desk.asked) == Counter(str(i) for i in range(20))
    assert {answer.prompt for answer in load.answers} == set(desk.asked)
    assert load.errors == 0
    assert load.seconds > 0


def test_in_an_open_loop_requests_come_whether_or_not_others_were_answered() -> None:
    desk = Desk()
    desk.crowd = threading.Barrier(12)  # nobody is answered until all have come
    load = open_loop(desk, ["p"] * 12, 500.0, 4, np.random.default_rng(0))
    assert desk.most == 12
    assert len(load.good) == 12
    sent = [answer.sent for answer in load.answers]
    due = np.random.default_rng(0).exponential(1 / 500, 12).cumsum()
    assert sent == sorted(sent)
    assert sent[-1] - sent[0] >= due[-1] - due[0] - 0.1


def test_a_failed_request_is_an_error_and_the_others_go_on() -> None:
    load = closed_loop(Desk(fail=frozenset({2, 5})), ["p"] * 9, 2, 4)
    assert load.errors == 2
    assert len(load.good) == 7
    assert load.lost is None


def test_a_request_that_raises_is_an_error_and_its_user_goes_on() -> None:
    desk = Desk()
    desk.crowd = threading.Barrier(1)
    answer = desk.ask

    def ask(prompt: str, max_new_tokens: int) -> Answer:
        if prompt == "3":
            raise TypeError("a list of parts")
        return answer(prompt, max_new_tokens)

    desk.ask = ask  # type: ignore[method-assign]
    load = closed_loop(desk, [str(i) for i in range(9)], 1, 4)
    assert (len(load.good), load.errors) == (8, 1)
    assert [a.error for a in load.answers if a.error] == ["TypeError: a list of parts"]


@pytest.mark.parametrize("open_ended", [False, True])
def test_where_the_target_is_lost_no_more_is_sent_and_what_was_measured_stands(
    open_ended: bool,
) -> None:
    desk = Desk(lost_after=4)
    if open_ended:
        load = open_loop(desk, ["p"] * 30, 50.0, 4, np.random.default_rng(1))
    else:
        load = closed_loop(desk, ["p"] * 30, 2, 4)
    assert load.lost == "The desk is gone."
    assert len(load.good) == 4
    assert 4 < len(desk.asked) < 30


@pytest.mark.parametrize(("users", "prompts"), [(0, ["p"]), (1, [])])
def test_a_load_of_nothing_is_refused(users: int, prompts: list[str]) -> None:
    with pytest.raises(LabkitError, match="at least 1 of each"):
        closed_loop(Desk(), prompts, users, 4)
    with pytest.raises(LabkitError, match="more than 0 of each"):
        open_loop(Desk(), prompts, float(users), 4, np.random.default_rng(0))


def test_the_engine_is_asked_in_this_process_and_refusals_are_errors() -> None:
    toy = ToyEngine()
    with ServingEngine(Batch(toy, 2, 40)) as engine:
        target = EngineTarget(engine, lambda prompt: [int(prompt)])
        answer = target.ask("3", 9)
        assert answer.output == tuple(toy.greedy([3], 9))
        assert (answer.tokens, answer.prompt, answer.error) == (9, "3", None)
        assert len(answer.arrivals) == 9
        assert answer.ttft > 0
        assert target.lost() is None
        refused = target.ask("3", 99)
        assert "a slot of this engine holds 40" in (refused.error or "")
        load = closed_loop(target, [str(i % 10) for i in range(12)], 4, 5)
    assert load.errors == 0
    assert all(a.output == tuple(toy.greedy([int(a.prompt)], 5)) for a in load.answers)
    assert target.ask("3", 9).error == "The engine is closed: start another."
