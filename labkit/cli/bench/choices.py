"""``labkit bench choices``: what each choice of a Bayes decision does to quality."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from labkit.cli._output import json_option, only_results_on_stdout, table
from labkit.cli.bench._drawing import drawing_options, drawn_cases

FINDINGS = {
    "samples": "Decisions from 1, 2, 4, … samples; the gain is over one sample",
    "utilities": "Decisions under each utility; the gain is over the most frequent sample",
    "weightings": "How samples stand for p(y|x); the gain is over uniform",
}
"""What each table shows."""


@click.command()
@drawing_options()
@json_option
def command(*, utility: str, resamples: int, as_json: bool, **drawing: Any) -> None:
    """Decide a test set in every way from the same samples: number, utility, weighting."""
    with only_results_on_stdout() as show:
        from labkit.mbr.study import textbook

        cases = drawn_cases(utility=utility, **drawing)
        found = textbook(cases, utility, resamples=resamples)
        result: dict[str, Any] = {
            "segments": len(cases),
            **{name: [asdict(row) for row in rows] for name, rows in found.items()},
        }
        show(result if as_json else as_text(result))


def as_text(result: dict[str, Any]) -> str:
    """The three tables for a person."""
    parts = []
    for name, said in FINDINGS.items():
        rows = [
            (
                row["metric"],
                row["system"],
                f"{row['score']:.1f}",
                f"{row['low']:.1f} to {row['high']:.1f}",
                f"{row['gain']:+.1f}",
                f"{row['gain_low']:+.1f} to {row['gain_high']:+.1f}",
                f"{row['p']:.3f}",
            )
            for row in result[name]
        ]
        header = ("metric", "decided by", "score", "95%", "gain", "95%", "p")
        parts.append(f"{said}:\n{table(header, rows)}")
    parts.append(f"{result['segments']:,} sentences; intervals and p by paired bootstrap")
    return "\n\n".join(parts)
