"""The part that runs in the student's kernel: keeps what cells defined, answers the tests' calls.

This is the only file of the room that runs next to a student's code. That code can change the bytes
that it sends and nothing else: the other side reads plain data from it, and judges that data.
"""

from __future__ import annotations

import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from labkit.grading.wire import Line, WireError, bring_up_to_date, generators, pack, unpack

KEPT: dict[str, dict[str, Any]] = {}
"""For each test, the values of the names that it uses, at its place in the notebook."""


def keep(test: str, names: Sequence[str], namespace: dict[str, Any]) -> None:
    """Keep the present values of ``names``, since a later cell may rebind them."""
    KEPT[test] = {name: namespace[name] for name in names if name in namespace}


def report_every_error(shell: Any) -> None:
    """Let the kernel report an error whose text cannot be made, for which it would never reply.

    ``shell`` is IPython's; it takes ``str(error)`` of whatever a cell raises, and that may raise.
    """
    show = shell.showtraceback

    def showtraceback(*args: Any, **settings: Any) -> None:
        error = sys.exc_info()[1]
        try:
            show(*args, **settings)
        except Exception:
            print(": ".join(_described(error)[:2]), file=sys.stderr)

    def replace(result: Any) -> None:
        if result.error_in_exec is not None:
            kind, text, _ = _described(result.error_in_exec)
            result.error_in_exec = RuntimeError(f"{kind}: {text}")

    shell.showtraceback = showtraceback
    shell.events.register("post_run_cell", replace)


def answer(port: int, key: str) -> None:
    """Answer calls from the examiner at ``port`` until it hangs up."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    line = Line(connection)
    try:
        line.send(key.encode())
        Answerer(line).run()
    finally:
        line.close()  # so that the examiner does not wait where this raises


class Answerer:
    """One connection to the examiner: looks names up, calls functions, passes errors back."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._functions: list[Callable[..., Any]] = []

    def run(self) -> None:
        """Answer until the other side closes; an interrupted call ends with an error."""
        while True:
            try:
                request = self._read(self._line.receive())
            except WireError:
                return
            except KeyboardInterrupt:  # it came between two calls
                continue
            try:
                reply = pack(["gives", *self._reply(request)], self._name)
            except BaseException as error:
                reply = pack(["raises", *_described(error)], self._name)
            self._line.send(reply)

    def _reply(self, request: list[Any]) -> list[Any]:
        what, *rest = request
        if what == "look up":
            test, name = rest
            kept = KEPT.get(test, {})
            return [name in kept, kept.get(name), []]
        number, args, settings = rest
        result = self._functions[number](*args, **settings)
        return [True, result, generators(args)]

    def _name(self, function: Callable[..., Any]) -> int:
        self._functions.append(function)
        return len(self._functions) - 1

    def _read(self, message: bytes) -> list[Any]:
        return unpack(message, self._from_afar)

    def _from_afar(self, name: Any) -> Callable[..., Any]:
        """Return a function that calls the test's own by a message while the student's waits."""

        def call(*args: Any, **settings: Any) -> Any:
            self._line.send(pack(["calls", name, list(args), settings], self._name))
            kind, *rest = self._read(self._line.receive())
            if kind == "raises":
                raise ValueError(rest[0])
            result, generators = rest
            bring_up_to_date(args, generators)
            return result

        return call


def _described(error: BaseException | None) -> list[str]:
    """Return an error's type, its text, and the line of the student's code that raised it."""
    where = ""
    for frame in reversed(traceback.extract_tb(getattr(error, "__traceback__", None))):
        if "ipykernel" in frame.filename or frame.filename.startswith("<"):
            where = f"line {frame.lineno} in {frame.name}"
            break
    try:
        text = str(error)[:500]
    except BaseException as second:  # also where `__str__` gives no text
        text = f"its text cannot be shown, because `__str__` raised {type(second).__name__}"
    return [type(error).__name__, text, where]
