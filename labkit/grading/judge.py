"""Runs the tests in a process without student code, and calls the student's functions remotely."""

from __future__ import annotations

import ast
import builtins
import contextlib
import io
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from labkit.grading import wire
from labkit.grading.notebook import GradedCell, hidden_lines

CELL = "<test>"
HIDDEN = "the check that you see passes; the same check with other numbers does not"
"""All that feedback says about a hidden test."""


class StudentError(Exception):
    """An error of a type of its own, raised by the student's code."""


@dataclass(frozen=True)
class Outcome:
    """The result of one test, with one sentence why."""

    test: str
    passed: bool
    says: str


class Student:
    """The student's kernel as seen from the tests: names to look up and functions to call.

    ``deadline``, in the seconds of `time.monotonic`, is the end of the present test.
    """

    def __init__(self, line: wire.Line) -> None:
        self.line = line
        self.deadline = 0.0

    def look_up(self, test: str, name: str) -> tuple[bool, Any]:
        """Return whether the name was defined at that test's place, and its value there."""
        found, value, _ = self._ask(["look up", test, name], [])
        return found is True, value

    def _function(self, number: Any) -> Callable[..., Any]:
        def call(*args: Any, **settings: Any) -> Any:
            ours: list[Callable[..., Any]] = []
            _, result, moved = self._ask(["call", number, list(args), settings], ours)
            wire.bring_up_to_date(args, moved)
            return result

        return call

    def _ask(self, request: list[Any], ours: list[Callable[..., Any]]) -> list[Any]:
        """Send a request, serve the calls that come meanwhile, and return the reply."""

        def name(function: Callable[..., Any]) -> int:
            ours.append(function)
            return len(ours) - 1

        self.line.send(wire.pack(request, name))
        while True:
            reply = wire.unpack(self.line.receive(self.deadline), self._function)
            match reply:
                case ["gives", found, result, list(moved)]:
                    return [found, result, moved]
                case ["raises", str(kind), str(text), str(where)]:
                    raise _as_raised(kind, text, where)
                case ["calls", int(number), list(args), dict(settings)] if -1 < number < len(ours):
                    try:
                        answer = ["gives", ours[number](*args, **settings), wire.generators(args)]
                    except wire.WireError:
                        raise
                    except Exception as error:
                        answer = ["raises", f"{type(error).__name__}: {error}"]
                    self.line.send(wire.pack(answer, name))
                case _:
                    raise wire.WireError("the kernel's answer makes no sense")

    def in_step(self, grace: float) -> bool:
        """Return whether, after an interrupt, the kernel waits for the next call."""
        try:
            reply = wire.unpack(self.line.receive(time.monotonic() + grace), self._function)
        except wire.WireError:
            return False
        return isinstance(reply, list) and reply[:1] != ["calls"]


def _as_raised(kind: str, text: str, where: str) -> Exception:
    """Return the student's error as one of this process: Python's own types, others by name."""
    known: Any = getattr(builtins, kind, None)
    error: Exception = StudentError(f"{kind}: {text}" if text else kind)
    if isinstance(known, type) and issubclass(known, Exception):
        with contextlib.suppress(TypeError):  # some kinds need more than a text
            error = known(text)
    error.add_note(where)
    return error


def judge(test: GradedCell, student: Student, seconds: float) -> Outcome:
    """Run one test; the student's functions get ``seconds`` in all.

    Raises `ClosedError` or `LateError` if the kernel is gone or does not answer.
    """
    student.deadline = time.monotonic() + seconds
    namespace: dict[str, Any] = {"__name__": "test"}
    try:
        for name in free_names(test.text):
            found, value = student.look_up(test.name, name)
            if found:
                namespace[name] = value
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            exec(compile(test.text, CELL, "exec"), namespace)
    except (wire.ClosedError, wire.LateError):
        raise
    except Exception as error:
        return Outcome(test.name, False, _why(error, test))
    return Outcome(test.name, True, "right")


def free_names(text: str) -> list[str]:
    """Return the names that a cell uses but does not define, without Python's own.

    >>> free_names("import numpy as np\\nassert f(np.ones(2)) == g, [x for x in h]")
    ['f', 'g', 'h']
    """
    used: set[str] = set()
    made = set(dir(builtins))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else made).add(node.id)
        elif isinstance(node, ast.arg):
            made.add(node.arg)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            made.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            made |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return sorted(used - made)


def _why(error: Exception, test: GradedCell) -> str:
    """Return one sentence on why a test failed; for a hidden one, only that it did."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == CELL and frame.name == "<module>"
    ]
    if lines and lines[-1] in hidden_lines(test.text):
        return HIDDEN
    if isinstance(error, NameError) and getattr(error, "name", None):
        return (
            f"there is no `{error.name}`: the cell that defines it is missing, is not a code cell, "
            "or ended with an error"
        )
    text = " ".join(str(error).split())[:600]
    if isinstance(error, AssertionError):
        return text.removeprefix("Not yet: ") or "the assertion does not hold"
    if isinstance(error, (StudentError, wire.WireError)):
        kind = ""
    else:
        kind = type(error).__name__ + (": " if text else "")
    where = "; ".join(note for note in getattr(error, "__notes__", []) if note)
    return f"{kind}{text}" + (f" ({where})" if where else "")
