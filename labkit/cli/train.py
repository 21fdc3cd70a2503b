"""``labkit train …``: heads from a recipe, their evaluation, and what a recipe would cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labkit.cli._group import CommandGroup
from labkit.cli._options import (
    COUNT,
    EXISTING_FILE,
    EXISTING_FOLDER,
    FILE,
    FOLDER,
    Decorator,
    base_option,
    device_option,
    longest_option,
    together,
)
from labkit.cli._output import Report, reports, say, table

if TYPE_CHECKING:
    from labkit.records import AblationRow, AblationStudy

command = CommandGroup("train", help="Train speculative heads by a recipe, and judge them.")


def given(name: str, kind: click.Path, text: str) -> Decorator:
    """Return an option that must be given."""
    return click.option(name, required=True, type=kind, help=text)


recipe_option = given("--recipe", FILE, "A TOML file, such as those in data/recipes.")


def training(phases: tuple[int, ...], text: str) -> click.Command:
    """Make a command that trains through ``phases``; of several processes the first one reports."""

    def run(
        *, recipe: Path, out: Path, answers: Path | None = None, start: Path | None
    ) -> Report | None:
        from accelerate import PartialState

        from labkit.training.train import train_all

        result = train_all(recipe, out, phases, answers, start=start)
        return Report(result, training_text(result)) if PartialState().is_main_process else None

    run.__doc__ = text
    out_text = "Folder for checkpoints, log and heads; a run begun there goes on."
    answers_option = click.option(
        "--answers",
        type=FOLDER,
        help="Folder of answers to train phase 2 on, in place of the recipe's own.",
    )
    start_option = click.option(
        "--start",
        type=EXISTING_FOLDER,
        help="Folder of heads of the recipe's shape to start from, in place of random weights.",
    )
    options = [recipe_option, given("--out", FOLDER, out_text), answers_option, start_option]
    if 2 not in phases:
        options.remove(answers_option)
    return reports(together(*options)(run))


def training_text(result: dict[str, Any]) -> str:
    """A training run's end for a person: a row for each head."""
    figures = zip(result["final_loss"], result["accept"], strict=True)
    rows = [
        (str(head), f"{loss:.3f}", f"{share:.1%}")
        for head, (loss, share) in enumerate(figures, start=1)
    ]
    done = f"{result['steps']:,} steps, {result['tokens']:,} tokens, {result['seconds']:,.0f} s"
    steps = result["tokens_per_step"]
    gain = f"; {steps:.2f} tokens per step as a chain" if steps is not None else ""
    header = ("head", "held-out loss", "accepted")
    return f"{table(header, rows)}\n{done}{gain}\nheads in {result['heads']}"


phase1 = training((1,), "Train heads on ordinary text, the base model frozen.")
phase2 = training((2,), "Train heads on what the base model itself writes.")
both_phases = training((1, 2), "Train heads through both phases; a run that was stopped goes on.")


@reports
@recipe_option
def generate(*, recipe: Path) -> Report:
    """Have the base model write the answers of phase 2; goes on if stopped."""
    from labkit.training.train import generate

    return answers_report(generate(recipe))


@reports
@given(
    "--answers",
    EXISTING_FILE,
    "A .npz file with tokens, lengths and given (prompt tokens of each answer).",
)
@given("--out", FOLDER, "Folder for the shards; give it to `labkit train all` as --answers.")
def convert(*, answers: Path, out: Path) -> Report:
    """Convert answers in a .npz file into shards for phase 2."""
    from labkit.training.answers import convert_answers

    return answers_report(convert_answers(answers, out))


def answers_report(made: dict[str, Any]) -> Report:
    """Report answers that lie in a folder now."""
    text = f"{made['answers']:,} answers of {made['tokens']:,} tokens in {made['folder']}"
    return Report(made, text)


@reports
@given("--recipe", FILE, "A TOML file of a study, such as data/recipes/ablations-tiny.toml.")
@given("--out", FOLDER, "Folder for all the trainings; a study begun there goes on.")
def ablate(*, recipe: Path, out: Path) -> Report:
    """Train a baseline and its variants, and judge all on the same answers."""
    from labkit.training.ablations import ablate

    def show(row: AblationRow) -> None:
        steps = ", ".join(f"{score.material} {score.tokens_per_step:.2f}" for score in row.scores)
        say(f"{row.name} (seed {row.seed}): tokens per step {steps}")

    done = ablate(recipe, out, progress=show)
    return Report(done.model_dump(mode="json"), study_text(done))


