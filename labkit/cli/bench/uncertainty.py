"""``labkit bench uncertainty``: how well the minimum risk tells good decisions from bad ones."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from labkit.cli._output import Report, columns, reports
from labkit.cli.bench._drawing import drawing_options, drawn_cases, resamples_option

COVERAGE = (0.25, 0.5, 0.75, 1.0)
"""The coverages at which the curves are shown."""


@reports
@drawing_options(weighting="counts")
@resamples_option
@click.option("--metric", default="chrf", help="True loss: 1 - this metric.")
def command(*, metric: str, utility: str, weighting: Any, resamples: int, **drawing: Any) -> Report:
    """Draw a risk-coverage curve for each confidence score of an MBR decision, with its area.

    A score is good if the decisions it trusts least are the worst ones. The area under the curve
    is the mean loss over all coverages; lower is better.
    """
    from labkit.mbr import utilities
    from labkit.mbr.uncertainty import compare_areas, judge, risk_coverage

    utilities.get(metric)
    cases = drawn_cases(utility=utility, **drawing)
    judged = judge(cases, utility, weighting, metric)
    areas = [asdict(area) for area in compare_areas(judged.scores, judged.loss, resamples)]
    risk = {}
    for name, scores in judged.scores.items():
        curve = risk_coverage(scores, judged.loss).risk
        risk[name] = [float(curve[max(round(at * len(cases)), 1) - 1]) for at in COVERAGE]
    shown = columns(
        [{**area, "risk": risk[area["score"]]} for area in areas],
        ("confidence", "{score}"),
        *((f"loss at {at:.0%}", f"{{risk[{i}]:.3f}}") for i, at in enumerate(COVERAGE)),
        ("area", "{area:.4f}"),
        ("95%", "{low:.4f} to {high:.4f}"),
        ("area - minimum risk's", "{excess:+.4f}"),
        ("95%", "{excess_low:+.4f} to {excess_high:+.4f}"),
    )
    return Report(
        {
            "segments": len(cases),
            "metric": metric,
            "areas": areas,
            "coverage": list(COVERAGE),
            "risk": risk,
        },
        f"{shown}\n\n{len(cases):,} decisions; loss is 1 - {metric} against the reference; "
        "intervals by paired bootstrap. Lower is better.",
    )
