"""Commands for teachers: the students' copies, their grades, and a check of the course."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from labkit.cli._options import COUNT, EXISTING_FILE, FOLDER, base_option, out_option
from labkit.cli._output import Report, columns, reports, say


@reports
@click.argument("names", nargs=-1)
@out_option("Folder for the copies, NAME/NAME.ipynb in it.", "build/release")
def assignments(*, names: tuple[str, ...], out: Path) -> Report:
    """Make the students' copies of the assignments called NAMES, or of all.

    A copy that is there already is replaced, whatever was written into it.
    """
    from labkit.grading.build import build

    paths = [str(path) for path in build(out, names)]
    return Report({"files": paths}, "\n".join(paths))


@reports
@out_option(
    "Folder for the course; one that this command wrote before is replaced.", "build/students"
)
def students(*, out: Path) -> Report:
    """Write the course for students: notebooks, released assignments, and what they need.

    It holds no solution and no hidden test.
    """
    from labkit.grading.build import write_students

    folder = str(write_students(out))
    return Report({"folder": folder}, folder)


@reports
@click.argument("submissions", type=FOLDER)
@out_option("Folder for grades.csv, feedback/ and graded/ (what was graded already).", "build")
@click.option("--jobs", type=COUNT, default=1, help="How many at a time.")
@click.option("--again", is_flag=True, help="Grade again what is graded already.")
@click.option("--cell-seconds", type=COUNT, default=120, help="For each cell and test.")
@click.option("--wall-seconds", type=COUNT, default=1200, help="For each submission.")
@click.option("--memory-mb", type=COUNT, default=4096, help="For each submission.")
@click.option("--output-kb", type=COUNT, default=200, help="For each cell.")
def grade(*, submissions: Path, out: Path, jobs: int, again: bool, **limits: int) -> Report:
    """Grade SUBMISSIONS/STUDENT/NAME/NAME.ipynb, which runs what students wrote.

    docs/teaching.md says what is not isolated, and how to run this as another
    user.
    """
    from tqdm import tqdm

    from labkit.grading import loop
    from labkit.grading.gradebook import COLUMNS
    from labkit.grading.keeper import Limits

    batch = loop.find(submissions)
    watch = partial(tqdm, total=len(batch), desc="graded", unit="")
    grades = loop.grade(batch, out, Limits(**limits), jobs=jobs, again=again, watch=watch)
    rows = [{name: getattr(one, name) for name in COLUMNS} for one in grades]
    text = columns(
        rows,
        ("student", "{student}"),
        ("assignment", "{assignment}"),
        ("status", "{status}"),
        ("score", "{score:g} of {max_score:g}"),
    )
    return Report({"grades": rows, "table": str(out / "grades.csv")}, text)


@reports
@click.argument("table", default=Path("build/grades.csv"), type=click.Path(path_type=Path))
@click.option(
    "--db",
    default="sqlite:///build/gradebook.db",
    help="The gradebook, as nbgrader's CourseDirectory.db_url names it.",
)
def gradebook(*, table: Path, db: str) -> Report:
    """Enter TABLE (default: build/grades.csv) into nbgrader's gradebook.

    Written points are those in the table's column "written".
    """
    from labkit.grading.gradebook import enter

    rows = enter(table, db)
    return Report({"entered": rows, "db": db}, f"{rows} rows entered into {db}")


@reports
@click.argument("paths", nargs=-1, type=EXISTING_FILE)
@base_option()
def notebooks(*, paths: tuple[Path, ...], base: str) -> Report:
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
    status = int(any(row["complaints"] for row in rows))  # 1: an error or a warning was shown
    return Report({"base": base, "notebooks": rows}, text, status)
