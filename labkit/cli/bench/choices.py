"""``labkit bench choices``: what each choice of a Bayes decision does to quality."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from labkit.cli._options import COUNT, base_option, device_option, pairs_options, seed_option
from labkit.cli._output import json_option, only_results_on_stdout, table

FINDINGS = {
    "samples": "Decisions from 1, 2, 4, … samples; the gain is over one sample",
    "utilities": "Decisions under each utility; the gain is over the most frequent sample",
    "weightings": "How samples stand for p(y|x); the gain is over uniform",
}
"""What each table shows."""


@click.command()
@base_option("translator")
@pairs_options()
@click.option(
    "--samples", type=COUNT, default=64, show_default=True, help="How many to draw of each source."
)
@click.option("--utility", default="chrf", show_default=True, help="chrf, bleu, chrf++, exact, …")
@click.option("--temperature", type=float, default=1.0, show_default=True, help="1: the model's.")
@click.option(
    "--epsilon", type=float, default=0.0, help="Never draw a token less probable than this."
)
@click.option(
    "--max-new-tokens",
    type=COUNT,
    default=128,
    show_default=True,
    help="Longest output, in tokens.",
)
@click.option(
    "--resamples", type=COUNT, default=1000, show_default=True, help="Of the paired bootstrap."
)
@seed_option
@device_option
@json_option
def command(
    *,
    base: str,
    pairs: Path | None,
    columns: str | None,
    samples: int,
    utility: str,
    temperature: float,
    epsilon: float,
    max_new_tokens: int,
    resamples: int,
    seed: int,
    device: str | None,
    as_json: bool,
) -> None:
    """Decide a test set in every way from the same samples: number, utility, weighting."""
    with only_results_on_stdout() as show:
        from tqdm import tqdm

        from labkit import load
        from labkit.mbr import utilities
        from labkit.mbr.conditional import check_sources, conditional
        from labkit.mbr.draws import Draws
        from labkit.mbr.pairs import read_pairs
        from labkit.mbr.study import draw_cases, textbook
        from labkit.paths import data_dir
        from labkit.sampling import Sampling

        utilities.get(utility)  # a wrong name is told before the model is loaded
        how = Draws(
            samples=samples,
            max_new_tokens=max_new_tokens,
            seed=seed,
            sampling=Sampling(temperature=temperature, epsilon=epsilon),
        )
        known = read_pairs(
            pairs or data_dir() / "sentences" / "deu-eng.tsv", columns and columns.split(",")
        )
        model = load(base, device)
        check_sources(model, [source for source, _ in known])
        drawn = draw_cases(conditional(model), known, how)
        cases = list(tqdm(drawn, total=len(known), unit=" sources", disable=None))
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
