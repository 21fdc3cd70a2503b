"""``labkit train plan``: the memory and time that a recipe would take on another machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from labkit.cli._options import COUNT
from labkit.cli._output import Report, reports, table
from labkit.cli.train._shared import recipe_option


@reports
@recipe_option
@click.option("--shape", default="real", help="Base model, as llama2-13b.")
@click.option("--gpu", default="cpu", help="Device, as h100; cpu: this one.")
@click.option("--gpus", type=COUNT, default=1, help="How many of them.")
def command(*, recipe: Path, shape: str, gpu: str, gpus: int) -> Report:
    """Estimate the memory and time that a recipe takes on another machine."""
    from labkit.training.plan import plan_training

    result = plan_training(recipe, shape, gpu, gpus)
    return Report(result, as_text(result))


def as_text(result: dict[str, Any]) -> str:
    """Return the plan for a person: memory by part, time by stage."""
    memory = [(part, f"{size / 1e9:.2f}") for part, size in result["memory"].items()]
    times = [(stage, duration(seconds)) for stage, seconds in result["seconds"].items()]
    batches = ", ".join(
        f"{phase}: {count or 'none fits'}" for phase, count in result["micro_batches"].items()
    )
    return "\n\n".join(
        (
            f"{result['recipe']} for {result['shape']} on {result['gpus']} x {result['gpu']}: "
            f"{result['base_weights'] / 1e9:.2f} billion weights, heads of "
            f"{result['head_weights'] / 1e6:.1f} million",
            table(("memory of a device", "GB"), memory),
            table(("stage", "time"), times),
            f"It {'fits' if result['fits'] else 'does NOT fit'} as the recipe stands; the fewest "
            f"micro-batches that fit: {batches}.",
        )
    )


def duration(seconds: float) -> str:
    """Return a time in words.

    >>> duration(42.4), duration(600), duration(9000)
    ('42 s', '10.0 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
