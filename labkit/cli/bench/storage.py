"""``labkit bench storage``: every way to store weights, with and without speculation."""

from __future__ import annotations

from pathlib import Path

import click

from labkit.cli._options import COUNT, FILE, base_option, longest_option, prompts_option
from labkit.cli._output import Report, columns, reports, say


@reports
@base_option()
@prompts_option
@longest_option(64)
@click.option("--repeats", type=COUNT, default=2, help="Runs of each prompt.")
@click.option("--out", type=FILE, help="Where to keep the record (JSON).")
def command(
    *, base: str, prompts: Path | None, max_new_tokens: int, repeats: int, out: Path | None
) -> Report:
    """Decode by every storage on a CPU, in turn, plainly and by heads; every 4th of 48 prompts."""
    from labkit.errors import LabkitError
    from labkit.kernels.weights_once import STORAGE
    from labkit.models import load
    from labkit.provenance import provenance
    from labkit.questions import read_questions
    from labkit.speculative.bench import bench_storages
    from labkit.speculative.decoder import Decoder

    questions = read_questions(prompts) if prompts else read_questions()[::4]
    model = load(base, "cpu")
    decoders = {}
    for storage in STORAGE:
        decoder = Decoder(model, storage=storage)
        try:
            say(f"{storage}: {decoder.engine.bytes_per_pass / 1e6:.0f} MB a pass")
        except LabkitError as error:  # a model that was never quantised has fewer
            say(f"Without {storage}: {error}")
        else:
            decoders[storage] = decoder
    study = bench_storages(decoders, questions, max_new_tokens, repeats, watch=say)
    origin = provenance(f"labkit bench storage --base {base}", note=f"{study.repeats} repeats")
    study = study.model_copy(update={"provenance": origin})
    if out:
        study.save(out)
    text = columns(
        study.rows,
        ("storage", "{storage}"),
        ("method", "{method}"),
        ("tokens/s", "{tokens_per_s:.1f}"),
        ("tokens/step", "{tokens_per_step:.2f}"),
        ("x vanilla", "{speedup:.2f}"),
        ("nodes", "{nodes}"),
        ("same text", "{identical}"),
    )
    return Report(study.model_dump(mode="json"), text)
