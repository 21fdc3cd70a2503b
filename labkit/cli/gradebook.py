"""``labkit gradebook``: enter grades into nbgrader's gradebook."""

from __future__ import annotations

from pathlib import Path

import click

from labkit.cli._output import Report, reports


@reports
@click.argument("table", default=Path("build/grades.csv"), type=click.Path(path_type=Path))
@click.option(
    "--db",
    default="sqlite:///build/gradebook.db",
    help="The gradebook, as nbgrader's CourseDirectory.db_url names it.",
)
def command(*, table: Path, db: str) -> Report:
    """Enter TABLE (default: build/grades.csv) into nbgrader's gradebook.

    Written points are those in the table's column "written".
    """
    from labkit.grading.gradebook import enter

    rows = enter(table, db)
    return Report({"entered": rows, "db": db}, f"{rows} rows entered into {db}")
