"""``labkit train phase1``: heads on ordinary text."""

from __future__ import annotations

from pathlib import Path

import click

from labkit.cli._output import json_option
from labkit.cli.train._shared import out_option, recipe_option, run_phases, start_option


@click.command()
@recipe_option
@out_option
@start_option
@json_option
def command(*, recipe: Path, out: Path, start: Path | None, as_json: bool) -> None:
    """Train heads on ordinary text, the base model frozen."""
    run_phases(recipe, out, (1,), None, start, as_json)
