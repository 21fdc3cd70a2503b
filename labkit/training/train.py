"""The training of speculative heads, from a recipe to the finished files; `train_all` first."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from labkit.errors import LabkitError
from labkit.models import LanguageModel, load
from labkit.models.store import locked
from labkit.provenance import command_line, provenance
from labkit.records.losslog import LossLog
from labkit.speculative.checkpoint import load_heads, new_heads, save_heads
from labkit.speculative.context import ROTARY_BASE, ContextConfig
from labkit.speculative.eagle import Eagle, EagleConfig
from labkit.speculative.speculator import Speculator, SpeculatorConfig
from labkit.training.answers import (
    Answers,
    Continue,
    Writing,
    made_answers,
    read_answers,
    writer,
)
from labkit.training.batches import cut_runs, text_windows
from labkit.training.checkpoints import digest_of
from labkit.training.eagle_start import start_from_base
from labkit.training.features import ComputedFeatures, answer_features, head_weight
from labkit.training.loop import LOG_NAME, Trainer, new_accelerator
from labkit.training.losses import (
    HeldOut,
    Material,
    frequent_targets,
    hold_out,
    validate_heads,
)
from labkit.training.prompts import make_prompts
from labkit.training.recipe import Recipe
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
    accelerator = new_accelerator()
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
        shards = Path(answers_dir) if answers_dir else None
        with accelerator.main_process_first():  # the others find its results in the cache
            held_out = make.held_out()
            answers = make.answers(shards) if recipe.phase2 and 2 in phases else None
        text = make.text() if recipe.phase1 and 1 in phases else None
        heads, material = new_speculator(recipe, base), answers or text
        began_with = None
        if start:
            began_with = _take_weights(heads, Path(start))
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
    return {"answers": len(sequences), "tokens": tokens, "folder": str(answers.paths[0].parent)}


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
    return made_answers(base, prompts, write, manner, watched=True)


@dataclass(frozen=True)
class Materials:
    """What a recipe's phases are trained on and validated on."""

    recipe: Recipe
    base: LanguageModel
    write: Continue

    def text(self) -> Material:
        """Return phase 1's material: every window of the recipe's text, nothing held out."""
        phase = self.recipe.phase1
        assert phase is not None
        return self._windows(phase.steps * phase.rows * phase.window, held_out=False)

    def answers(self, shards: Path | None = None) -> Material:
        """Return phase 2's material: the base model's answers and their hidden states.

        ``shards`` names a folder of answers to use in place of the recipe's own.
        """
        assert self.recipe.phase2 is not None
        own = None if shards else training_answers(self.recipe, self.base, self.write)
        answers = own or read_answers(shards or Path())
        if shards:
            self._check(answers, shards)
        keep = self.recipe.answers.keep_hidden
        return self._answered(answers, self.recipe.phase2.window, keep)

    def _check(self, answers: Answers, folder: Path) -> None:
        """Raise `LabkitError` unless the base model can have written these answers."""
        tokens, bounds = answers.sequences.tokens, answers.sequences.bounds
        vocabulary, longest = len(embedding_table(self.base)), int(bounds.diff().max())
        if int(tokens.max()) >= vocabulary:
            raise LabkitError(
                f"The answers in {folder} have the token {int(tokens.max())}, and "
                f"{self.base.name!r} has {vocabulary:,}: they are another model's."
            )
        if longest > self.base.context:
            raise LabkitError(
                f"The answers in {folder} have up to {longest:,} tokens with their prompts, beyond "
                f"the {self.base.context:,} of {self.base.name!r}'s context."
            )

    def held_out(self) -> HeldOut:
        """Return the text to validate on: greedy answers to held-out prompts.

        A recipe without generation is validated on windows of held-out documents.
        """
        table, heads = head_weight(self.base.module).float(), self.recipe.heads.count
        plan = self.recipe.generation
        if plan is None:
            assert self.recipe.phase1 is not None
            enough = 4 * HELD_OUT_WINDOWS * self.recipe.phase1.window
            material = self._windows(enough, held_out=True)
            count = len(material.runs)
            spread = torch.linspace(0, count - 1, min(count, HELD_OUT_WINDOWS)).long()
            some = Material(material.tokens, material.runs.take(spread), material.features)
            return hold_out(some, table, heads, greedy=False)
        prompts = make_prompts(self.recipe, self.base, self.write, held_out=True)
        manner = Writing(plan.answer_tokens, repeats=plan.repeats)
        answers = made_answers(self.base, prompts, self.write, manner)
        return hold_out(self._answered(answers, WHOLE, keep=True), table, heads, greedy=True)

    def _windows(self, enough: int, held_out: bool) -> Material:
        """Cut ordinary text of ``enough`` tokens into windows; held-out ones stay whole."""
        phase = self.recipe.phase1
        assert phase is not None
        if phase.window > self.base.context:
            raise LabkitError(
                f"The windows of phase 1 are {phase.window:,} tokens long, beyond the "
                f"{self.base.context:,} of {self.base.name!r}'s context."
            )
        documents = [t for t in read_documents(phase.sources) if t.held_out == held_out]
        windows = text_windows(some_text(documents, self.base.tokenizer, enough), phase.window)
        features = ComputedFeatures(self.base.module, windows, self.recipe.heads.layers)
        return Material(windows.tokens, cut_runs(windows, phase.window), features)

    def _answered(self, answers: Answers, window: int, keep: bool) -> Material:
        runs = cut_runs(answers.sequences, window)
        if not len(runs):
            raise LabkitError(
                "No answer is long enough to train on: at least one must have two tokens."
            )
        features = answer_features(self.base, answers, self.recipe.heads.layers, keep)
        return Material(answers.sequences.tokens, runs, features)


