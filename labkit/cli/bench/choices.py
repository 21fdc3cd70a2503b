"""``labkit bench choices``: what each choice of a Bayes decision does to quality."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from labkit.cli._output import Report, columns, reports
from labkit.cli.bench._drawing import drawing_options, drawn_cases, resamples_option

FINDINGS = {
    "samples": "Decisions from 1, 2, 4, … samples; the gain is over one sample",
    "utilities": "Decisions under each utility; the gain is over the most frequent sample",
    "weightings": "How samples stand for p(y|x); the gain is over uniform",
}
"""What each table shows."""


@reports
@drawing_options()
@resamples_option
def command(*, utility: str, resamples: int, **drawing: Any) -> Report:
    """Decide a test set in every way from the same samples: number, utility, weighting."""
    from labkit.mbr.study import textbook

    cases = drawn_cases(utility=utility, **drawing)
    found = textbook(cases, utility, resamples=resamples)
    result: dict[str, Any] = {
        "segments": len(cases),
        **{name: [asdict(row) for row in rows] for name, rows in found.items()},
    }
    return Report(result, as_text(result))


def as_text(result: dict[str, Any]) -> str:
    """Return the three tables for a person."""
    shown = (
        ("metric", "{metric}"),
        ("decided by", "{system}"),
        ("score", "{score:.1f}"),
        ("95%", "{low:.1f} to {high:.1f}"),
        ("gain", "{gain:+.1f}"),
        ("95%", "{gain_low:+.1f} to {gain_high:+.1f}"),
        ("p", "{p:.3f}"),
    )
    parts = [f"{said}:\n{columns(result[name], *shown)}" for name, said in FINDINGS.items()]
    parts.append(f"{result['segments']:,} sentences; intervals and p by paired bootstrap")
    return "\n\n".join(parts)
