"""``labkit train join``: two sets of heads as one."""

from __future__ import annotations

from pathlib import Path

import click

from labkit.cli._options import base_option
from labkit.cli._output import json_option, only_results_on_stdout


@click.command()
@click.argument("first", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("second", type=click.Path(exists=True, file_okay=False, path_type=Path))
@base_option()
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the joined heads, whose weights are rounded to 4 bits.",
)
@json_option
def command(*, first: Path, second: Path, base: str, out: Path, as_json: bool) -> None:
    """Join two sets of heads into one that drafts by the mean of their logits."""
    with only_results_on_stdout() as show:
        from labkit.models import load
        from labkit.training.join import join_folders

        made = join_folders(load(base), first, second, out)
        text = f"{made['weights']:,} weights and {made['draft_tokens']:,} draft tokens in {out}"
        show(made if as_json else text)
