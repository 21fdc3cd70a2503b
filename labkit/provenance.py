"""How a recorded figure came to be, in the words that every record uses."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import version

from labkit import threads
from labkit.records import Provenance

PACKAGES = ("torch", "transformers", "numba", "numpy")
"""The packages whose versions can change a figure."""


def provenance(command: str, seed: int | None = None, note: str = "") -> Provenance:
    """What ``command`` made just now, on this class of machine."""
    return Provenance(
        command=command,
        seed=seed,
        versions={name: version(name) for name in PACKAGES},
        machine=f"{platform.machine()}, {threads.cores()} cores",
        date=datetime.now(UTC).date().isoformat(),
        note=note,
    )
