"""``labkit students``: write what students get."""

from __future__ import annotations

from pathlib import Path

import click

from labkit.cli._options import FOLDER
from labkit.cli._output import Report, reports


@reports
@click.option(
    "--out",
    default=Path("build/students"),
    type=FOLDER,
    help="Folder for the course; one that this command wrote before is replaced.",
)
def command(*, out: Path) -> Report:
    """Write the course for students: notebooks, released assignments, and what they need.

    It holds no solution and no hidden test.
    """
    from labkit.grading.students import write_students

    folder = str(write_students(out))
    return Report({"folder": folder}, folder)
