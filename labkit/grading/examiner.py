"""Grades one submission: runs the student's cells in a kernel, then the tests in this process.

Reads what to do as JSON on standard input, and writes what it finds as JSON lines on standard
output, each as soon as it is known, so that a submission that is ended midway keeps what it earned.
All of the student's cells run first and the tests after them, so that nothing which a test passes
to the student's functions can stand in an output that feedback shows.

A cell that ends the kernel or runs out of time is left out, and the others run again without it.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.manager import KernelManager
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError

from labkit.grading.judge import Outcome, Student, free_names, judge
from labkit.grading.keeper import Limits, limit_this_process
from labkit.grading.notebook import GradedCell, Plan, Unreadable, plan, read
from labkit.grading.wire import ClosedError, LateError, Line, WireError

STARTS = 4
"""How often a submission's kernel is started at most."""
GRACE = 5.0
"""Seconds in which a kernel must react to an interrupt or answer a small request."""
START_SECONDS = 120.0
"""Seconds that a kernel may take to start."""

SURROGATE = re.compile("[\ud800-\udfff]").search
NOT_TEXT = "it holds half a character (a lone surrogate), which no Python file may hold"

Tell = Callable[..., None]
"""Writes one line of results."""


class Kernel(NotebookClient):
    """A kernel for a student's cells, in an empty folder."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.manager = KernelManager(kernel_name="python3")
        self.manager.client_class = "jupyter_client.asynchronous.AsyncKernelClient"
        super().__init__(
            nbformat.v4.new_notebook(),
            km=self.manager,
            timeout=math.ceil(limits.cell_seconds),
            startup_timeout=int(START_SECONDS),
            allow_errors=True,
            store_widget_state=False,
            record_timing=False,
        )
        self.limits = limits
        self.left: dict[int, int] = {}  # for each cell, the characters that it may still print
        self.student: Student | None = None
        work = folder / secrets.token_hex(4)
        work.mkdir()
        env = {**os.environ, "IPYTHONDIR": str(folder / "ipython")}
        self.manager.start_kernel(cwd=str(work), env=env)
        self.start_new_kernel_client()
        self.quietly("report_every_error(get_ipython())", START_SECONDS)

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        """Process a message, cut to the output that the cell may still print."""
        kind, content = msg["msg_type"], msg["content"]
        if kind.startswith("comm_"):
            return None
        left = self.left.setdefault(cell_index, self.limits.output_kb * 1024)
        try:
            if kind == "stream":
                self.left[cell_index] = left - len(content["text"])
                content["text"] = content["text"][: max(left, 0)]
                if not content["text"]:
                    return None
            elif kind in ("display_data", "execute_result", "update_display_data"):
                sizes = (len(str(one)) for one in content["data"].values())
                self.left[cell_index] = left - sum(sizes)
                if self.left[cell_index] < 0:
                    return None
            return super().process_message(msg, cell, cell_index)
        except (AttributeError, KeyError, TypeError, ValueError, nbformat.ValidationError):
            return None  # the message is one that a cell made up

    def run(self, text: str) -> tuple[str, list[Any], bool]:
        """Run a cell; return an event, its outputs, and whether some were dropped.

        The event is empty, unless the cell takes too long or ends the kernel.
        """
        cells, event = self.nb.cells, ""
        cells.append(nbformat.v4.new_code_cell(text))
        try:
            self.execute_cell(cells[-1], len(cells) - 1, store_history=True)
        except CellTimeoutError:
            event = "time limit"
        except DeadKernelError:
            event = "kernel died"
        return event, cells[-1].outputs, self.left.get(len(cells) - 1, 0) < 0

    def _ask(self, code: str) -> str:
        """Let the kernel run the examiner's own code, without a trace; return the message's id."""
        client: Any = self.kc
        code = f"from labkit.grading import answering\nanswering.{code}"
        return client.execute(code, silent=True, store_history=False, allow_stdin=False)

    def quietly(self, code: str, wait: float = GRACE) -> None:
        """Run the examiner's own code, and wait until it is done."""
        client: Any = self.kc
        asked = self._ask(code)
        deadline = time.monotonic() + wait
        while (left := deadline - time.monotonic()) > 0:
            try:
                reply = run_sync(client.get_shell_msg)(timeout=left)
            except Exception:  # queue.Empty, or the channel is gone
                return
            if reply["parent_header"].get("msg_id") == asked:
                return

    def answers(self) -> Student:
        """Return the connection that answers calls, opened when it is first needed."""
        if self.student is None:
            key = secrets.token_hex(16)
            with socket.create_server(("127.0.0.1", 0)) as server:
                port = server.getsockname()[1]
                self._ask(f"answer({port}, {key!r})")
                self.student = Student(_accept(server, key, self.limits.cell_seconds))
        return self.student

    def interrupt(self) -> bool:
        """Interrupt the kernel; return whether it then waits for the next call."""
        self.manager.interrupt_kernel()
        return self.student is not None and self.student.in_step(GRACE)

    def end(self) -> None:
        """End the kernel at once."""
        if self.student is not None:
            self.student.line.close()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()


