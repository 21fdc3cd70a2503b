"""Samples for a test set: the options and the drawing that several benchmarks share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labkit.cli._options import (
    COUNT,
    WEIGHTINGS,
    base_option,
    device_option,
    pairs_options,
    seed_option,
)

if TYPE_CHECKING:
    from labkit.mbr.study import Case


def drawing_options(
    weighting: str | None = None, epsilon: float = 0.0
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options that `drawn_cases` takes, and ``--resamples``; None: no ``--weights``."""
    options = [
        base_option("translator"),
        pairs_options(),
        click.option(
            "--samples", type=COUNT, default=64, show_default=True, help="Draws for each source."
        ),
        click.option(
            "--utility", default="chrf", show_default=True, help="chrf, bleu, chrf++, exact, …"
        ),
        click.option(
            "--temperature", type=float, default=1.0, show_default=True, help="1: the model's."
        ),
        click.option(
            "--epsilon",
            type=float,
            default=epsilon,
            show_default=True,
            help="Never draw a token less probable than this; 0 draws from all.",
        ),
        click.option(
            "--max-new-tokens",
            type=COUNT,
            default=128,
            show_default=True,
            help="Longest output, in tokens.",
        ),
        click.option(
            "--resamples", type=COUNT, default=1000, show_default=True, help="Of the bootstrap."
        ),
        seed_option,
        device_option,
    ]
    if weighting:
        options[4:4] = [
            click.option(
                "--weights",
                "weighting",
                type=click.Choice(WEIGHTINGS),
                default=weighting,
                show_default=True,
                help="How samples stand for p(y|x).",
            )
        ]

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def drawn_cases(
    *,
    base: str,
    pairs: Path | None,
    columns: str | None,
    samples: int,
    utility: str,
    temperature: float,
    epsilon: float,
    max_new_tokens: int,
    seed: int,
    device: str | None,
) -> list[Case]:
    """Read the pairs, check everything, and draw samples for every source."""
    from tqdm import tqdm

    from labkit import load
    from labkit.mbr import utilities
    from labkit.mbr.conditional import check_sources, conditional
    from labkit.mbr.draws import Draws
    from labkit.mbr.pairs import read_pairs
    from labkit.mbr.study import draw_cases
    from labkit.paths import data_dir
    from labkit.sampling import Sampling

    utilities.get(utility)  # a wrong name is named before the model is loaded
    sampling = Sampling(temperature=temperature, epsilon=epsilon)
    how = Draws(samples, max_new_tokens, seed, sampling=sampling)
    default = data_dir() / "sentences" / "deu-eng.tsv"
    known = read_pairs(pairs or default, columns and columns.split(","))
    model = load(base, device)
    check_sources(model, [source for source, _ in known])
    drawn = draw_cases(conditional(model), known, how)
    return list(tqdm(drawn, total=len(known), unit=" sources", disable=None))
