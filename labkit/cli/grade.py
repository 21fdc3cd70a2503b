"""``labkit grade``: grade a batch of submissions."""

from __future__ import annotations

from pathlib import Path

import click

from labkit.cli._options import COUNT
from labkit.cli._output import json_option, only_results_on_stdout, table


@click.command()
@click.argument("submissions", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--out",
    default=Path("build"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for grades.csv, feedback/ and graded/ (what was graded already).",
)
@click.option("--jobs", type=COUNT, default=1, show_default=True, help="How many at a time.")
@click.option("--again", is_flag=True, help="Grade again what is graded already.")
@click.option(
    "--cell-seconds", type=COUNT, default=120, show_default=True, help="For each cell and test."
)
@click.option(
    "--wall-seconds", type=COUNT, default=1200, show_default=True, help="For each submission."
)
@click.option(
    "--memory-mb", type=COUNT, default=4096, show_default=True, help="For each submission."
)
@click.option("--output-kb", type=COUNT, default=200, show_default=True, help="For each cell.")
@json_option
def command(
    *,
    submissions: Path,
    out: Path,
    jobs: int,
    again: bool,
    cell_seconds: int,
    wall_seconds: int,
    memory_mb: int,
    output_kb: int,
    as_json: bool,
) -> None:
    """Grade SUBMISSIONS/STUDENT/NAME/NAME.ipynb, which runs what students wrote.

    docs/teaching.md says what is not isolated, and how to run this as another
    user.
    """
    with only_results_on_stdout() as show:
        from dataclasses import asdict

        from tqdm import tqdm

        from labkit.grading.limits import Limits
        from labkit.grading.loop import COLUMNS, find, grade

        batch = find(submissions)
        grades = grade(
            batch,
            out,
            Limits(cell_seconds, wall_seconds, memory_mb, output_kb),
            jobs=jobs,
            again=again,
            watch=lambda done: tqdm(done, total=len(batch), desc="graded", unit=""),
        )
        if as_json:
            rows = [{key: asdict(one)[key] for key in COLUMNS} for one in grades]
            show({"grades": rows, "table": str(out / "grades.csv")})
        else:
            lines = [
                (one.student, one.assignment, one.status, f"{one.score:g} of {one.max_score:g}")
                for one in grades
            ]
            show(table(("student", "assignment", "status", "score"), lines))
