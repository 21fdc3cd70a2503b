"""From a recipe to trained heads: the materials of both phases, the loop, the files at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from labkit.errors import LabkitError
from labkit.models import load
from labkit.provenance import provenance
from labkit.records.base import Provenance, RecordError
from labkit.records.losslog import LossLog
from labkit.speculative.checkpoint import save_heads
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

    Only ``phases`` are run; those that the recipe leaves out or that are done already are passed
    over. Started again after a kill it goes on and ends at the same figures. ``answers_dir`` names
    shards to train phase 2 on in place of the recipe's own; ``write`` replaces the base model's own
    generator. Returns ``final_loss`` (held out, one figure a head), ``accept``,
    ``tokens_per_step``, ``steps``, ``tokens``, ``seconds`` and ``heads``, the folder of the heads.
    Raises `LabkitError` for whatever a person can mend.
    """
    recipe, out = Recipe.load(recipe_path), Path(out_dir)
    accelerator = new_accelerator()
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
    return _finish(trainer, held_out, answers or text)


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


def _provenance(trainer: Trainer) -> Provenance:
    """How the heads came to be."""
    recipe = trainer.recipe
    return provenance(
        f"labkit train all --recipe data/recipes/{recipe.name}.toml",
        recipe.seed,
        f"{trainer.device.type}, {torch.get_num_threads()} threads,"
        f" {trainer.accelerator.num_processes} processes",
    )


def _finish(trainer: Trainer, held_out: HeldOut, last: Material | None) -> dict[str, Any]:
    """Write the heads and the finished log; what `train_all` returns."""
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
            log.model_copy(update={"provenance": _provenance(trainer)}).save(
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
