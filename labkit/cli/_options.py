"""Options that several commands share."""

from pathlib import Path

import click

COUNT = click.IntRange(min=1)
"""A number of things, at least one."""

WEIGHTINGS = ("uniform", "counts", "model", "unique")
"""As in `labkit.records.Weighting`, which is not imported just to print the help."""


def base_option(default: str = "real"):
    """Return the option ``--base``, the model that decodes."""
    return click.option(
        "--base",
        default=default,
        show_default=True,
        help="Model: real, tiny, another shipped one, a folder, or a name on a hub.",
    )


device_option = click.option("--device", help="Device: cpu, cuda, mps (default: the best here).")
"""The device of the model."""

max_new_tokens_option = click.option(
    "--max-new-tokens", type=COUNT, default=64, show_default=True, help="Longest output, in tokens."
)
"""The longest output."""

seed_option = click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of everything random."
)
"""The seed of a run."""


def pairs_options(required: bool = False):
    """``--pairs`` and ``--columns``: the file of sources and references, and which columns."""
    default = "" if required else " (default: the lab's own sentences)"

    def both(command):
        command = click.option(
            "--columns", help="The source's and the reference's columns, by name or number: 2,3."
        )(command)
        return click.option(
            "--pairs",
            required=required,
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help=f"A source, a tab and its reference on each line{default}.",
        )(command)

    return both