def _accept(server: socket.socket, key: str, seconds: float) -> Line:
    """Return the connection that sends the key; raises `LateError` if none does."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        server.settimeout(left)
        try:
            connection, _ = server.accept()
        except TimeoutError:
            break
        line = Line(connection)
        try:
            if secrets.compare_digest(line.receive(time.monotonic() + GRACE), key.encode()):
                return line
        except WireError:
            pass
        line.close()
    raise LateError("the kernel does not answer")


class Examination:
    """The grading of one submission: its cells, then its tests."""

    def __init__(self, made: Plan, limits: Limits, folder: Path, tell: Tell) -> None:
        self.plan = made
        self.limits = limits
        self.folder = folder
        self.tell = tell
        self.left_out = {
            number: NOT_TEXT for number, step in enumerate(made.steps) if SURROGATE(step.text)
        }
        self.starts = 0
        self.kernel: Kernel | None = None

    def whole(self) -> None:
        """Run everything, and report each test as it is done."""
        for number in self.left_out:
            self._tell_left_out(number)
        for test in self.plan.tests:
            while self.kernel is None and self.starts < STARTS:
                self.starts += 1
                self.kernel = Kernel(self.folder, self.limits)
                self.tell(cells=self._through(self.kernel))
            if self.kernel is None:
                outcome = Outcome(test.name, False, "the kernel could not be kept running")
            else:
                outcome = self._test(self.kernel, test)
            self.tell(**vars(outcome))
        self._drop()

    def _through(self, kernel: Kernel) -> list[dict[str, Any]]:
        """Run all cells and return their outputs; the kernel is gone if one has to be left out."""
        done: list[dict[str, Any]] = []
        texts = {test.name: test.text for test in self.plan.tests}
        for number, step in enumerate(self.plan.steps):
            if step.test is not None:
                names = free_names(texts[step.test])
                kernel.quietly(f"keep({step.test!r}, {names!r}, globals())")
                done.append({"test": step.test})
                continue
            entry: dict[str, Any] = {"text": step.text, "outputs": []}
            done.append(entry)
            if number not in self.left_out:
                event, entry["outputs"], entry["cut"] = kernel.run(step.text)
                if entry["cut"]:
                    self.tell(event="output cut")
                if event:
                    late = f"it ran longer than {self.limits.cell_seconds:g} s"
                    self.left_out[number] = late if event == "time limit" else "it ended the kernel"
                    self._tell_left_out(number, event=event)
                    self._drop()
            if number in self.left_out:
                entry["left_out"] = self.left_out[number]
            if self.kernel is None:
                break
        return done

    def _tell_left_out(self, number: int, **event: str) -> None:
        self.tell(note=f"cell {number + 1} was left out: {self.left_out[number]}", **event)

    def _test(self, kernel: Kernel, test: GradedCell) -> Outcome:
        """Run one test; if it ends the kernel or blocks it, the next test gets a new kernel."""
        seconds = self.limits.cell_seconds
        try:
            return judge(test, kernel.answers(), seconds)
        except LateError:
            self.tell(event="time limit")
            if not kernel.interrupt():
                self._drop()
            return Outcome(test.name, False, f"it took longer than {seconds:g} s")
        except ClosedError:
            self.tell(event="kernel died")
            self._drop()
            return Outcome(test.name, False, "your code ended the kernel")

    def _drop(self) -> None:
        if self.kernel is not None:
            self.kernel.end()
        self.kernel = None


def examine(spec: dict[str, Any], limits: Limits, tell: Tell) -> None:
    """Grade the submission that ``spec`` describes, and report each result at once."""
    source = read(Path(spec["source"]))
    try:
        submission = read(Path(spec["submission"]))
    except Unreadable as reason:
        tell(event="unreadable", note=str(reason))
        return
    made = plan(submission, source)
    if made.notes:
        tell(event="older release" if made.older else "restored")
    for note in made.notes:
        tell(note=note)
    kernel = submission.metadata.get("kernelspec", {})
    name = kernel.get("name", "python3") if isinstance(kernel, dict) else "?"
    if name != "python3":
        tell(event="restored", note=f"its kernel is named {str(name)[:60]!r}: python3 was used")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["JUPYTER_RUNTIME_DIR"] = str(Path(folder) / "runtime")
        Examination(made, limits, Path(folder), tell).whole()


def main() -> None:
    """Read the task, keep standard output for what is found, and grade."""
    spec = json.load(sys.stdin)
    lines = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    # The kernel must not inherit the standard output on which results are reported.
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)

    def tell(**found: Any) -> None:
        print(json.dumps(found), file=lines, flush=True)

    limits = Limits(**spec["limits"])
    limit_this_process(limits)
    examine(spec, limits, tell)
    tell(done=True)


if __name__ == "__main__":
    main()
