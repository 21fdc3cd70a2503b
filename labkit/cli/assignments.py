"""``labkit assignments``: make the students' copies."""

from __future__ import annotations

from pathlib import Path

import click

from labkit.cli._options import FOLDER
from labkit.cli._output import Report, reports


@reports
@click.argument("names", nargs=-1)
@click.option(
    "--out",
    default=Path("build/release"),
    type=FOLDER,
    help="Folder for the copies, NAME/NAME.ipynb in it.",
)
def command(*, names: tuple[str, ...], out: Path) -> Report:
    """Make the students' copies of the assignments called NAMES, or of all.

    A copy that is there already is replaced, whatever was written into it.
    """
    from labkit.grading.build import build

    paths = [str(path) for path in build(out, names)]
    return Report({"files": paths}, "\n".join(paths))
