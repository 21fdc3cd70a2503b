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
    line = Line(socket.create_connection(("127.0.0.1", port), timeout=30))
    try:
        line.send(key.encode())
        answer_calls(line)
    finally:
        line.close()  # so that the examiner does not wait where this raises


def answer_calls(line: Line) -> None:
    """Look names up, call functions, pass errors back, until the other side closes.

    An interrupted call ends with an error.
    """
    functions: list[Callable[..., Any]] = []  # the student's, which the other side may call

    def name(function: Callable[..., Any]) -> int:
        functions.append(function)
        return len(functions) - 1

    def from_afar(name_there: Any) -> Callable[..., Any]:
        """Return a function that calls the test's own by a message while the student's waits."""

        def call(*args: Any, **settings: Any) -> Any:
            line.send(pack(["calls", name_there, list(args), settings], name))
            kind, *rest = unpack(line.receive(), from_afar)
            if kind == "raises":
                raise ValueError(rest[0])
            result, moved = rest
            bring_up_to_date(args, moved)
            return result

        return call

    while True:
        try:
            what, *rest = unpack(line.receive(), from_afar)
        except WireError:
            return
        except KeyboardInterrupt:  # it came between two calls
            continue
        try:
            if what == "look up":
                test, wanted = rest
                kept = KEPT.get(test, {})
                found, result, moved = wanted in kept, kept.get(wanted), []
            else:
                number, args, settings = rest
                found, result = True, functions[number](*args, **settings)
                moved = generators(args)
            reply = pack(["gives", found, result, moved], name)
        except BaseException as error:
            reply = pack(["raises", *_described(error)], name)
        line.send(reply)


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
