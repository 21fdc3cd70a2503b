"""``labkit grade``: grade a batch of submissions."""

from __future__ import annotations

from pathlib import Path

import click

from labkit.cli._options import COUNT, FOLDER
from labkit.cli._output import Report, columns, reports


@reports
@click.argument("submissions", type=FOLDER)
@click.option(
    "--out",
    default=Path("build"),
    type=FOLDER,
    help="Folder for grades.csv, feedback/ and graded/ (what was graded already).",
)
@click.option("--jobs", type=COUNT, default=1, help="How many at a time.")
@click.option("--again", is_flag=True, help="Grade again what is graded already.")
@click.option("--cell-seconds", type=COUNT, default=120, help="For each cell and test.")
@click.option("--wall-seconds", type=COUNT, default=1200, help="For each submission.")
@click.option("--memory-mb", type=COUNT, default=4096, help="For each submission.")
@click.option("--output-kb", type=COUNT, default=200, help="For each cell.")
def command(*, submissions: Path, out: Path, jobs: int, again: bool, **limits: int) -> Report:
    """Grade SUBMISSIONS/STUDENT/NAME/NAME.ipynb, which runs what students wrote.

    docs/teaching.md says what is not isolated, and how to run this as another
    user.
    """
    from tqdm import tqdm

    from labkit.grading.limits import Limits
    from labkit.grading.loop import COLUMNS, find, grade

    batch = find(submissions)
    grades = grade(
        batch,
        out,
        Limits(**limits),
        jobs=jobs,
        again=again,
        watch=lambda done: tqdm(done, total=len(batch), desc="graded", unit=""),
    )
    rows = [{name: getattr(one, name) for name in COLUMNS} for one in grades]
    text = columns(
        rows,
        ("student", "{student}"),
        ("assignment", "{assignment}"),
        ("status", "{status}"),
        ("score", "{score:g} of {max_score:g}"),
    )
    return Report({"grades": rows, "table": str(out / "grades.csv")}, text)
