"""``labkit explain``: why acceptance is low, or the speedup below what is expected."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from labkit.cli._options import base_option, device_option, max_new_tokens_option
from labkit.cli._output import json_option, only_results_on_stdout, say, table

if TYPE_CHECKING:
    from labkit.explain import Explanation


@click.command()
@base_option()
@click.option(
    "--prompts",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON lines with prompt or turns (default: the lab's own 48).",
)
@click.option(
    "--heads",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of trained heads (default: those shipped for the base model).",
)
@max_new_tokens_option
@device_option
@json_option
def command(
    *,
    base: str,
    prompts: Path | None,
    heads: Path | None,
    max_new_tokens: int,
    device: str | None,
    as_json: bool,
) -> None:
    """Diagnose speculative decoding on your prompts, with one suggestion for each cause."""
    with only_results_on_stdout() as show:
        from labkit import Decoder, load, read_questions
        from labkit.explain import explain

        decoder = Decoder(load(base, device), heads)
        found = explain(decoder, read_questions(prompts), max_new_tokens, say)
        show(found.model_dump(mode="json") if as_json else as_text(found))


def as_text(found: Explanation) -> str:
    """Return the report as text: figures, acceptance by head, then the causes."""
    heads = [
        (
            str(head.head),
            f"{head.conditional:.1%}",
            f"{head.unconditional:.1%}",
            "" if head.in_training is None else f"{head.in_training:.1%}",
        )
        for head in found.acceptance
    ]
    shares = ", ".join(f"{part} {share:.0%}" for part, share in found.shares.items())
    like = "" if found.likeness is None else f"; likeness to training {found.likeness:.0%}"
    causes = [f"{c.cause}: {c.evidence}.\n  To do: {c.suggestion}." for c in found.causes]
    return "\n\n".join(
        (
            f"{found.base} with heads trained for {found.heads}: {found.tokens_per_step:.2f} "
            f"tokens per step, {found.speedup:.2f} times vanilla (predicted "
            f"{found.predicted_speedup:.2f})",
            table(("head", "accepted if reached", "of all steps", "in training"), heads),
            f"time of a step: {shares}; a check costs {found.verify_cost:.2f} plain passes\n"
            f"draft vocabulary covers {found.coverage:.0%} of what the model writes{like}",
            "\n".join(causes) or "No cause found: acceptance and times are as expected.",
        )
    )
