"""``labkit notebooks``: run the course without a browser, and list errors and warnings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from labkit.cli._options import base_option
from labkit.cli._output import Report, columns, reports, say

AMISS = 1
"""The exit status if a notebook ran, but showed an error or a warning."""


@reports
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@base_option()
def command(*, paths: tuple[Path, ...], base: str) -> Report:
    """Run the notebooks in PATHS, or the whole course, in order; none is changed."""
    from labkit.course.run import course, run

    rows: list[dict[str, Any]] = []
    for path in paths or course():
        say(f"{path.name} ...")
        done = run(path, base)
        seconds, complaints = round(done.seconds, 1), list(done.complaints)
        rows.append({"name": done.path.name, "seconds": seconds, "complaints": complaints})
    text = columns(
        [{**row, "amiss": "; ".join(row["complaints"]) or "clean"} for row in rows],
        ("notebook", "{name}"),
        ("time", "{seconds:.0f} s"),
        ("shown amiss", "{amiss}"),
    )
    status = AMISS if any(row["complaints"] for row in rows) else 0
    return Report({"base": base, "notebooks": rows}, text, status)
