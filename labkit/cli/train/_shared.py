"""What the three commands that train have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from labkit.cli._options import EXISTING_FOLDER, FILE, FOLDER
from labkit.cli._output import Report, table

recipe_option = click.option(
    "--recipe",
    required=True,
    type=FILE,
    help="A TOML file, such as those in data/recipes.",
)
"""Which recipe to follow."""

out_option = click.option(
    "--out",
    required=True,
    type=FOLDER,
    help="Folder for checkpoints, log and heads; a run begun there goes on.",
)
"""Where a training run lives."""

answers_option = click.option(
    "--answers",
    type=FOLDER,
    help="Folder of answers to train phase 2 on, in place of the recipe's own.",
)
"""Answers made elsewhere."""

start_option = click.option(
    "--start",
    type=EXISTING_FOLDER,
    help="Folder of heads of the recipe's shape to start from, in place of random weights.",
)
"""Weights to go on from."""


def run_phases(
    recipe: Path,
    out: Path,
    phases: Sequence[int],
    answers: Path | None,
    start: Path | None,
) -> Report | None:
    """Train, and report the result; of several processes the first one does."""
    from accelerate import PartialState

    from labkit.training.train import train_all

    result = train_all(recipe, out, phases, answers, start=start)
    return Report(result, as_text(result)) if PartialState().is_main_process else None


def as_text(result: dict[str, Any]) -> str:
    """A training run's end for a person: a row for each head."""
    rows = [
        (str(head), f"{loss:.3f}", f"{share:.1%}")
        for head, (loss, share) in enumerate(
            zip(result["final_loss"], result["accept"], strict=True), start=1
        )
    ]
    done = f"{result['steps']:,} steps, {result['tokens']:,} tokens, {result['seconds']:,.0f} s"
    steps = result["tokens_per_step"]
    gain = f"; {steps:.2f} tokens per step as a chain" if steps is not None else ""
    header = ("head", "held-out loss", "accepted")
    return f"{table(header, rows)}\n{done}{gain}\nheads in {result['heads']}"


def answers_made(made: dict[str, Any]) -> str:
    """Answers that lie in a folder now, for a person."""
    return f"{made['answers']:,} answers of {made['tokens']:,} tokens in {made['folder']}"
