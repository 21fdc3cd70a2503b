"""Provenance of a recorded figure: command, seed, versions, machine class and date."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec

from labkit import threads
from labkit.records import Provenance

PACKAGES = ("torch", "transformers", "numba", "numpy")
"""Packages whose versions can change a figure."""


def provenance(command: str, seed: int | None = None, note: str = "") -> Provenance:
    """Return the provenance of what ``command`` computed now, on this class of machine."""
    return Provenance(
        command=command,
        seed=seed,
        versions={name: version(name) for name in PACKAGES if find_spec(name)},
        machine=f"{platform.machine()}, {threads.cores()} cores",
        date=datetime.now(UTC).date().isoformat(),
        note=note,
    )
