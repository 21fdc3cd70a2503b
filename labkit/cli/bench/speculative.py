"""Benchmarks of speculative decoding: by method, by storage, by kind of text, and on a GPU."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from labkit.cli._options import (
    COUNT,
    FILE,
    base_option,
    device_option,
    draft_model_option,
    longest_option,
    names,
    prompts_option,
    seed_option,
    storage_option,
    together,
)
from labkit.cli._output import Report, columns, given_command, reports, say, table
from labkit.errors import LabkitError

study_options = together(
    base_option(),
    prompts_option,
    longest_option(64, "--tokens"),
    click.option("--repeats", type=COUNT, default=1, help="Runs of each prompt."),
    seed_option,
    click.option("--out", type=FILE, help="Where to keep the record (JSON)."),
)


@reports
@base_option()
@prompts_option
@longest_option(96)
@click.option("--repeats", type=COUNT, default=3, help="Runs of each prompt.")
@click.option("--methods", help="Some methods, with commas between (default: all that can run).")
@draft_model_option
@storage_option
@device_option
def speculative(
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
    from labkit import Decoder, load, read_questions
    from labkit.speculative.bench import HEADER, bench, rows

    questions = read_questions(prompts)
    draft = load(draft_model, device) if draft_model else None
    decoder = Decoder(load(base, device), storage=storage, draft=draft)
    result = bench(decoder, questions, max_new_tokens, repeats, names(methods), say)
    parts = [
        f"{result.base}: {result.path} on {result.device}, {result.threads} threads; "
        f"{result.prompts} prompts, up to {result.max_new_tokens} tokens, {result.repeats} repeats",
        table(HEADER, rows(result.methods)),
    ]
    for category, scores in result.categories.items():
        parts.append(f"{category}\n{table(HEADER, rows(dict(scores)))}")
    if result.contended:
        parts.append(
            f"Other processes took {result.contention:.0%} of the processor meanwhile, so these "
            "times mean little: run it again when the machine is quiet."
        )
    return Report(result.model_dump(mode="json"), "\n\n".join(parts))


@reports
@study_options
def storage(*, prompts: Path | None, **settings: Any) -> Report:
    """Decode by every storage on a CPU, in turn, plainly and by heads; every 4th of 48 prompts."""
    from labkit import read_questions
    from labkit.speculative.bench import LLAMA_CPP

    asked = read_questions(prompts) if prompts else read_questions()[::4]
    as_one = [replace(question, category="all") for question in asked]
    return compare_storages(as_one, ("mlp", "mlp_lookup", *LLAMA_CPP), **settings)


@reports
@study_options
@click.option("--each", type=COUNT, default=6, help="Prompts of each kind of the lab's own text.")
@click.option("--storages", help="Some storages, with commas between (default: all there are).")
@draft_model_option
def study(*, prompts: Path | None, each: int, **settings: Any) -> Report:
    """Compare every method with every storage on a CPU, on natural and on repetitive text.

    In a file of your own a prompt's category is its kind of text.
    """
    from labkit import read_questions
    from labkit.speculative.bench import PEERS
    from labkit.speculative.decoder import METHODS
    from labkit.speculative.study import own_prompts

    asked = read_questions(prompts) if prompts else own_prompts(each, settings["seed"])
    return compare_storages(asked, (*METHODS, *PEERS), **settings)


def compare_storages(
    questions: Sequence[Any],
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
    """Run a study of the model's storages over `labkit.questions`, and save it."""
    from labkit import Decoder, load
    from labkit.kernels.weights_once import STORAGE
    from labkit.provenance import provenance
    from labkit.speculative.study import storage_study

    model = load(base, "cpu")
    draft = load(draft_model, "cpu") if draft_model else None
    decoders, absent = [], {}
    for name in dict.fromkeys(names(storages) or STORAGE):
        decoder = Decoder(model, storage=name, draft=draft)
        try:
            say(f"{name}: {decoder.engine.bytes_per_pass / 1e6:.0f} MB a pass")
        except LabkitError as error:  # a model that was never quantised has fewer
            if storages:
                raise
            absent[name] = str(error)
            say(f"Without {name}: {error}")
        else:
            decoders.append(decoder)
    made = storage_study(decoders, questions, methods, max_new_tokens, repeats, seed, say)
    origin = provenance(given_command(), seed)
    made = made.model_copy(update={"provenance": origin, "absent": absent | made.absent})
    if out:
        made.save(out)
    parts = []
    for text in made.texts:
        figures = columns(
            [row for row in made.rows if row.text == text],
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
    if made.fastest:
        parts.append(f"The fastest plain decoder is {made.fastest[1]} with {made.fastest[0]}.")
    parts += [f"Without {name}: {why}" for name, why in made.absent.items()]
    return Report(made.model_dump(mode="json"), "\n\n".join(parts))


@reports
@click.option("--out", required=True, type=FILE, help="Save the record in this file.")
@click.option("--quick", is_flag=True, help="A small form on the tiny model, for any machine.")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0),
    default=6,
    help="Start no further part after so long.",
)
@device_option
def gpu(*, out: Path, quick: bool, minutes: float, device: str | None) -> Report:
    """Measure vanilla, drafts, sampling, answers, training, translation and serving on a GPU."""
    from labkit.gpu import as_rows, bench_gpu
    from labkit.records.base import write_whole

    if not out.absolute().parent.is_dir():
        raise LabkitError(f"There is no folder {out.parent}: make it, or give another --out.")
    record = bench_gpu(device, quick, minutes, say, given_command())
    write_whole(out, json.dumps(record, indent=2, allow_nan=False) + "\n")
    header = ("part", "figure", "value", "wanted of a card")
    return Report(record, table(header, as_rows(record)))