def embedding_table(base: LanguageModel) -> Tensor:
    """Return the base model's embedding table: (V, D) float32."""
    embeddings: Any = base.module.get_input_embeddings()
    return embeddings.weight.detach().float()


def new_speculator(recipe: Recipe, base: LanguageModel) -> Speculator | Eagle:
    """Make untrained heads of the recipe's shape on the base's embedding; the seed decides them."""
    table, shape = embedding_table(base), recipe.heads
    common: dict[str, Any] = {
        "base": recipe.base,
        "vocab_size": table.shape[0],
        "emb_dim": table.shape[1],
        "inner_dim": shape.inner_width,
        "n_predict": shape.count,
    }
    config: SpeculatorConfig | EagleConfig
    if shape.kind == "eagle":
        config = EagleConfig(**common, heads=base.config.num_attention_heads, layers=shape.layers)
    else:
        config = SpeculatorConfig(
            **common,
            hierarchical=shape.hierarchical,
            scale_input=shape.scale_input,
            layers=shape.layers,
            tied=shape.tied,
            groups=shape.groups,
            context=_context(base, table.shape[1]) if shape.context else None,
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return new_heads(config, table)


def _take_weights(heads: Speculator | Eagle, folder: Path) -> str:
    """Copy the weights of the heads in ``folder`` and return their digest.

    Raises `LabkitError` for heads of another shape.

    Independent heads may start from hierarchical ones of their shape: each from the first, since
    that one alone reads Z.
    """
    found, _ = load_heads(folder, heads.table)
    weights = found.state_dict()
    if found.config != heads.config:
        if found.config.model_copy(update={"hierarchical": False}) != heads.config:
            raise LabkitError(f"The heads in {folder} are not of the recipe's shape.")
        weights = {name: weights[re.sub(r"\.\d+\.", ".0.", name)] for name in weights}
    heads.load_state_dict(weights)
    return digest_of(heads.state_dict())


def _context(base: LanguageModel, width: int) -> ContextConfig:
    """Return the shape of a context layer like one of the base model's layers."""
    inner = getattr(base.config, "intermediate_size", None) or 4 * width
    rotary = (getattr(base.config, "rope_parameters", None) or {}).get("rope_theta", ROTARY_BASE)
    return ContextConfig(heads=base.config.num_attention_heads, inner_dim=inner, rotary_base=rotary)


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
