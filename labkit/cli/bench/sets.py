"""``labkit bench sets``: several answers at once, chosen together or one by one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from labkit.cli._options import COUNT
from labkit.cli._output import Report, columns, reports
from labkit.cli.bench._drawing import drawing_options, drawn_cases, resamples_option


@reports
@drawing_options(weighting="model", epsilon=0.02)
@resamples_option
@click.option("--size", type=COUNT, default=3, help="Hypotheses in a set.")
@click.option("--diversity", default=0.5, help="What likeness costs a set.")
@click.option("--metric", default="chrf", help="Scores the best of the set.")
def command(
    *,
    size: int,
    diversity: float,
    metric: str,
    utility: str,
    weighting: Any,
    resamples: int,
    **drawing: Any,
) -> Report:
    """Choose sets of hypotheses, and score each set's best member against the reference."""
    from labkit.mbr import utilities
    from labkit.mbr.sets import compare_sets

    utilities.get(metric)
    cases = drawn_cases(utility=utility, **drawing)
    found = compare_sets(cases, size, utility, weighting, metric, diversity, resamples)
    sets = [asdict(row) for row in found]
    shown = columns(
        sets,
        (f"{size} chosen as", "{way}"),
        (f"oracle {metric}", "{oracle:.1f}"),
        ("95%", "{low:.1f} to {high:.1f}"),
        ("gain", "{gain:+.1f}"),
        ("95%", "{gain_low:+.1f} to {gain_high:+.1f}"),
        ("set risk", "{risk:.4f}"),
    )
    return Report(
        {"segments": len(cases), "size": size, "metric": metric, "sets": sets},
        f"{shown}\n\n{len(cases):,} sources; the oracle takes each set's best by the reference; "
        "gains are over the best single hypotheses.",
    )
