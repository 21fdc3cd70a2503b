"""A server started by a command, measured, and stopped again."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence

from labkit.errors import LabkitError
from labkit.questions import read_questions
from labkit.records import ServingLog
from labkit.serving.bench import Level, Loads, bench_server
from labkit.serving.targets import RemoteServer

PAUSE = 1.0
"""Seconds between two attempts to reach a server that is starting."""


def bench_command(
    command: Sequence[str],
    url: str = "http://127.0.0.1:8000",
    users: Sequence[int] = (1, 8),
    requests: int = 24,
    start_s: float = 600.0,
) -> ServingLog:
    """Start the server, measure it under each number of users, stop it, and return the log.

    Raises `LabkitError` if the command cannot be run, ends, or does not answer within ``start_s``.
    """
    try:
        process = subprocess.Popen([*command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError as error:
        raise LabkitError(f"Cannot start {command[0]!r}: {error.strerror or error}.") from None
    try:
        server = _reached(process, url, time.monotonic() + start_s)
        prompts = [question.turns[0] for question in read_questions()]
        return bench_server(server, prompts, Loads([Level(n) for n in users], requests)).log
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _reached(process: subprocess.Popen, url: str, until: float) -> RemoteServer:
    """Return the server once it answers."""
    while True:
        try:
            return RemoteServer(url)
        except LabkitError as error:
            if process.poll() is not None:
                raise LabkitError(
                    f"The server's command ended with status {process.returncode}: run it in a "
                    "terminal to see why."
                ) from None
            if time.monotonic() > until:
                raise LabkitError(f"The server did not start in time. {error}") from None
        time.sleep(PAUSE)
