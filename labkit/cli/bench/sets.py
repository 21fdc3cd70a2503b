"""``labkit bench sets``: several answers at once, chosen together or one by one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from labkit.cli._options import COUNT
from labkit.cli._output import json_option, only_results_on_stdout, table
from labkit.cli.bench._drawing import drawing_options, drawn_cases


@click.command()
@drawing_options(weighting="model", epsilon=0.02)
@click.option("--size", type=COUNT, default=3, show_default=True, help="Hypotheses in a set.")
@click.option(
    "--diversity", type=float, default=0.5, show_default=True, help="What likeness costs a set."
)
@click.option("--metric", default="chrf", show_default=True, help="Scores the best of the set.")
@json_option
def command(
    *,
    size: int,
    diversity: float,
    metric: str,
    utility: str,
    weighting: Any,
    resamples: int,
    as_json: bool,
    **drawing: Any,
) -> None:
    """Choose sets of hypotheses, and score each set's best member against the reference."""
    with only_results_on_stdout() as show:
        from labkit.mbr import utilities
        from labkit.mbr.sets import compare_sets

        utilities.get(metric)
        cases = drawn_cases(utility=utility, **drawing)
        found = compare_sets(cases, size, utility, weighting, metric, diversity, resamples)
        result = {"segments": len(cases), "size": size, "metric": metric}
        result["sets"] = [asdict(row) for row in found]
        show(result if as_json else as_text(result))


def as_text(result: dict[str, Any]) -> str:
    """A row for each way to choose a set."""
    rows = [
        (
            row["way"],
            f"{row['oracle']:.1f}",
            f"{row['low']:.1f} to {row['high']:.1f}",
            f"{row['gain']:+.1f}",
            f"{row['gain_low']:+.1f} to {row['gain_high']:+.1f}",
            f"{row['risk']:.4f}",
        )
        for row in result["sets"]
    ]
    header = (f"{result['size']} chosen as", f"oracle {result['metric']}", "95%", "gain", "95%")
    return (
        f"{table((*header, 'set risk'), rows)}\n\n{result['segments']:,} sources; the oracle takes "
        "each set's best by the reference; gains are over the best single hypotheses."
    )
