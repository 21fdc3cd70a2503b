"""From a recipe to what its phases are trained on: windows of text, prompts, the base's answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from labkit.errors import LabkitError
from labkit.models import LanguageModel
from labkit.paths import cache_dir
from labkit.speculative.checkpoint import new_heads
from labkit.speculative.eagle import Eagle, EagleConfig
from labkit.speculative.speculator import Speculator, SpeculatorConfig
from labkit.training.data import (
    Answers,
    Continue,
    Writing,
    distinct,
    make_shards,
    read_answers,
    some_text,
    text_prompts,
    text_windows,
)
from labkit.training.features import (
    ComputedFeatures,
    Features,
    ShardFeatures,
    head_weight,
    store_features,
)
from labkit.training.loop import HeldOut, Material, hold_out
from labkit.training.phases import cut_runs
from labkit.training.prompts import task_prompts
from labkit.training.recipe import Generation, Recipe
from labkit.training.text import Document, read_documents

HELD_OUT_WINDOWS = 8
PROMPTS_FROM = 8
"""Prompts are cut from a text so many times as long as all of them."""
FRAME_TOKENS = 64
"""As much as a chat template may put around a prompt."""
WHOLE = 1 << 30
"""A window that no sequence fills."""


def new_speculator(recipe: Recipe, base: LanguageModel) -> Speculator | Eagle:
    """Untrained heads of the recipe's shape on the base's embedding; same seed, same heads."""
    embeddings: Any = base.module.get_input_embeddings()
    table = embeddings.weight.detach().float()
    shape = recipe.heads
    config: SpeculatorConfig | EagleConfig
    if shape.kind == "eagle":
        config = EagleConfig(
            base=recipe.base,
            vocab_size=table.shape[0],
            emb_dim=table.shape[1],
            inner_dim=shape.inner_width,
            n_predict=shape.count,
            heads=base.config.num_attention_heads,
        )
    else:
        config = SpeculatorConfig(
            base=recipe.base,
            vocab_size=table.shape[0],
            emb_dim=table.shape[1],
            inner_dim=shape.inner_width,
            n_predict=shape.count,
            hierarchical=shape.hierarchical,
            scale_input=shape.scale_input,
            layers=shape.layers,
            tied=shape.tied,
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return new_heads(config, table)


def text_material(recipe: Recipe, base: LanguageModel) -> Material:
    """Phase 1: every window of the recipe's text, held-out documents left out."""
    assert recipe.phase1 is not None
    documents = [text for text in read_documents(recipe.phase1.sources) if not text.held_out]
    phase = recipe.phase1
    stream = some_text(documents, base.tokenizer, phase.steps * phase.rows * phase.window)
    windows = text_windows(stream, phase.window)
    runs = cut_runs(windows, phase.window)
    features = ComputedFeatures(base.module, windows, recipe.heads.layers)
    return Material(windows.tokens, runs, features)


def answer_material(
    recipe: Recipe, base: LanguageModel, write: Continue, folder: Path | None = None
) -> Material:
    """Phase 2: the base model's answers and their hidden states, made once and kept.

    ``folder`` names shards to train on in place of the recipe's own.
    """
    assert recipe.phase2 is not None
    answers = read_answers(folder) if folder else training_answers(recipe, base, write)
    runs = cut_runs(answers.sequences, recipe.phase2.window)
    features = _features(recipe, base, answers, _generation(recipe).keep_hidden)
    return Material(answers.sequences.tokens, runs, features)


def held_out_material(recipe: Recipe, base: LanguageModel, write: Continue) -> HeldOut:
    """What training is watched on: greedy answers to prompts of documents kept apart.

    A recipe without generation is watched on windows of those documents.
    """
    table, heads = head_weight(base.module).float(), recipe.heads.count
    if recipe.generation is None:
        assert recipe.phase1 is not None
        documents = [text for text in read_documents(recipe.phase1.sources) if text.held_out]
        window = recipe.phase1.window
        stream = some_text(documents, base.tokenizer, 4 * HELD_OUT_WINDOWS * window)
        windows = text_windows(stream, window)
        runs = cut_runs(windows, WHOLE).take(_spread(len(windows), HELD_OUT_WINDOWS))
        features: Features = ComputedFeatures(base.module, windows, recipe.heads.layers)
        return hold_out(Material(windows.tokens, runs, features), table, heads, greedy=False)
    plan = recipe.generation
    prompts = make_prompts(recipe, base, write, held_out=True)
    manner = Writing(plan.answer_tokens, repeats=plan.repeats)
    answers = make_shards(_folder(base, prompts, manner), prompts, write, manner)
    runs = cut_runs(answers.sequences, WHOLE)
    features = _features(recipe, base, answers, kept=True)
    material = Material(answers.sequences.tokens, runs, features)
    return hold_out(material, table, heads, greedy=True)


def training_answers(recipe: Recipe, base: LanguageModel, write: Continue) -> Answers:
    """The base model's answers to the recipe's prompts, kept as shards in the cache folder."""
    plan = _generation(recipe)
    kept_apart = set(map(tuple, make_prompts(recipe, base, write, held_out=True)))
    prompts = [
        prompt
        for prompt in make_prompts(recipe, base, write, held_out=False)
        if tuple(prompt) not in kept_apart
    ]
    manner = Writing(
        plan.answer_tokens,
        plan.temperature,
        plan.top_k,
        repeats=plan.repeats,
        seed=recipe.seed,
        precision=plan.precision,
    )
    folder = _folder(base, prompts, manner)
    return make_shards(folder, prompts, write, manner, watch=_bar("answers"))