def study_text(study: AblationStudy) -> str:
    """The study for a person: a row for each training, and how far chance alone reaches."""
    materials = [score.material for score in study.baselines[0].scores]
    first = materials[0]
    rows = [
        (
            row.name,
            str(row.seed),
            f"{row.steps:,}",
            f"{row.tokens:,}",
            *(f"{row.score(kind).tokens_per_step:.3f}" for kind in materials),
            " ".join(f"{loss:.2f}" for loss in row.score(first).loss),
            " ".join(f"{share:.0%}" for share in row.score(first).accept),
        )
        for row in study.rows
    ]
    per_step = [f"tokens/step, {kind}" for kind in materials]
    header = ("training", "seed", "steps", "positions", *per_step)
    low, high = study.spread(first)
    return (
        f"{table((*header, f'loss, {first}', f'accepted, {first}'), rows)}\n\n"
        f"The baseline alone, with {len(study.baselines)} seeds, goes "
        f"from {low:.3f} to {high:.3f} tokens per step on {first} prompts."
    )


@reports
@base_option()
@given(
    "--prompts",
    EXISTING_FILE,
    "JSON lines with id, category, and prompt or turns (second turns are skipped).",
)
@click.option(
    "--heads",
    type=EXISTING_FOLDER,
    help="Folder of trained heads (default: those that come with the base model).",
)
@longest_option(96)
@device_option
def evaluate(
    *, base: str, prompts: Path, heads: Path | None, max_new_tokens: int, device: str | None
) -> Report:
    """Measure heads: tokens per step, and the loss and hits of each."""
    from labkit import Decoder, load
    from labkit.questions import read_questions
    from labkit.training.evaluate import evaluate_heads

    asked = [question.turns[0] for question in read_questions(prompts)]
    result = evaluate_heads(Decoder(load(base, device), heads), asked, max_new_tokens)
    trees = [(name, f"{steps:.2f}") for name, steps in result["tokens_per_step"].items()]
    rows = [
        (str(number), f"{head['loss']:.3f}", f"{head['top1']:.1%}", f"{head['top4']:.1%}")
        if head["loss"] is not None
        else (str(number), "-", "-", "-")
        for number, head in enumerate(result["heads"], start=1)
    ]
    text = (
        table(("drafts", "tokens/step"), trees),
        table(("head", "loss", "first guess right", "among four"), rows),
        f"over {result['tokens']:,} tokens of the base model's greedy answers",
    )
    return Report(result, "\n\n".join(text))


@reports
@click.argument("first", type=EXISTING_FOLDER)
@click.argument("second", type=EXISTING_FOLDER)
@base_option()
@given("--out", FOLDER, "Folder for the joined heads, whose weights are rounded to 4 bits.")
def join(*, first: Path, second: Path, base: str, out: Path) -> Report:
    """Join two sets of heads into one that drafts by the mean of their logits."""
    from labkit.models import load
    from labkit.training.heads import join_folders

    made = join_folders(load(base), first, second, out)
    text = f"{made['weights']:,} weights and {made['draft_tokens']:,} draft tokens in {out}"
    return Report(made, text)


@reports
@recipe_option
@click.option("--shape", default="real", help="Base model, as llama2-13b.")
@click.option("--gpu", default="cpu", help="Device, as h100; cpu: this one.")
@click.option("--gpus", type=COUNT, default=1, help="How many of them.")
def plan(*, recipe: Path, shape: str, gpu: str, gpus: int) -> Report:
    """Estimate the memory and time that a recipe takes on another machine."""
    from labkit.training.plan import plan_training

    result = plan_training(recipe, shape, gpu, gpus)
    memory = [(part, f"{size / 1e9:.2f}") for part, size in result["memory"].items()]
    times = [(stage, duration(seconds)) for stage, seconds in result["seconds"].items()]
    batches = ", ".join(
        f"{phase}: {count or 'none fits'}" for phase, count in result["micro_batches"].items()
    )
    text = (
        f"{result['recipe']} for {shape} on {gpus} x {gpu}: "
        f"{result['base_weights'] / 1e9:.2f} billion weights, heads of "
        f"{result['head_weights'] / 1e6:.1f} million",
        table(("memory of a device", "GB"), memory),
        table(("stage", "time"), times),
        f"It {'fits' if result['fits'] else 'does NOT fit'} as the recipe stands; the fewest "
        f"micro-batches that fit: {batches}.",
    )
    return Report(result, "\n\n".join(text))


def duration(seconds: float) -> str:
    """Return a time in words.

    >>> duration(42.4), duration(600), duration(9000)
    ('42 s', '10.0 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


for made, name in (
    (both_phases, "all"),
    (phase1, "phase1"),
    (phase2, "phase2"),
    (generate, "generate"),
    (convert, "convert"),
    (ablate, "ablate"),
    (evaluate, "eval"),
    (join, "join"),
    (plan, "plan"),
):
    command.add_command(made, name)
