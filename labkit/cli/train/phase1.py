"""``labkit train phase1``: heads on ordinary text."""

from __future__ import annotations

from pathlib import Path

from labkit.cli._output import Report, reports
from labkit.cli.train._shared import out_option, recipe_option, run_phases, start_option


@reports
@recipe_option
@out_option
@start_option
def command(*, recipe: Path, out: Path, start: Path | None) -> Report | None:
    """Train heads on ordinary text, the base model frozen."""
    return run_phases(recipe, out, (1,), None, start)
