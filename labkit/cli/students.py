"""``labkit students``: write what students get."""

from __future__ import annotations

from pathlib import Path

import click

from labkit.cli._output import json_option, only_results_on_stdout


@click.command()
@click.option(
    "--out",
    default=Path("build/students"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the course; one that this command wrote before is replaced.",
)
@json_option
def command(*, out: Path, as_json: bool) -> None:
    """Write the course for students: notebooks, released assignments, and what they need.

    It holds no solution and no hidden test.
    """
    with only_results_on_stdout() as show:
        from labkit.grading.students import write_students

        write_students(out)
        show({"folder": str(out)} if as_json else str(out))
