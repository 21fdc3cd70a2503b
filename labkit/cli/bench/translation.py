"""``labkit bench translation``: greedy, beam, one sample, MBR and the oracle on a test set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from labkit.cli._options import (
    COUNT,
    WEIGHTINGS,
    base_option,
    device_option,
    pairs_options,
    seed_option,
)
from labkit.cli._output import json_option, only_results_on_stdout, table


@click.command()
@base_option("translator")
@pairs_options(required=True)
@click.option(
    "--samples", type=COUNT, default=64, show_default=True, help="How many to draw of each source."
)
@click.option("--utility", default="chrf", show_default=True, help="chrf, bleu, chrf++, exact, …")
@click.option(
    "--weights",
    "weighting",
    type=click.Choice(WEIGHTINGS),
    default="model",
    show_default=True,
    help="How samples stand for p(y|x).",
)
@click.option("--temperature", type=float, default=1.0, show_default=True, help="1: the model's.")
@click.option(
    "--epsilon",
    type=float,
    default=0.02,
    show_default=True,
    help="Never draw a token less likely than this; 0 draws from all.",
)
@click.option(
    "--max-new-tokens",
    type=COUNT,
    default=128,
    show_default=True,
    help="Longest output, in tokens.",
)
@click.option("--at-once", type=COUNT, default=32, show_default=True, help="Sources in memory.")
@click.option(
    "--journal",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that keeps what is done, so that a run that was stopped goes on.",
)
@seed_option
@device_option
@json_option
def command(
    *,
    base: str,
    pairs: Path,
    columns: str | None,
    samples: int,
    utility: str,
    weighting: Any,
    temperature: float,
    epsilon: float,
    max_new_tokens: int,
    at_once: int,
    journal: Path | None,
    seed: int,
    device: str | None,
    as_json: bool,
) -> None:
    """Translate a test set by every system, and score them: quality and time."""
    with only_results_on_stdout() as show:
        from accelerate import PartialState
        from tqdm import tqdm

        from labkit import load
        from labkit.mbr import utilities
        from labkit.mbr.conditional import check_sources, conditional
        from labkit.mbr.draws import Draws
        from labkit.mbr.pairs import read_pairs
        from labkit.mbr.translation import Plan, bench_translation
        from labkit.sampling import Sampling

        utilities.get(utility)  # a wrong name is told before the model is loaded
        drawing = Draws(
            samples=samples,
            max_new_tokens=max_new_tokens,
            seed=seed,
            at_once=at_once,
            sampling=Sampling(temperature=temperature, epsilon=epsilon),
        )
        known = read_pairs(pairs, columns and columns.split(","))
        plan = Plan(base=base, utility=utility, weighting=weighting, drawing=drawing)
        several = PartialState()
        share = several.process_index, several.num_processes
        model = load(base, device)
        check_sources(model, [source for source, _ in known])
        with tqdm(unit=" sources", disable=None) as bar:
            result = bench_translation(conditional(model), known, plan, journal, share, bar.update)
        if several.is_main_process:
            show(result if as_json else as_text(result))


def as_text(result: dict[str, Any]) -> str:
    """The result for a person: a row for each system."""
    rows = [
        (name, f"{of['bleu']:.1f}", f"{of['chrf']:.1f}", f"{of['seconds']:.1f}")
        for name, of in result["systems"].items()
    ]
    signatures = "\n".join(result["signature"].values())
    scores = table(("system", "BLEU", "chrF", "seconds"), rows)
    return f"{scores}\n\n{result['segments']:,} segments\n{signatures}"
