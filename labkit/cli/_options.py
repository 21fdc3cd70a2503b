"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

COUNT = click.IntRange(min=1)
"""A number of things, at least one."""

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

WEIGHTINGS = ("uniform", "counts", "model", "unique")
"""As in `labkit.records.Weighting`, which is not imported just to print the help."""

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def together(*options: Decorator) -> Decorator:
    """Return several options as one decorator, in the order of the help."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def base_option(default: str = "real") -> Decorator:
    """Return the option ``--base``, the model that decodes."""
    return click.option(
        "--base",
        default=default,
        show_default=True,
        help="Model: real, tiny, another shipped one, a folder, or a name on a hub.",
    )


device_option = click.option("--device", help="Device: cpu, cuda, mps (default: the best here).")
"""The device of the model."""


def longest_option(default: int, *also: str) -> Decorator:
    """Return the option ``--max-new-tokens``, the longest output; ``also`` are other names."""
    return click.option(
        "--max-new-tokens",
        *also,
        type=COUNT,
        default=default,
        show_default=True,
        help="Longest output, in tokens.",
    )


max_new_tokens_option = longest_option(64)

seed_option = click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of everything random."
)
"""The seed of a run."""

prompts_option = click.option(
    "--prompts",
    type=EXISTING_FILE,
    help="JSON lines with id, category, and prompt or turns (default: the lab's own 48).",
)
"""The prompts of a benchmark."""


storage_option = click.option(
    "--storage",
    default="float32",
    help="How the fast path on a CPU stores weights: float32, bfloat16, q4_1, q4_1_int8.",
)
"""The format of the weights on a CPU."""


def samples_option(default: int) -> Decorator:
    """Return the option ``--samples``, the number of draws for each source."""
    return click.option("--samples", type=COUNT, default=default, help="Draws for each source.")


utility_option = click.option("--utility", default="chrf", help="chrf, bleu, chrf++, exact, …")
"""The utility that decides."""


def weights_option(default: str) -> Decorator:
    """Return the option ``--weights``, how samples are weighed."""
    return click.option(
        "--weights",
        "weighting",
        type=click.Choice(WEIGHTINGS),
        default=default,
        help="How samples stand for p(y|x).",
    )


temperature_option = click.option("--temperature", default=1.0, help="1: the model's own.")
"""The temperature of sampling."""


def epsilon_option(default: float) -> Decorator:
    """Return the option ``--epsilon``, the least probability of a token that may be drawn."""
    return click.option(
        "--epsilon",
        default=default,
        help="Never draw a token less probable than this; 0 draws from all.",
    )
