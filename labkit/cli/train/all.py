"""``labkit train all``: both phases of a recipe."""

from __future__ import annotations

from pathlib import Path

import click

from labkit.cli._output import json_option
from labkit.cli.train._shared import (
    answers_option,
    out_option,
    recipe_option,
    run_phases,
    start_option,
)


@click.command()
@recipe_option
@out_option
@answers_option
@start_option
@json_option
def command(
    *, recipe: Path, out: Path, answers: Path | None, start: Path | None, as_json: bool
) -> None:
    """Train heads through both phases; a run that was stopped goes on."""
    run_phases(recipe, out, (1, 2), answers, start, as_json)
