"""``labkit bench study``: every method with every storage, on natural and on repetitive text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labkit.cli._options import (
    COUNT,
    FILE,
    base_option,
    longest_option,
    prompts_option,
    seed_option,
    together,
)
from labkit.cli._output import Report, columns, given_command, reports, say
from labkit.errors import LabkitError

if TYPE_CHECKING:
    from labkit.questions import Question
    from labkit.records import StorageStudy

study_options = together(
    base_option(),
    prompts_option,
    longest_option(64, "--tokens"),
    click.option("--repeats", type=COUNT, default=1, help="Runs of each prompt."),
    seed_option,
    click.option("--out", type=FILE, help="Where to keep the record (JSON)."),
)
"""What every study of storages takes."""


@reports
@study_options
@click.option("--each", type=COUNT, default=6, help="Prompts of each kind of the lab's own text.")
@click.option("--storages", help="Some storages, with commas between (default: all there are).")
@click.option("--draft-model", help="A smaller model of the same tokenizer, by name.")
def command(*, prompts: Path | None, each: int, **settings: Any) -> Report:
    """Compare every method with every storage on a CPU, on natural and on repetitive text.

    In a file of your own a prompt's category is its kind of text.
    """
    from labkit.questions import read_questions
    from labkit.speculative.bench import PEERS
    from labkit.speculative.decoder import METHODS
    from labkit.speculative.study import own_prompts

    asked = read_questions(prompts) if prompts else own_prompts(each, settings["seed"])
    return measure(asked, (*METHODS, *PEERS), **settings)


def measure(
    questions: Sequence[Question],
    methods: Sequence[str],
    *,
    base: str,
    max_new_tokens: int,
    repeats: int,
    seed: int,
    out: Path | None,
    storages: str | None = None,
    draft_model: str | None = None,
) -> Report:
    """Run a study of the model's storages, save it and return it as a table."""
    from labkit.kernels.weights_once import STORAGE
    from labkit.models import load
    from labkit.provenance import provenance
    from labkit.speculative.decoder import Decoder
    from labkit.speculative.study import storage_study

    wanted = [name.strip() for name in storages.split(",")] if storages else list(STORAGE)
    model = load(base, "cpu")
    draft = load(draft_model, "cpu") if draft_model else None
    decoders, absent = [], {}
    for storage in dict.fromkeys(wanted):
        decoder = Decoder(model, storage=storage, draft=draft)
        try:
            say(f"{storage}: {decoder.engine.bytes_per_pass / 1e6:.0f} MB a pass")
        except LabkitError as error:  # a model that was never quantised has fewer
            if storages:
                raise
            absent[storage] = str(error)
            say(f"Without {storage}: {error}")
        else:
            decoders.append(decoder)
    study = storage_study(decoders, questions, methods, max_new_tokens, repeats, seed, say)
    made = {"provenance": provenance(given_command(), seed), "absent": absent | study.absent}
    study = study.model_copy(update=made)
    if out:
        study.save(out)
    return Report(study.model_dump(mode="json"), as_text(study))


def as_text(study: StorageStudy) -> str:
    """Return the study for a person: a table for each kind of text, then what was absent."""
    parts = []
    for text in study.texts:
        figures = columns(
            [row for row in study.rows if row.text == text],
            ("storage", "{storage}"),
            ("method", "{method}"),
            ("tokens/s", "{tokens_per_s:.1f}"),
            ("tokens/step", "{tokens_per_step:.2f}"),
            ("x vanilla", "{speedup:.2f}"),
            ("95%", "{speedup_bounds[0]:.2f} to {speedup_bounds[1]:.2f}"),
            ("x fastest plain", "{of_fastest:.2f}"),
            ("95%", "{of_fastest_bounds[0]:.2f} to {of_fastest_bounds[1]:.2f}"),
            ("nodes", "{nodes}"),
            ("same text", "{identical}"),
        )
        parts.append(f"{text}\n{figures}")
    if study.fastest:
        parts.append(f"The fastest plain decoder is {study.fastest[1]} with {study.fastest[0]}.")
    parts += [f"Without {name}: {why}" for name, why in study.absent.items()]
    return "\n\n".join(parts)
