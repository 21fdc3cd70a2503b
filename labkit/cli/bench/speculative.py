"""``labkit bench speculative``: every way to decode, over prompts, against vanilla and peers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from labkit.cli._options import (
    COUNT,
    base_option,
    device_option,
    longest_option,
    prompts_option,
    storage_option,
)
from labkit.cli._output import Report, reports, say, table

if TYPE_CHECKING:
    from labkit.speculative.bench import Result


@reports
@base_option()
@prompts_option
@longest_option(96)
@click.option("--repeats", type=COUNT, default=3, help="Runs of each prompt.")
@click.option("--methods", help="Some methods, with commas between (default: all that can run).")
@click.option("--draft-model", help="A smaller model of the same tokenizer, by name.")
@storage_option
@device_option
def command(
    *,
    base: str,
    prompts: Path | None,
    max_new_tokens: int,
    repeats: int,
    methods: str | None,
    draft_model: str | None,
    storage: str,
    device: str | None,
) -> Report:
    """Decode prompts by every method, in turn: speed, tokens per step, and whether all agree."""
    from labkit.models import load
    from labkit.questions import read_questions
    from labkit.speculative.bench import bench
    from labkit.speculative.decoder import Decoder

    questions = read_questions(prompts)
    draft = load(draft_model, device) if draft_model else None
    decoder = Decoder(load(base, device), storage=storage, draft=draft)
    chosen = [name.strip() for name in methods.split(",")] if methods else None
    result = bench(decoder, questions, max_new_tokens, repeats, chosen, say)
    return Report(result.model_dump(mode="json"), as_text(result))


def as_text(result: Result) -> str:
    """Return the result for a person: a table for all prompts, then one for each category."""
    from labkit.speculative.bench import HEADER, rows

    parts = [
        f"{result.base}: {result.path} on {result.device}, {result.threads} threads; "
        f"{result.prompts} prompts, up to {result.max_new_tokens} tokens, {result.repeats} repeats",
        table(HEADER, rows(result.methods)),
    ]
    parts += [
        f"{category}\n{table(HEADER, rows(dict(scores)))}"
        for category, scores in result.categories.items()
    ]
    if result.contended:
        parts.append(
            f"Other processes took {result.contention:.0%} of the processor meanwhile, so these "
            "times mean little: run it again when the machine is quiet."
        )
    return "\n\n".join(parts)
