"""Watches one submission: starts its examiner, enforces the limits, and ends what is left.

Reads the task as JSON on standard input, writes one JSON object when everything has ended: the
examiner's ``lines``, what the keeper had to do (``events``), and how many processes were ``left``
running by the submission. It runs nothing of a student's, and needs nothing but psutil.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import psutil

from labkit.grading.limits import MEGABYTE, MOST_PROCESSES, Limits, adopt_orphans

LOOK_EVERY = 0.4
"""Seconds between two looks at time, memory and processes."""
LONGEST_OUTPUT = 64 * MEGABYTE
"""The most that is read of an examiner's results."""


class Keeper:
    """One examiner and all processes below it."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.limits = Limits(**spec["limits"])
        self.parent = os.getppid()
        self.lines: list[str] = []
        self.events: list[str] = []
        self.errors = b""
        self.examiner = subprocess.Popen(
            [sys.executable, "-m", "labkit.grading.examiner"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.examiner.stdin is not None
        self.examiner.stdin.write(json.dumps(spec).encode())
        self.examiner.stdin.close()
        self.readers = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self.readers:
            reader.start()

    def _read(self) -> None:
        assert self.examiner.stdout is not None
        size = 0
        for line in self.examiner.stdout:
            size += len(line)
            if size < LONGEST_OUTPUT:
                self.lines.append(line.decode("utf-8", "replace"))

    def _read_errors(self) -> None:
        assert self.examiner.stderr is not None
        while part := self.examiner.stderr.read(4096):
            self.errors = (self.errors + part)[-4096:]

    def watch(self) -> None:
        """Wait for the examiner; end it, or what it started, if a limit is exceeded."""
        end = time.monotonic() + self.limits.wall_seconds
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.examiner.wait(LOOK_EVERY)
                return
            if time.monotonic() > end:
                self.events.append("wall")
                return
            if os.getppid() != self.parent:  # the loop itself was ended
                return
            self._look()

    def _look(self) -> None:
        """End the largest process if all use too much memory, all if there are too many."""
        below = [process for process in descendants() if process.pid != self.examiner.pid]
        sizes = {process: _memory(process) for process in below}
        if len(below) > MOST_PROCESSES:
            self.events.append("processes")
            end(below)
        elif sum(sizes.values()) > self.limits.memory_mb * MEGABYTE:
            self.events.append("memory")
            end([max(below, key=lambda process: sizes[process])])

    def finish(self) -> dict[str, Any]:
        """End everything below, and return the results."""
        code = self.examiner.poll()
        left = [p for p in descendants() if p.pid != self.examiner.pid] if code is not None else []
        while remaining := descendants():
            end(remaining)
        for reader in self.readers:
            reader.join(2)
        return {
            "lines": self.lines,
            "events": self.events,
            "left": len(left),
            "code": code,
            "errors": self.errors.decode("utf-8", "replace"),
        }


def descendants() -> list[psutil.Process]:
    """Return every living process below this one."""
    below = psutil.Process().children(recursive=True)
    return [process for process in below if _alive(process)]


def _alive(process: psutil.Process) -> bool:
    try:
        if process.status() != psutil.STATUS_ZOMBIE:
            return True
        with contextlib.suppress(ChildProcessError, OSError):
            if process.ppid() == os.getpid():
                os.waitpid(process.pid, os.WNOHANG)  # an adopted one that nobody else waits for
    except psutil.NoSuchProcess:
        pass
    return False


def _memory(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def end(processes: list[psutil.Process]) -> None:
    """Suspend all processes, so that none starts another, then kill them."""
    for act in ("suspend", "kill"):
        for process in processes:
            with contextlib.suppress(psutil.Error):
                getattr(process, act)()
    psutil.wait_procs(processes, timeout=2)


def _stop(_number: int, _frame: object) -> None:
    raise SystemExit(1)


def main() -> None:
    """Read the task from standard input, watch it, write the results to standard output."""
    adopt_orphans()
    signal.signal(signal.SIGTERM, _stop)
    keeper = Keeper(json.load(sys.stdin))
    try:
        keeper.watch()
    finally:
        found = keeper.finish()
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
