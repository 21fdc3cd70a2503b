"""``labkit bench uncertainty``: how well the minimum risk tells good decisions from bad ones."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from labkit.cli._output import json_option, only_results_on_stdout, table
from labkit.cli.bench._drawing import drawing_options, drawn_cases


@click.command()
@drawing_options(weighting="counts", epsilon=0.0)
@click.option("--metric", default="chrf", show_default=True, help="True loss: 1 - this metric.")
@json_option
def command(
    *, metric: str, utility: str, weighting: Any, resamples: int, as_json: bool, **drawing: Any
) -> None:
    """Draw a risk-coverage curve for each confidence score of an MBR decision, with its area.

    A score is good if the decisions it trusts least are the worst ones. The area under the curve
    is the mean loss over all coverages; lower is better.
    """
    with only_results_on_stdout() as show:
        from labkit.mbr import utilities
        from labkit.mbr.uncertainty import compare_areas, judge, risk_coverage

        utilities.get(metric)
        cases = drawn_cases(utility=utility, **drawing)
        judged = judge(cases, utility, weighting, metric)
        areas = compare_areas(judged.scores, judged.loss, resamples)
        curves = {name: risk_coverage(of, judged.loss) for name, of in judged.scores.items()}
        shown = (0.25, 0.5, 0.75, 1.0)
        result = {
            "segments": len(cases),
            "metric": metric,
            "areas": [asdict(area) for area in areas],
            "coverage": list(shown),
            "risk": {
                name: [float(curve.risk[max(round(at * len(cases)), 1) - 1]) for at in shown]
                for name, curve in curves.items()
            },
        }
        show(result if as_json else as_text(result))


def as_text(result: dict[str, Any]) -> str:
    """The areas and some points of the curves for a person."""
    rows = [
        (
            area["score"],
            *(f"{risk:.3f}" for risk in result["risk"][area["score"]]),
            f"{area['area']:.4f}",
            f"{area['low']:.4f} to {area['high']:.4f}",
            f"{area['excess']:+.4f}",
            f"{area['excess_low']:+.4f} to {area['excess_high']:+.4f}",
        )
        for area in result["areas"]
    ]
    header = ("confidence", *(f"loss at {at:.0%}" for at in result["coverage"]))
    header += ("area", "95%", "area - minimum risk's", "95%")
    return (
        f"{table(header, rows)}\n\n{result['segments']:,} decisions; loss is 1 - "
        f"{result['metric']} against the reference; intervals by paired bootstrap. Lower is better."
    )
