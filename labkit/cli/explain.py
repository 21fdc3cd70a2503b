"""``labkit explain``: why acceptance is low, or the speedup below what is expected."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from labkit.cli._options import (
    EXISTING_FOLDER,
    base_option,
    device_option,
    max_new_tokens_option,
    prompts_option,
)
from labkit.cli._output import Report, columns, reports, say

if TYPE_CHECKING:
    from labkit.explain import Explanation


@reports
@base_option()
@prompts_option
@click.option(
    "--heads",
    type=EXISTING_FOLDER,
    help="Folder of trained heads (default: those shipped for the base model).",
)
@max_new_tokens_option
@device_option
def command(
    *, base: str, prompts: Path | None, heads: Path | None, max_new_tokens: int, device: str | None
) -> Report:
    """Diagnose speculative decoding on your prompts, with one suggestion for each cause."""
    from labkit import Decoder, load, read_questions
    from labkit.explain import explain

    decoder = Decoder(load(base, device), heads)
    found = explain(decoder, read_questions(prompts), max_new_tokens, say)
    return Report(found.model_dump(mode="json"), as_text(found))


def as_text(found: Explanation) -> str:
    """Return the report as text: figures, acceptance by head, then the causes."""
    heads = columns(
        found.acceptance,
        ("head", "{head}"),
        ("accepted if reached", "{conditional:.1%}"),
        ("of all steps", "{unconditional:.1%}"),
        ("in training", "{in_training:.1%}"),
    )
    shares = ", ".join(f"{part} {share:.0%}" for part, share in found.shares.items())
    like = "" if found.likeness is None else f"; likeness to training {found.likeness:.0%}"
    causes = [f"{c.cause}: {c.evidence}.\n  To do: {c.suggestion}." for c in found.causes]
    return "\n\n".join(
        (
            f"{found.base} with heads trained for {found.heads}: {found.tokens_per_step:.2f} "
            f"tokens per step, {found.speedup:.2f} times vanilla (predicted "
            f"{found.predicted_speedup:.2f})",
            heads,
            f"time of a step: {shares}; a check costs {found.verify_cost:.2f} plain passes\n"
            f"draft vocabulary covers {found.coverage:.0%} of what the model writes{like}",
            "\n".join(causes) or "No cause found: acceptance and times are as expected.",
        )
    )
