"""The training of speculative heads, from a recipe to the finished files; `train_all` first."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from labkit.errors import LabkitError
from labkit.models import LanguageModel, load
from labkit.models.store import locked
from labkit.provenance import command_line, provenance
from labkit.records.losslog import LossLog
from labkit.speculative.checkpoint import save_heads
from labkit.speculative.eagle import Eagle
from labkit.training.answers import Answers, Continue, Writing, made_answers, read_answers, writer
from labkit.training.batches import cut_runs, text_windows
from labkit.training.features import answer_features, computed_features, head_weight
from labkit.training.heads import embedding_table, new_speculator, start_from_base, take_weights
from labkit.training.loop import LOG_NAME, Trainer
from labkit.training.losses import HeldOut, Material, frequent_targets, hold_out, validate_heads
from labkit.training.prompts import make_prompts
from labkit.training.recipe import Recipe, TextPhase
from labkit.training.text import read_documents, some_text

HEADS = "heads"
"""The folder of the finished heads, in a run's."""
HELD_OUT_WINDOWS = 8
WHOLE = 1 << 30
"""A window longer than any sequence."""


def train_all(
    recipe_path: str | Path,
    out_dir: str | Path,
    phases: Sequence[int] = (1, 2),
    answers_dir: str | Path | None = None,
    write: Continue | None = None,
    start: str | Path | None = None,
) -> dict[str, Any]:
    """Train heads by the recipe at ``recipe_path``; checkpoints, log and heads go to ``out_dir``.

    Only ``phases`` are run; those that the recipe leaves out or that are done are skipped. Started
    again after a kill, it continues and ends at the same figures. ``answers_dir`` names shards to
    train phase 2 on in place of the recipe's own; ``write`` replaces the base model's own writer;
    ``start`` names heads of the recipe's shape whose weights the training starts from.
    Returns ``final_loss`` (held out, one figure per head), ``accept``, ``tokens_per_step``,
    ``steps``, ``tokens``, ``seconds``, ``processes`` and ``heads``, the folder of the heads. Raises
    `LabkitError` for invalid input, for a run in ``out_dir`` of another recipe or ``start``, and if
    another process is training there.
    """
    recipe, out = Recipe.load(recipe_path), Path(out_dir)
    tables_stay = DistributedDataParallelKwargs(broadcast_buffers=False)  # equal in all processes
    accelerator = Accelerator(kwargs_handlers=[tables_stay])
    name = f"phase{phases[0]}" if len(phases) == 1 else "all"
    given = {"recipe": recipe_path, "out": out, "answers": answers_dir, "start": start}
    paths = {option: Path(path) for option, path in given.items() if path}
    command = command_line(f"labkit train {name}", **paths)
    with locked(out) if accelerator.is_main_process else contextlib.nullcontext():
        base = load(recipe.base, device=str(accelerator.device), dtype="float32")
        if base.config.is_encoder_decoder:
            raise LabkitError(
                f"{base.name!r} is an encoder-decoder, and heads are trained for a causal language "
                "model, such as real or tiny."
            )
        make = Materials(recipe, base, write or writer(base, layers=recipe.heads.layers))
        with accelerator.main_process_first():  # the others find its results in the cache
            held_out = make.held_out()
            answers = make.answers(paths.get("answers")) if recipe.phase2 and 2 in phases else None
        text = make.text(recipe.phase1) if recipe.phase1 and 1 in phases else None
        heads, material = new_speculator(recipe, base), answers or text
        began_with = None
        if "start" in paths:
            began_with = take_weights(heads, paths["start"])
        elif isinstance(heads, Eagle) and recipe.heads.from_base and material:
            start_from_base(heads, base, material)
        table = head_weight(base.module).float()
        trainer = Trainer(recipe, heads, table, out, accelerator, began_with)
        if recipe.phase1 and text:
            trainer.run_phase(1, recipe.phase1, text, held_out)
        if recipe.phase2 and answers:
            trainer.run_phase(2, recipe.phase2, answers, held_out)
        writes = trainer.trained in phases or not (out / HEADS).exists()
        return _finish(trainer, held_out, material, command if writes else None)


def generate(recipe_path: str | Path, write: Continue | None = None) -> dict[str, Any]:
    """Write the answers that a recipe's phase 2 trains on, unless they exist.

    Returns how many ``answers`` there are, their ``tokens`` without prompts, and their ``folder``.
    """
    recipe = Recipe.load(recipe_path)
    base = load(recipe.base)
    answers = training_answers(recipe, base, write or writer(base, layers=recipe.heads.layers))
    sequences = answers.sequences
    tokens = len(sequences.tokens) - int(sequences.given.sum())
    return {"answers": len(sequences), "tokens": tokens, "folder": str(answers.folder)}


def training_answers(recipe: Recipe, base: LanguageModel, write: Continue) -> Answers:
    """Return the base model's answers to the recipe's prompts, without held-out prompts."""
    plan = recipe.answers
    kept_apart = set(map(tuple, make_prompts(recipe, base, write, held_out=True)))
    prompts = make_prompts(recipe, base, write, held_out=False)
    manner = Writing(
        plan.answer_tokens,
        plan.temperature,
        plan.top_k,
        repeats=plan.repeats,
        seed=recipe.seed,
        precision=plan.precision,
    )
    prompts = [prompt for prompt in prompts if tuple(prompt) not in kept_apart]
    return made_answers(base, prompts, write, manner)


