"""``labkit assignments``: make the students' copies."""

from __future__ import annotations

from pathlib import Path

import click

from labkit.cli._output import json_option, only_results_on_stdout


@click.command()
@click.argument("names", nargs=-1)
@click.option(
    "--out",
    default=Path("build/release"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the copies, NAME/NAME.ipynb in it.",
)
@json_option
def command(*, names: tuple[str, ...], out: Path, as_json: bool) -> None:
    """Make the students' copies of the assignments called NAMES, or of all."""
    with only_results_on_stdout() as show:
        from labkit.grading.build import build

        paths = build(out, names)
        show({"files": [str(path) for path in paths]} if as_json else "\n".join(map(str, paths)))
