"""Settings of how threads wait for each other, chosen before torch or numba is loaded.

A pass through a small model is thousands of short parallel pieces with a barrier after each. GNU's
OpenMP, which torch uses on Linux, spins at a barrier: fast while every thread has a core of its
own, ruinous once another process takes one, since the spinning thread then keeps the late one from
running (measured: a 30 ms pass became 1,216 ms). A short spin and then sleep costs about 15% when
quiet and about a factor of two when not. OpenMP reads its settings once, as it is loaded.

If more threads wait than there are cores, OpenMP cuts the spin to a twentieth. That happens as
soon as passes run in a second Python thread, as in a server, because the first one's OpenMP threads
stay. Every barrier then ends in sleep, and a pass takes 39 ms instead of 23. `OMP_WAIT_POLICY`
keeps half of the spin.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SPIN_COUNT = "2000"
"""Turns at a barrier before a thread sleeps; by default OpenMP spins for milliseconds."""

WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
"""The variables that decide how OpenMP waits; those that the user set are left alone."""

CONTENDED = 0.15
"""Above this `contention` timings are unreliable; benchmarks then say so."""

CONTAINER_LIMIT = Path("/sys/fs/cgroup/cpu.max")
"""Linux's limit of a container's processor time: a quota and a period."""


def settle_waiting() -> None:
    """Choose a short spin unless the user chose otherwise; called when labkit is imported."""
    if any(name in os.environ for name in WAITING):
        return
    os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT
    if sys.platform == "linux":  # other systems' OpenMP would take it to mean: spin for ever
        os.environ["OMP_WAIT_POLICY"] = "active"


def waiting() -> str:
    """Return how OpenMP waits in this process, as text."""
    chosen = ", ".join(f"{name}={os.environ[name]}" for name in WAITING if name in os.environ)
    return chosen or "OpenMP's defaults"


def cores() -> int:
    """Return how many cores this process may use, a container's limit included."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not every system can bind a process to cores
        allowed = os.cpu_count() or 1
    return max(1, min(allowed, _container_limit() or allowed))


def _container_limit() -> int | None:
    """Return the whole cores that Linux's control group grants, or None without a limit."""
    try:
        quota, period = CONTAINER_LIMIT.read_text(encoding="ascii").split()
    except (OSError, ValueError):  # another system, or the older layout of control groups
        return None
    return None if quota == "max" else max(1, int(quota) // int(period))


def contention(seconds: float = 0.1) -> float:
    """Return the share of the requested processor time that other processes took, 0 to 1.

    One thread a core hashes zeros for ``seconds``; the time that they got is compared with the
    time that passed. A quiet machine gives about 0; two cores with another process on one of them
    about 1/3.
    """
    threads = cores()
    block = bytes(1 << 19)
    start = time.perf_counter()

    def burn(_: int) -> float:
        began = time.thread_time()
        while time.perf_counter() - start < seconds:
            hashlib.sha256(block)  # lets other threads run meanwhile
        return time.thread_time() - began

    with ThreadPoolExecutor(threads) as pool:
        got = sum(pool.map(burn, range(threads)))
    return max(0.0, 1.0 - got / ((time.perf_counter() - start) * threads))
