"""``labkit gradebook``: enter grades into nbgrader's gradebook."""

from __future__ import annotations

from pathlib import Path

import click

from labkit.cli._output import json_option, only_results_on_stdout


@click.command()
@click.argument("table", default=Path("build/grades.csv"), type=click.Path(path_type=Path))
@click.option(
    "--db",
    default="sqlite:///build/gradebook.db",
    show_default=True,
    help="The gradebook, as nbgrader's CourseDirectory.db_url names it.",
)
@json_option
def command(*, table: Path, db: str, as_json: bool) -> None:
    """Enter TABLE (default: build/grades.csv) into nbgrader's gradebook.

    Written points are those in the table's column "written".
    """
    with only_results_on_stdout() as show:
        from labkit.grading.gradebook import enter

        rows = enter(table, db)
        show({"entered": rows, "db": db} if as_json else f"{rows} rows entered into {db}")
