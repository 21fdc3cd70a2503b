"""``labkit record``: make the records that the gallery and the README show."""

from __future__ import annotations

from pathlib import Path

import click

from labkit.cli._options import base_option
from labkit.cli._output import json_option, only_results_on_stdout

KINDS = ("race", "steps", "risk", "tree")
"""As in `labkit.recordings.MAKERS`, which is not imported just to print the help."""


@click.command()
@base_option()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for the records; those shipped lie in data/records.",
)
@click.option(
    "--only", type=click.Choice(KINDS), multiple=True, help="Make only these; all without it."
)
@json_option
def command(*, base: str, out: Path, only: tuple[str, ...], as_json: bool) -> None:
    """Record a race, a generation in detail, a Bayes decision and a tree study."""
    with only_results_on_stdout() as show:
        from labkit.recordings import record

        paths = [str(path) for path in record(base, out, only or KINDS)]
        show({"records": paths} if as_json else "\n".join(paths))
