"""``labkit train eval``: how good heads are on prompts, by the base model's own answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from labkit.cli._options import (
    EXISTING_FILE,
    EXISTING_FOLDER,
    base_option,
    device_option,
    longest_option,
)
from labkit.cli._output import Report, reports, table


@reports
@base_option()
@click.option(
    "--prompts",
    required=True,
    type=EXISTING_FILE,
    help="JSON lines with id, category, and prompt or turns (second turns are skipped).",
)
@click.option(
    "--heads",
    type=EXISTING_FOLDER,
    help="Folder of trained heads (default: those that come with the base model).",
)
@longest_option(96)
@device_option
def command(
    *,
    base: str,
    prompts: Path,
    heads: Path | None,
    max_new_tokens: int,
    device: str | None,
) -> Report:
    """Measure heads: tokens per step, and the loss and hits of each."""
    from labkit import Decoder, load
    from labkit.questions import read_questions
    from labkit.training.evaluate import evaluate_heads

    asked = [question.turns[0] for question in read_questions(prompts)]
    result = evaluate_heads(Decoder(load(base, device), heads), asked, max_new_tokens)
    return Report(result, as_text(result))


def as_text(result: dict[str, Any]) -> str:
    """The figures for a person: tokens per step by tree, then a row for each head."""
    trees = [(name, f"{steps:.2f}") for name, steps in result["tokens_per_step"].items()]
    heads = [
        (str(number), f"{head['loss']:.3f}", f"{head['top1']:.1%}", f"{head['top4']:.1%}")
        if head["loss"] is not None
        else (str(number), "-", "-", "-")
        for number, head in enumerate(result["heads"], start=1)
    ]
    return "\n\n".join(
        (
            table(("drafts", "tokens/step"), trees),
            table(("head", "loss", "first guess right", "among four"), heads),
            f"over {result['tokens']:,} tokens of the base model's greedy answers",
        )
    )
