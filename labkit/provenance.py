"""Provenance of a recorded figure: command, seed, versions, machine class and date."""

from __future__ import annotations

import platform
import shlex
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from labkit import threads
from labkit.records import Provenance

FROM_PYTHON = "called from Python"
"""Stands for the command where none was run."""

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


def command_line(command: str, **options: Any) -> str:
    """Return ``command`` with its options; None and False are left out, True is a flag.

    A list gives its option once for each value, a tuple has commas between its values. Paths
    inside the working folder are shown relative to it.

    >>> command_line("labkit train all", recipe=Path("tiny.toml"), answers=None, quick=True)
    'labkit train all --recipe tiny.toml --quick'
    >>> command_line("labkit bench serving", users=(1, 4), max_new_tokens=64)
    'labkit bench serving --users 1,4 --max-new-tokens 64'
    >>> command_line("labkit record", base="model-2.0", only=["race", "tree"])
    'labkit record --base model-2.0 --only race --only tree'
    >>> command_line("labkit bench gpu", minutes=6.0)
    'labkit bench gpu --minutes 6'
    """
    words = command.split()
    for option, given in options.items():
        for value in given if isinstance(given, list) else [given]:
            if value is not None and value is not False:
                words.append(f"--{option.replace('_', '-')}")
                if value is not True:
                    words.append(_word(value))
    return shlex.join(words)


def _word(value: Any) -> str:
    """Return an option's value as it is given on the command line."""
    if isinstance(value, Path):
        whole, here = value.absolute(), Path.cwd()
        return whole.relative_to(here).as_posix() if whole.is_relative_to(here) else str(value)
    if isinstance(value, tuple):
        return ",".join(map(_word, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
