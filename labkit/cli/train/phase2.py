"""``labkit train phase2``: heads on the base model's own output."""

from __future__ import annotations

from pathlib import Path

from labkit.cli._output import Report, reports
from labkit.cli.train._shared import (
    answers_option,
    out_option,
    recipe_option,
    run_phases,
    start_option,
)


@reports
@recipe_option
@out_option
@answers_option
@start_option
def command(*, recipe: Path, out: Path, answers: Path | None, start: Path | None) -> Report | None:
    """Train heads on what the base model itself writes."""
    return run_phases(recipe, out, (2,), answers, start)