def make_prompts(
    recipe: Recipe, base: LanguageModel, write: Continue, held_out: bool
) -> list[list[int]]:
    """The recipe's prompts as token ids, without repetitions, of every kind in equal parts.

    Held-out ones are cut from, or filled with, held-out documents only.
    """
    plan = _generation(recipe)
    documents = [text for text in read_documents(plan.sources) if text.held_out == held_out]
    count = plan.held_out if held_out else plan.count
    makers: dict[str, Callable[[int, int], list[list[int]]]] = {
        "text": lambda share, seed: text_prompts(
            some_text(documents, base.tokenizer, PROMPTS_FROM * share * plan.prompt_tokens),
            plan.prompt_tokens,
            share,
            seed,
        ),
        "tasks": lambda share, seed: _encoded(
            base, task_prompts(_passages(documents), share, seed), plan.answer_tokens
        ),
        "own": lambda share, seed: _own_prompts(base, write, plan, share, seed),
    }
    kinds = len(plan.kinds)
    shares = [count // kinds + (number < count % kinds) for number in range(kinds)]
    seeds = [1_000 * recipe.seed + 2 * number + held_out for number in range(kinds)]
    made = map(lambda kind, *rest: makers[kind](*rest), plan.kinds, shares, seeds)
    return distinct(prompt for part in made for prompt in part)


def _own_prompts(
    base: LanguageModel, write: Continue, plan: Generation, count: int, seed: int
) -> list[list[int]]:
    """User's turns that the chat model writes itself after its template's opening."""
    if not base.chat:
        raise LabkitError(f"The model {base.name!r} has no chat template, so it writes no prompts.")
    length = plan.prompt_tokens
    manner = Writing(length, temperature=1.0, top_p=0.95, seed=seed, precision=plan.precision)
    openings = [_opening(base)] * count
    made = make_shards(_folder(base, openings, manner), openings, write, manner).sequences
    turns = (made.row(row)[made.given[row] :].tolist() for row in range(len(made)))
    texts = (base.decode(turn).strip() for turn in turns)
    return _encoded(base, texts, length)


def _encoded(base: LanguageModel, texts: Iterable[str], room: int) -> list[list[int]]:
    """Those of ``texts`` as prompts that are not empty and leave ``room`` tokens in the context."""
    framed = room + FRAME_TOKENS
    fitting = (
        text
        for text in texts
        if text and len(base.tokenizer(text)["input_ids"]) + framed <= base.context
    )
    return [base.encode(text) for text in fitting]


def _opening(base: LanguageModel) -> list[int]:
    """What the chat template puts before a user's words, as token ids."""
    mark = "\N{BLACK SQUARE}\N{BLACK SQUARE}"
    turn = [{"role": "user", "content": mark}]
    whole = str(base.tokenizer.apply_chat_template(turn, tokenize=False))
    return base.tokenizer(whole.partition(mark)[0], add_special_tokens=False)["input_ids"]


def _passages(documents: Sequence[Document]) -> list[str]:
    """Paragraphs long enough to set a task over; of a conversation, all of it."""
    parts = (part for text in documents for part in text.text.split("\n\n"))
    return [part for part in parts if len(part.split()) >= 40]


def _generation(recipe: Recipe) -> Generation:
    if recipe.generation is None:
        raise LabkitError(f"The recipe {recipe.name!r} has no [generation]: add one.")
    return recipe.generation


def _folder(base: LanguageModel, prompts: Sequence[Sequence[int]], manner: Writing) -> Path:
    """Where answers to exactly these prompts are kept."""
    what = json.dumps([fingerprint(base), asdict(manner), [list(prompt) for prompt in prompts]])
    name = hashlib.sha256(what.encode()).hexdigest()[:16]
    return cache_dir() / "answers" / name


def _features(recipe: Recipe, base: LanguageModel, answers: Answers, kept: bool) -> Features:
    """The answers' hidden states, from wherever they are to be had with the least work."""
    layers = recipe.heads.layers
    if not kept:
        return ComputedFeatures(base.module, answers.sequences, layers)
    if answers.width == head_weight(base.module).shape[1] * (len(layers) + 1):
        return ShardFeatures(answers)
    name = "-".join([fingerprint(base), answers.sequences.digest, *map(str, layers)])
    return store_features(
        base.module,
        answers.sequences,
        cache_dir() / "features" / f"{name}.npy",
        watch=_bar("hidden states"),
        layers=layers,
    )


def fingerprint(base: LanguageModel) -> str:
    """A short name for exactly this base model, from its output table's numbers."""
    table = head_weight(base.module).float().cpu().contiguous().numpy()
    return hashlib.sha256(table.tobytes()).hexdigest()[:16]


def _spread(count: int, wanted: int) -> Tensor:
    """At most ``wanted`` of ``count`` indices, evenly spread."""
    return torch.linspace(0, count - 1, min(count, wanted)).long()


def _bar(what: str) -> Callable[[Iterable[int]], Iterable[int]]:
    return lambda numbers: tqdm(numbers, desc=what, leave=False)
