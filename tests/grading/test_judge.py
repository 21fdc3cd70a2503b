"""A test and a student's kernel, both in this process: what each says to the other."""

from __future__ import annotations

import socket
import threading

import numpy as np
import pytest

from labkit.grading import answering, judge
from labkit.grading.judge import HIDDEN, Student, free_names
from labkit.grading.notebook import GradedCell
from labkit.grading.wire import ClosedError, LateError, Line, WireError, pack
from tests.grading import made

SECONDS = 60


@pytest.fixture
def ends():
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    yield Line(ours), Line(theirs)
    ours.close()
    theirs.close()


@pytest.fixture
def run(ends):
    """A function from a test's text and what the student defined to the outcome."""
    ours, theirs = ends
    thread = threading.Thread(target=answering.answer_calls, args=(theirs,), daemon=True)
    thread.start()

    def run(text, namespace, seconds=SECONDS):
        test = GradedCell("it", text, 1)
        answering.keep("it", free_names(text), namespace)
        return judge.judge(test, Student(ours), seconds)

    yield run
    ours.close()
    thread.join(5)


KEEP = GradedCell("test-keep", made.KEEP_TEST, 2)


def right(x, p, q):
    return min(1, p[x] / q[x])


def test_a_right_function_passes(run):
    assert run(made.KEEP_TEST, {"keep": right}).passed


def spend(many, much, score, budget, rng):
    seen = rng.choice(much, size=budget // many, replace=False)
    return score(list(range(many)), seen.tolist()).mean(axis=1).argmax()


def overspend(many, much, score, budget, rng):
    try:
        score(list(range(many)), list(range(much)))
    except ValueError as error:
        assert "utilities were asked for" in str(error)
    return 0


def test_a_generator_and_a_function_of_the_tests_go_through_the_students_hands(run):
    assert run(made.SPEND_TEST, {"spend": spend}).passed
    outcome = run(made.SPEND_TEST, {"spend": overspend})
    assert not outcome.passed
    assert "it asks for 160 utilities, and its budget is 20" in outcome.says


def spoiling(x, p, q):
    p[:] = q[:] = 1 / len(p)
    return 1.0


class Agreeable:
    def __eq__(self, other):
        return True

    __hash__ = None


@pytest.mark.parametrize(
    ("namespace", "says"),
    [
        ({}, "there is no `keep`"),
        ({"keep": lambda x, p, q: None}, "this returns nothing so far"),
        ({"keep": lambda x, p, q: p[x] / q[x]}, "cap the ratio"),
        ({"keep": lambda x: x}, "TypeError"),
        ({"keep": lambda x, p, q: 1 / 0}, "ZeroDivisionError: division by zero"),
        ({"keep": lambda x, p, q: Agreeable()}, "it gives a Agreeable"),
        ({"keep": Agreeable()}, "it gives a Agreeable"),
        ({"keep": lambda x, p, q: lambda: 3}, "a number is needed"),
        ({"keep": lambda x, p, q: "text"}, "a str, and a number"),
        ({"keep": 3}, "TypeError: 'int' object is not callable"),
    ],
)
def test_each_wrong_answer_is_one_sentence(run, namespace, says):
    outcome = run(made.KEEP_TEST, namespace)
    assert not outcome.passed
    assert says in outcome.says


def test_a_function_not_written_is_told_so(run):
    def keep(x, p, q):
        raise NotImplementedError

    assert "this returns nothing so far" in run(made.KEEP_TEST, {"keep": keep}).says


def test_an_error_of_a_kind_of_its_own_keeps_its_name(run):
    class OddError(Exception):
        pass

    def keep(x, p, q):
        raise OddError("no")

    assert "OddError: no" in run(made.KEEP_TEST, {"keep": keep}).says


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, StopIteration, OSError])
def test_no_error_of_the_students_stops_the_judge(run, error):
    def keep(x, p, q):
        raise error("stop")

    outcome = run(made.KEEP_TEST, {"keep": keep})
    assert not outcome.passed
    assert "stop" in outcome.says


def test_of_a_hidden_test_only_that_it_failed_is_said(run):
    outcome = run(made.KEEP_TEST, {"keep": lambda x, p, q: right(x, p, q) if len(p) == 5 else 1})
    assert outcome.says == HIDDEN
    assert "SECRET" not in outcome.says


def test_answers_written_into_the_arguments_do_not_reach_the_judge(run):
    assert not run(made.KEEP_TEST, {"keep": spoiling}).passed


def test_a_test_is_judged_by_what_a_name_meant_at_its_place(ends, run):
    namespace = {"keep": right}
    answering.keep("early", ["keep"], namespace)
    namespace["keep"] = None
    outcome = judge.judge(GradedCell("early", made.KEEP_TEST, 2), Student(ends[0]), SECONDS)
    assert outcome.passed


def test_the_time_of_a_test_is_limited(run):
    wait = threading.Event()
    with pytest.raises(LateError):
        run(made.KEEP_TEST, {"keep": lambda x, p, q: wait.wait(20)}, seconds=0.3)
    wait.set()


def test_a_kernel_that_is_gone_is_noticed(ends):
    ends[1].close()
    with pytest.raises(ClosedError):
        judge.judge(KEEP, Student(ends[0]), SECONDS)


@pytest.mark.parametrize(
    "reply",
    [
        ["gives", True],
        ["gives", True, 1, 2],
        ["calls", 0, [], {}],
        ["calls", -1, [], {}],
        ["raises", 1, 2, 3],
        ["passed"],
        [],
        "passed",
        ["gives", True, None, [np.random.default_rng(0)]],
    ],
)
def test_a_kernel_that_answers_nonsense_passes_nothing(ends, reply):
    ours, theirs = ends

    def refuse(_):
        raise WireError("none")

    for _ in range(3):
        theirs.send(pack(reply, refuse))
    outcome = judge.judge(KEEP, Student(ours), SECONDS)
    assert not outcome.passed
