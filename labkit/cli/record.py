"""``labkit record``: make the records that the gallery and the README show."""

from __future__ import annotations

from pathlib import Path

import click

from labkit.cli._options import FOLDER, base_option
from labkit.cli._output import Report, given_command, reports

KINDS = ("race", "steps", "risk", "tree")
"""As in `labkit.recordings.MAKERS`, which is not imported just to print the help."""


@reports
@base_option()
@click.option(
    "--out",
    type=FOLDER,
    required=True,
    help="Folder for the records; those shipped are in data/records.",
)
@click.option(
    "--only", type=click.Choice(KINDS), multiple=True, help="Make only these; all without it."
)
def command(*, base: str, out: Path, only: tuple[str, ...]) -> Report:
    """Record a race, a generation in detail, a Bayes decision and a tree study."""
    from labkit.recordings import record

    paths = [str(path) for path in record(base, out, only or KINDS, given_command())]
    return Report({"records": paths}, "\n".join(paths))
