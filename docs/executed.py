"""The course's notebooks with their outputs, run once and kept in the cache folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import click
import nbformat

from docs import stage
from labkit.course.run import course, run
from labkit.errors import LabkitError
from labkit.paths import cache_dir, data_dir
from labkit.records import write_whole


def options(command: Any) -> Any:
    """Add the options that say whether, and on which model, the notebooks are run."""
    execute = click.option(
        "--execute/--no-execute",
        default=True,
        show_default=True,
        help="Show what the notebooks give; only those that changed since last time are run.",
    )
    base = click.option(
        "--base", default="tiny", show_default=True, help="The model to run them on."
    )
    return execute(base(command))


def outputs(base: str) -> dict[str, Any]:
    """Return each notebook of the course with its outputs on ``base``, by its name.

    They are kept in the cache folder under a digest of the notebook, the package and its data, so
    that only what changed is run again. Raises `LabkitError` where a notebook shows an error or a
    warning.
    """
    found, count, labkit = {}, 0, _digest(stage.PACKAGE, data_dir())
    for path in course():
        file = kept(base) / f"{path.stem}-{_digest(path)}-{labkit}.ipynb"
        if not file.is_file():
            click.echo(f"{path.name} ...", err=True)
            done = run(path, base)
            if done.complaints:
                raise LabkitError(f"{path.name} on {base}: {done.complaints[0]}")
            for old in kept(base).glob(f"{path.stem}-*.ipynb"):
                old.unlink()
            done.notebook.metadata["base"] = base
            write_whole(file, nbformat.writes(done.notebook))
            count += 1
        found[path.name] = nbformat.read(file, as_version=4)
    click.echo(f"{count} notebooks were run on {base}, {len(found) - count} taken from the cache")
    return found


def kept(base: str) -> Path:
    """Return the folder of the notebooks that were run on ``base``."""
    return cache_dir() / "notebooks" / base


def _digest(*places: Path) -> str:
    """Return a digest of files, and of all files in folders."""
    seen = hashlib.sha256()
    for place in places:
        for path in [place] if place.is_file() else sorted(place.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                seen.update(path.name.encode() + path.read_bytes())
    return seen.hexdigest()[:12]
