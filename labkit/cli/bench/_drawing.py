"""Samples for a test set: the options and the drawing that several benchmarks share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labkit.cli._options import (
    COUNT,
    EXISTING_FILE,
    Decorator,
    base_option,
    device_option,
    epsilon_option,
    longest_option,
    samples_option,
    seed_option,
    temperature_option,
    together,
    utility_option,
    weights_option,
)

if TYPE_CHECKING:
    from labkit.mbr.conditional import Conditional
    from labkit.mbr.draws import Draws
    from labkit.mbr.pairs import Pair
    from labkit.mbr.study import Case

resamples_option = click.option(
    "--resamples", type=COUNT, default=1000, help="Resamples of the bootstrap."
)


def drawing_options(
    weighting: str | None = None, epsilon: float = 0.0, pairs_required: bool = False
) -> Decorator:
    """Return the options that `prepared` takes; with a ``weighting`` also ``--weights``."""
    default = "" if pairs_required else " (default: the lab's own sentences)"
    return together(
        base_option("translator"),
        click.option(
            "--pairs",
            required=pairs_required,
            type=EXISTING_FILE,
            help=f"A source, a tab and its reference on each line{default}.",
        ),
        click.option(
            "--columns", help="The source's and the reference's columns, by name or number: 2,3."
        ),
        samples_option(64),
        utility_option,
        *([weights_option(weighting)] if weighting else []),
        temperature_option,
        epsilon_option(epsilon),
        longest_option(128),
        seed_option,
        device_option,
    )


def prepared(
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
    at_once: int = 32,
) -> tuple[Conditional, list[Pair], Draws]:
    """Return the model, the test set and the way to draw, after checking everything."""
    from labkit import load
    from labkit.mbr import utilities
    from labkit.mbr.conditional import check_sources, conditional
    from labkit.mbr.draws import Draws
    from labkit.mbr.pairs import read_pairs
    from labkit.paths import data_dir
    from labkit.sampling import Sampling

    utilities.get(utility)  # a wrong name is reported before the model is loaded
    sampling = Sampling(temperature=temperature, epsilon=epsilon)
    how = Draws(samples, max_new_tokens, seed, at_once, sampling)
    default = data_dir() / "sentences" / "deu-eng.tsv"
    known = read_pairs(pairs or default, columns and columns.split(","))
    model = load(base, device)
    check_sources(model, [source for source, _ in known])
    return conditional(model), known, how


def drawn_cases(**drawing: Any) -> list[Case]:
    """Draw samples for every source of the test set; takes what `prepared` takes."""
    from tqdm import tqdm

    from labkit.mbr.study import draw_cases

    model, known, how = prepared(**drawing)
    return list(
        tqdm(draw_cases(model, known, how), total=len(known), unit=" sources", disable=None)
    )
