"""What a submission may use, and how the operating system enforces it.

On Linux and macOS a process's memory, files and core dumps are limited by the system
(``setrlimit``), and those of whatever it starts. Windows has no such call: there only the keeper's
watch holds, which looks at memory and the number of processes twice a second, on every system.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import asdict, dataclass

from labkit.errors import LabkitError

MEGABYTE = 1 << 20
FILE_BYTES = 512 * MEGABYTE
"""The longest file that a submission may write."""
MOST_PROCESSES = 100
"""Processes that a submission may have at once, threads not counted."""


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


def adopt_orphans() -> None:
    """Make this process the parent of all below it whose own parent ends; Linux only.

    Elsewhere such a process becomes the system's, and is known by the mark in its environment.
    """
    if sys.platform.startswith("linux"):
        pr_set_child_subreaper = 36
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1, 0, 0, 0)
