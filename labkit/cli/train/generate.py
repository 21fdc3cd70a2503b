"""``labkit train generate``: the answers of the base model that phase 2 trains on."""

from __future__ import annotations

from pathlib import Path

from labkit.cli._output import Report, reports
from labkit.cli.train._shared import answers_made, recipe_option


@reports
@recipe_option
def command(*, recipe: Path) -> Report:
    """Have the base model write the answers of phase 2; goes on if stopped."""
    from labkit.training.train import generate

    made = generate(recipe)
    return Report(made, answers_made(made))
