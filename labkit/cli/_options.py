"""Options that several commands share."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

COUNT = click.IntRange(min=1)
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


def names(text: str | None) -> list[str] | None:
    """Return the names in a text that has commas between them; None for no text."""
    return [name.strip() for name in text.split(",")] if text else None


def out_option(help: str, default: str | None = None) -> Decorator:
    """Return the option ``--out``, a folder to write into; required if it has no default."""
    if default is None:  # click takes default=None for a default
        return click.option("--out", type=FOLDER, required=True, help=help)
    return click.option("--out", type=FOLDER, default=default, help=help)


def base_option(default: str = "real") -> Decorator:
    """Return the option ``--base``, the model that decodes."""
    return click.option(
        "--base",
        default=default,
        help="Model: real, tiny, another shipped one, a folder, or a name on a hub.",
    )


def longest_option(default: int = 64, *also: str) -> Decorator:
    """Return the option ``--max-new-tokens``, the longest output; ``also`` are other names."""
    return click.option(
        "--max-new-tokens", *also, type=COUNT, default=default, help="Longest output, in tokens."
    )


device_option = click.option("--device", help="Device: cpu, cuda, mps (default: the best here).")

seed_option = click.option(
    "--seed", type=click.IntRange(min=0), default=0, help="Seed of everything random."
)

prompts_option = click.option(
    "--prompts",
    type=EXISTING_FILE,
    help="JSON lines with id, category, and prompt or turns (default: the lab's own 48).",
)

storage_option = click.option(
    "--storage",
    default="float32",
    help="How the fast path on a CPU stores weights: float32, bfloat16, q4_1, q4_1_int8.",
)

draft_model_option = click.option(
    "--draft-model", help="A smaller model of the same tokenizer, by name."
)


def sampling_options(
    samples: int,
    weights: str | None,
    epsilon: float = 0.0,
    longest: int = 64,
    more: Sequence[Decorator] = (),
) -> Decorator:
    """Return the options of drawing samples and deciding by them, with these defaults.

    Without ``weights`` there is no option ``--weights``. ``more`` come after ``--temperature``.
    """
    weights_option = click.option(
        "--weights",
        "weighting",
        type=click.Choice(WEIGHTINGS),
        default=weights,
        help="How samples stand for p(y|x).",
    )
    return together(
        click.option("--samples", type=COUNT, default=samples, help="Draws for each source."),
        click.option("--utility", default="chrf", help="chrf, bleu, chrf++, exact, …"),
        *([weights_option] if weights else []),
        click.option("--temperature", default=1.0, help="1: the model's own."),
        *more,
        click.option(
            "--epsilon",
            default=epsilon,
            help="Never draw a token less probable than this; 0 draws from all.",
        ),
        longest_option(longest),
        seed_option,
        device_option,
    )
