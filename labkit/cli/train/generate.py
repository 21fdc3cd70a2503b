"""``labkit train generate``: the answers of the base model that phase 2 trains on."""

from __future__ import annotations

from pathlib import Path

import click

from labkit.cli._output import json_option, only_results_on_stdout
from labkit.cli.train._shared import recipe_option


@click.command()
@recipe_option
@json_option
def command(*, recipe: Path, as_json: bool) -> None:
    """Have the base model write the answers of phase 2; goes on if stopped."""
    with only_results_on_stdout() as show:
        from labkit.training.train import generate

        made = generate(recipe)
        text = f"{made['answers']:,} answers of {made['tokens']:,} tokens in {made['folder']}"
        show(made if as_json else text)