@dataclass(frozen=True)
class Materials:
    """What a recipe's phases are trained on and validated on."""

    recipe: Recipe
    base: LanguageModel
    write: Continue

    def text(self, phase: TextPhase) -> Material:
        """Return phase 1's material: every window of the recipe's text, nothing held out."""
        return self._windows(phase, phase.steps * phase.rows * phase.window, held_out=False)

    def answers(self, folder: Path | None = None) -> Material:
        """Return phase 2's material: the base model's answers and their hidden states.

        ``folder`` holds answers to use in place of the recipe's own. Raises `LabkitError` if the
        base model cannot have written them.
        """
        assert self.recipe.phase2 is not None
        window, keep = self.recipe.phase2.window, self.recipe.answers.keep_hidden
        if not folder:
            own = training_answers(self.recipe, self.base, self.write)
            return self._answered(own, window, keep)
        answers = read_answers(folder)
        largest = int(answers.sequences.tokens.max())
        longest, vocabulary = (
            int(answers.sequences.bounds.diff().max()),
            len(embedding_table(self.base)),
        )
        if largest >= vocabulary:
            raise LabkitError(
                f"The answers in {folder} have the token {largest}, and "
                f"{self.base.name!r} has {vocabulary:,}: they are another model's."
            )
        if longest > self.base.context:
            raise LabkitError(
                f"The answers in {folder} have up to {longest:,} tokens with their prompts, beyond "
                f"the {self.base.context:,} of {self.base.name!r}'s context."
            )
        return self._answered(answers, window, keep)

    def held_out(self) -> HeldOut:
        """Return the text to validate on: greedy answers to held-out prompts.

        A recipe without generation is validated on windows of held-out documents.
        """
        table, heads = head_weight(self.base.module).float(), self.recipe.heads.count
        if plan := self.recipe.generation:
            prompts = make_prompts(self.recipe, self.base, self.write, held_out=True)
            manner = Writing(plan.answer_tokens, repeats=plan.repeats)
            answers = made_answers(self.base, prompts, self.write, manner)
            return hold_out(self._answered(answers, WHOLE, keep=True), table, heads, greedy=True)
        phase = self.recipe.phase1
        assert phase is not None
        whole = self._windows(phase, 4 * HELD_OUT_WINDOWS * phase.window, held_out=True)
        count = len(whole.runs)
        spread = torch.linspace(0, count - 1, min(count, HELD_OUT_WINDOWS)).long()
        some = Material(whole.tokens, whole.runs.take(spread), whole.hidden)
        return hold_out(some, table, heads, greedy=False)

    def _windows(self, phase: TextPhase, enough: int, held_out: bool) -> Material:
        """Cut ordinary text of ``enough`` tokens into windows; held-out ones stay whole."""
        if phase.window > self.base.context:
            raise LabkitError(
                f"The windows of phase 1 are {phase.window:,} tokens long, beyond the "
                f"{self.base.context:,} of {self.base.name!r}'s context."
            )
        documents = [t for t in read_documents(phase.sources) if t.held_out == held_out]
        windows = text_windows(some_text(documents, self.base.tokenizer, enough), phase.window)
        hidden = computed_features(self.base.module, windows, self.recipe.heads.layers)
        return Material(windows.tokens, cut_runs(windows, phase.window), hidden)

    def _answered(self, answers: Answers, window: int, keep: bool) -> Material:
        runs = cut_runs(answers.sequences, window)
        if not len(runs):
            raise LabkitError(
                "No answer is long enough to train on: at least one must have two tokens."
            )
        hidden = answer_features(self.base, answers, self.recipe.heads.layers, keep)
        return Material(answers.sequences.tokens, runs, hidden)


def _finish(
    trainer: Trainer, held_out: HeldOut, last: Material | None, command: str | None
) -> dict[str, Any]:
    """Write the heads and the finished log, by ``command`` if there is one; return the result."""
    speculator, accelerator = trainer.speculator(), trainer.accelerator
    vocabulary = speculator.config.vocab_size
    wanted = trainer.recipe.heads.draft_vocabulary or vocabulary
    ranked = frequent_targets(last, vocabulary) if last else torch.arange(vocabulary)
    draft_ids = ranked[:wanted].sort().values
    found = validate_heads(speculator, held_out)
    folder = trainer.out / HEADS
    if command and accelerator.is_main_process:
        note = (
            f"{accelerator.device.type}, {torch.get_num_threads()} threads,"
            f" {accelerator.num_processes} processes"
        )
        made = provenance(command, trainer.recipe.seed, note)
        save_heads(folder, speculator, draft_ids)
        log = LossLog.follow(trainer.out / LOG_NAME)
        log.model_copy(update={"provenance": made}).save(folder / "losslog.json")
    progress = trainer.progress
    return {
        "final_loss": list(found["loss"]),
        "accept": list(found["accept"]),
        "tokens_per_step": found["tokens_per_step"],
        "steps": progress.total_steps,
        "tokens": progress.tokens,
        "seconds": progress.seconds,
        "processes": accelerator.num_processes,
        "heads": str(folder),
    }
