"""From a recipe to trained heads: the materials of both phases, the loop, the files at the end."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from labkit.errors import LabkitError
from labkit.models import load
from labkit.provenance import provenance
from labkit.records.base import Provenance, RecordError
from labkit.records.losslog import LossLog
from labkit.speculative.checkpoint import save_heads
from labkit.training.checkpoints import locked
from labkit.training.data import Continue
from labkit.training.features import head_weight
from labkit.training.loop import (
    LOG_NAME,
    HeldOut,
    Material,
    Trainer,
    evaluate_heads,
    frequent_targets,
    new_accelerator,
)
from labkit.training.materials import (
    answer_material,
    held_out_material,
    new_speculator,
    text_material,
    training_answers,
)
from labkit.training.recipe import Recipe
from labkit.training.writer import writer


def train_all(
    recipe_path: str | Path,
    out_dir: str | Path,
    phases: Sequence[int] = (1, 2),
    answers_dir: str | Path | None = None,
    write: Continue | None = None,
) -> dict[str, Any]:
    """Train heads by the recipe at ``recipe_path``; checkpoints, log and heads go to ``out_dir``.

    Only ``phases`` are run; those that the recipe leaves out or that are done already are skipped.
    Started again after a kill, it continues and ends at the same figures. ``answers_dir`` names
    shards to train phase 2 on in place of the recipe's own; ``write`` replaces the base model's own
    generator. Returns ``final_loss`` (held out, one figure a head), ``accept``,
    ``tokens_per_step``, ``steps``, ``tokens``, ``seconds`` and ``heads``, the folder of the heads.
    Raises `LabkitError` for invalid input, and if another process is training in ``out_dir``.
    """
    recipe, out = Recipe.load(recipe_path), Path(out_dir)
    accelerator = new_accelerator()
    name = {(1,): "phase1", (2,): "phase2"}.get(tuple(phases), "all")
    command = command_line(name, recipe=recipe_path, out=out, answers=answers_dir)
    with locked(out) if accelerator.is_main_process else contextlib.nullcontext():
        trainer, held_out, last = _train(recipe, out, phases, answers_dir, write, accelerator)
        return _finish(trainer, held_out, last, command)


def _train(
    recipe: Recipe,
    out: Path,
    phases: Sequence[int],
    answers_dir: str | Path | None,
    write: Continue | None,
    accelerator: Accelerator,
) -> tuple[Trainer, HeldOut, Material | None]:
    """Run the phases; return the trainer, the held-out text and what was trained on last."""
    base = load(recipe.base, device=str(accelerator.device), dtype="float32")
    write = write or writer(base, layers=recipe.heads.layers)
    with accelerator.main_process_first():  # the others find in the cache what the first one made
        held_out = held_out_material(recipe, base, write)
        answers = None
        if recipe.phase2 and 2 in phases:
            folder = Path(answers_dir) if answers_dir else None
            answers = answer_material(recipe, base, write, folder)
    heads = new_speculator(recipe, base)
    trainer = Trainer(recipe, heads, head_weight(base.module).float(), out, accelerator)
    text = text_material(recipe, base) if recipe.phase1 and 1 in phases else None
    if recipe.phase1 and text:
        trainer.run_phase(1, recipe.phase1, text, held_out)
    if recipe.phase2 and answers:
        trainer.run_phase(2, recipe.phase2, answers, held_out)
    return trainer, held_out, answers or text


def generate(recipe_path: str | Path, write: Continue | None = None) -> dict[str, Any]:
    """Make the answers that a recipe's phase 2 trains on, where they are not there yet.

    Returns how many ``answers`` there are, their ``tokens``, prompts apart, and their ``folder``.
    """
    recipe = Recipe.load(recipe_path)
    base = load(recipe.base)
    answers = training_answers(recipe, base, write or writer(base, layers=recipe.heads.layers))
    sequences = answers.sequences
    tokens = len(sequences.tokens) - int(sequences.given.sum())
    return {"answers": len(sequences), "tokens": tokens, "folder": str(answers.paths[0].parent)}


def command_line(name: str, **options: str | Path | None) -> str:
    """Return the command ``labkit train NAME`` with its options; a None is left out.

    Paths inside the working folder are shown relative to it.

    >>> command_line("all", recipe="data/recipes/tiny.toml", out="runs/tiny", answers=None)
    'labkit train all --recipe data/recipes/tiny.toml --out runs/tiny'
    """
    words = ["labkit", "train", name]
    for option, value in options.items():
        if value is not None:
            whole, here = Path(value).absolute(), Path.cwd()
            inside = whole.is_relative_to(here)
            words += [f"--{option}", whole.relative_to(here).as_posix() if inside else str(value)]
    return shlex.join(words)


def _provenance(trainer: Trainer, command: str) -> Provenance:
    """Return how the heads were made."""
    return provenance(
        command,
        trainer.recipe.seed,
        f"{trainer.device.type}, {torch.get_num_threads()} threads,"
        f" {trainer.accelerator.num_processes} processes",
    )


def _finish(
    trainer: Trainer, held_out: HeldOut, last: Material | None, command: str
) -> dict[str, Any]:
    """Write the heads and the finished log; return the result of `train_all`."""
    speculator = trainer.speculator()
    vocabulary = speculator.config.vocab_size
    wanted = trainer.recipe.heads.draft_vocabulary or vocabulary
    ranked = frequent_targets(last, vocabulary) if last else torch.arange(vocabulary)
    draft_ids = ranked[:wanted].sort().values
    looked = evaluate_heads(speculator, held_out)
    folder = trainer.out / "heads"
    if trainer.accelerator.is_main_process:
        try:
            save_heads(folder, speculator, draft_ids)
            log = LossLog.follow(trainer.out / LOG_NAME)
            log.model_copy(update={"provenance": _provenance(trainer, command)}).save(
                folder / "losslog.json"
            )
        except (RecordError, OSError) as error:
            raise LabkitError(f"Could not write the heads to {folder}: {error}") from None
    progress = trainer.progress
    return {
        "final_loss": list(looked["loss"]),
        "accept": list(looked["accept"]),
        "tokens_per_step": looked["tokens_per_step"],
        "steps": progress.total_steps,
        "tokens": progress.tokens,
        "seconds": progress.seconds,
        "processes": trainer.accelerator.num_processes,
        "heads": str(folder),
    }
