"""``labkit train join``: two sets of heads as one."""

from __future__ import annotations

from pathlib import Path

import click

from labkit.cli._options import EXISTING_FOLDER, FOLDER, base_option
from labkit.cli._output import Report, reports


@reports
@click.argument("first", type=EXISTING_FOLDER)
@click.argument("second", type=EXISTING_FOLDER)
@base_option()
@click.option(
    "--out",
    required=True,
    type=FOLDER,
    help="Folder for the joined heads, whose weights are rounded to 4 bits.",
)
def command(*, first: Path, second: Path, base: str, out: Path) -> Report:
    """Join two sets of heads into one that drafts by the mean of their logits."""
    from labkit.models import load
    from labkit.training.join import join_folders

    made = join_folders(load(base), first, second, out)
    text = f"{made['weights']:,} weights and {made['draft_tokens']:,} draft tokens in {out}"
    return Report(made, text)
