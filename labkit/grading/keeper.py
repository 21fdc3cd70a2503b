"""Watches one submission: starts its examiner, enforces the limits, and ends what is left.

Reads the task as JSON on standard input, writes one JSON object when everything has ended: the
examiner's ``lines``, what the keeper had to do (``events``), and how many processes were ``left``
running by the submission. It runs nothing of a student's, and needs nothing but psutil.

On Linux and macOS a process's memory, files and core dumps are limited by the system
(``setrlimit``), and those of whatever it starts. Windows has no such call: there only the keeper's
watch holds, which looks at memory and the number of processes twice a second, on every system.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from labkit.errors import LabkitError

LOOK_EVERY = 0.4
"""Seconds between two looks at time, memory and processes."""
MEGABYTE = 1 << 20
FILE_BYTES = 512 * MEGABYTE
"""The longest file that a submission may write."""
MOST_PROCESSES = 100
"""Processes that a submission may have at once, threads not counted."""
LONGEST_OUTPUT = 64 * MEGABYTE
"""The most that is read of an examiner's results."""


@dataclass(frozen=True)
class Limits:
    """For each cell and test ``cell_seconds``, for all of a submission ``wall_seconds``;
    ``memory_mb`` for its processes together; ``output_kb`` of what a cell prints are kept.
    """

    cell_seconds: float = 120
    wall_seconds: float = 1200
    memory_mb: int = 4096
    output_kb: int = 200

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0:
                raise LabkitError(f"The limit {name} is {value}: give more than 0.")


def limit_this_process(limits: Limits) -> None:
    """Set what the operating system can hold of ``limits``, for this process and all it starts."""
    if sys.platform == "win32":
        return
    import resource

    memory = limits.memory_mb * MEGABYTE
    for what, most in (
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (least, hard))


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
        targets = (self._read, self._read_errors)
        self.readers = [threading.Thread(target=target, daemon=True) for target in targets]
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
                self.events.append("wall limit")
                return
            if os.getppid() != self.parent:  # the loop itself was ended
                return
            self._look()

    def _look(self) -> None:
        """End the largest process if all use too much memory, all if there are too many."""
        sizes = {one: size for one, size in self._below().items() if one.pid != self.examiner.pid}
        if len(sizes) > MOST_PROCESSES:
            self.events.append("process limit")
            end(list(sizes))
        elif sum(sizes.values()) > self.limits.memory_mb * MEGABYTE:
            self.events.append("memory limit")
            end([max(sizes, key=sizes.__getitem__)])

    def _below(self) -> dict[psutil.Process, int]:
        """Return every living process below this one, and its bytes of memory."""
        found = {}
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, OSError):
                about = process.as_dict(["status", "ppid", "memory_info"])
                if about["status"] != psutil.STATUS_ZOMBIE:
                    found[process] = about["memory_info"].rss if about["memory_info"] else 0
                elif about["ppid"] == os.getpid() and process.pid != self.examiner.pid:
                    os.waitpid(process.pid, os.WNOHANG)  # adopted: nobody else waits for it
        return found

    def finish(self) -> dict[str, Any]:
        """End everything below, and return the results."""
        code = self.examiner.poll()
        left = len(self._below()) if code is not None else 0
        while remaining := self._below():
            end(list(remaining))
        for reader in self.readers:
            reader.join(2)
        return {
            "lines": self.lines,
            "events": self.events,
            "left": left,
            "code": code,
            "errors": self.errors.decode("utf-8", "replace"),
        }


def end(processes: list[psutil.Process]) -> None:
    """Suspend all processes, so that none starts another, then kill them."""
    for act in ("suspend", "kill"):
        for process in processes:
            with contextlib.suppress(psutil.Error):
                getattr(process, act)()
    psutil.wait_procs(processes, timeout=2)


def main() -> None:
    """Read the task from standard input, watch it, write the results to standard output."""
    if sys.platform.startswith("linux"):
        # Become the parent of all below whose own parent ends. Elsewhere such a process becomes the
        # system's, and is known by the mark in its environment.
        pr_set_child_subreaper = 36
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(1))
    keeper = Keeper(json.load(sys.stdin))
    try:
        keeper.watch()
    finally:
        found = keeper.finish()
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
