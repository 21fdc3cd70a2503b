"""Small models trained from scratch: the tiny base model, and what the translator shares with it.

The tiny model is a small Llama with a byte-level BPE tokenizer.
``python -m labkit.training.tiny RECIPE --out FOLDER`` trains it on one core in about half an hour.

Checkpoints and the learning rate are those of the heads' training: a step depends only on its
number. Killed at any moment and started again with the same command, a training continues from its
last checkpoint and ends where it would have ended anyway.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, model_validator
from safetensors.torch import save
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from labkit.errors import LabkitError
from labkit.models.store import locked, make_manifest
from labkit.records.base import write_whole
from labkit.training.batches import learning_rate_at
from labkit.training.loop import Run
from labkit.training.recipe import Course, Frozen, ModelRecipe, Positive, Source
from labkit.training.text import pack_text, read_documents

END_OF_TEXT = "<|endoftext|>"
INITIAL_SCALE = 0.04  # twice transformers' own: narrow models start too quietly with 0.02
GOLDEN = (math.sqrt(5) - 1) / 2


def byte_pairs(
    texts: Iterable[str], vocabulary: int, special: list[str], leading_space: bool
) -> Tokenizer:
    """Learn a byte-level BPE tokenizer of ``vocabulary`` tokens, the ``special`` ones first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=leading_space)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


def train_model(
    name: str,
    recipe: ModelRecipe,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    out: Path,
    *,
    loss_at: Callable[[int], Tensor],
    held_out: Callable[[], float],
    more: Callable[[float], dict[str, float]],
) -> dict[str, float]:
    """Do the remaining steps of ``recipe``, with checkpoints in ``out``; save the model when done.

    ``loss_at(step)`` returns a scalar with its gradient, ``held_out()`` nats per token of text that
    is not trained on. The model goes to ``out/model`` and its figures to ``out/result.json``.
    Returns these: ``loss`` (held out, of the weights as saved), what ``more`` adds, given the loss,
    and ``seconds``, those of all runs. A run of another recipe in ``out`` is refused.
    """
    course = recipe.training
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=0.0, betas=course.betas, weight_decay=course.weight_decay
    )
    run = Run(out, model, optimizer, recipe.model_dump(mode="json"))
    progress = run.progress
    started = time.perf_counter() - progress.seconds
    steps = range(progress.step, course.steps)
    bar = tqdm(steps, initial=progress.step, total=course.steps, desc=name, mininterval=10)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, course)
        loss = loss_at(step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), course.clip)
        optimizer.step()
        optimizer.zero_grad()
        bar.set_postfix(loss=f"{loss.item():.3f}")
        progress.step = step + 1
        progress.seconds = time.perf_counter() - started
        if progress.step % course.checkpoint_every == 0 or progress.step == course.steps:
            run.save()
            bar.write(
                f"step {progress.step}: loss {loss.item():.3f},"
                f" held out {held_out():.3f}, {progress.seconds:.0f} s"
            )
    folder = out / "model"
    save_model(model, tokenizer, folder)
    make_manifest(folder, f"labkit.training.{name}", revision=1, times=False).write(folder)
    for parameter in model.parameters():  # what `save_model` keeps of them
        parameter.data = parameter.data.half().float()
    left = held_out()
    result = {"loss": left, **more(left), "seconds": progress.seconds}
    write_whole(out / "result.json", json.dumps(result))
    return result


def command_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser of a recipe's path and ``--out``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    return parser


def print_result(train: Callable[[], dict[str, float]]) -> None:
    """Print the result of ``train`` as JSON; on an error, print one sentence, exit status 2."""
    try:
        print(json.dumps(train()))
    except LabkitError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write model and tokenizer as a folder that transformers loads; weights as float16.

    The configuration says float32, so loading widens them: arithmetic in float16 is slow on most
    processors, and the file stays half as large.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().half() for name, value in model.named_parameters()}
    write_whole(folder / "model.safetensors", save(weights, metadata={"format": "pt"}))
    model.config.architectures = [type(model).__name__]
    model.config.dtype = "float32"
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tokenizer.model_max_length = model.config.max_position_embeddings
    tokenizer.save_pretrained(folder)


class ModelShape(Frozen):
    """The shape of the tiny Llama; head dimension is width / heads."""

    vocabulary: Annotated[int, Field(ge=257, description="tokens, end-of-text included")]
    width: Positive
    layers: Positive
    inner: Positive
    heads: Positive
    key_value_heads: Positive
    context: Positive

    @model_validator(mode="after")
    def _check(self) -> ModelShape:
        if self.width % self.heads or self.heads % self.key_value_heads:
            raise ValueError("width must divide by heads, and heads by key_value_heads")
        return self


class TrainingPlan(Course):
    """The settings of the training; batches use the ``windows`` lengths in turn."""

    windows: Annotated[tuple[Positive, ...], Field(min_length=1)]


class TinyRecipe(ModelRecipe):
    """Every setting that decides the tiny model's weights."""

    sources: tuple[Source, ...]
    model: ModelShape
    training: TrainingPlan

    @model_validator(mode="after")
    def _check(self) -> TinyRecipe:
        if any(self.training.batch_tokens % window for window in self.training.windows):
            raise ValueError("batch_tokens must be a multiple of every window")
        if max(self.training.windows) > self.model.context:
            raise ValueError("a window is longer than the model's context")
        return self


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Learn a tokenizer of ``vocabulary`` tokens; end-of-text is token 0 and also pads."""
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_pairs(texts, vocabulary, [END_OF_TEXT], leading_space=False),
        eos_token=END_OF_TEXT,
        bos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )


def batch_at(step: int, stream: Tensor, plan: TrainingPlan, seed: int) -> Tensor:
    """Return the batch of ``step``: int64 (B, T + 1), which depends only on the arguments.

    Row r of the whole training starts at the fractional part of r times the golden ratio, on a
    scale where the stream is 1: such points spread more evenly than random ones (Weyl 1916).
    """
    window = plan.windows[step % len(plan.windows)]
    most = plan.batch_tokens // min(plan.windows)
    rows = torch.arange(plan.batch_tokens // window, dtype=torch.float64) + step * most
    places = ((rows + seed * 7919) * GOLDEN) % 1.0  # (B,)
    starts = (places * (len(stream) - window)).long()
    return stream[starts[:, None] + torch.arange(window + 1)]  # (B, T + 1)


def build_model(shape: ModelShape, seed: int) -> LlamaForCausalLM:
    """Return the untrained model, float32, embeddings tied; the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=shape.vocabulary,
                hidden_size=shape.width,
                intermediate_size=shape.inner,
                num_hidden_layers=shape.layers,
                num_attention_heads=shape.heads,
                num_key_value_heads=shape.key_value_heads,
                max_position_embeddings=shape.context,
                tie_word_embeddings=True,
                initializer_range=INITIAL_SCALE,
                bos_token_id=0,
                eos_token_id=0,
                pad_token_id=0,
            )
        )


def held_out_loss(model: LlamaForCausalLM, stream: Tensor) -> float:
    """Return the mean cross-entropy in nats per token over 32 spread windows of ``stream``."""
    starts = torch.linspace(0, len(stream) - 513, 32).long()
    rows = stream[starts[:, None] + torch.arange(513)]  # (32, 513)
    with torch.inference_mode():
        losses = [_loss(model, part).item() for part in rows.split(8)]
    return sum(losses) / len(losses)


def train(recipe: TinyRecipe, out: Path) -> dict[str, float]:
    """Train by ``recipe``, keep checkpoints in ``out``, write the finished model to ``out/model``.

    Returns what `train_model` does and ``bits_per_byte``. Raises `LabkitError` if another process
    is training in ``out``.
    """
    with locked(out):
        documents = read_documents(recipe.sources)
        training, held_out = ([d for d in documents if d.held_out == held] for held in (0, 1))
        tokenizer = train_tokenizer((text.text for text in training), recipe.model.vocabulary)
        stream, unseen = pack_text(training, tokenizer), pack_text(held_out, tokenizer)
        model = build_model(recipe.model, recipe.seed)
        size = sum(len(document.text.encode()) for document in held_out)
        bits = len(unseen) / math.log(2) / size
        return train_model(
            "tiny",
            recipe,
            model,
            tokenizer,
            out,
            loss_at=lambda step: _loss(model, batch_at(step, stream, recipe.training, recipe.seed)),
            held_out=lambda: held_out_loss(model, unseen),
            more=lambda loss: {"bits_per_byte": loss * bits},
        )


def _loss(model: LlamaForCausalLM, rows: Tensor) -> Tensor:
    """Return the mean cross-entropy of rows[:, 1:] given rows[:, :-1]; rows int64 (B, T + 1)."""
    logits = model(input_ids=rows[:, :-1], use_cache=False).logits  # (B, T, V)
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())


def main(arguments: Sequence[str] | None = None) -> None:
    """Train from the command line, on one thread."""
    given = command_parser("Train the tiny base model.").parse_args(arguments)
    torch.set_num_threads(1)
    print_result(lambda: train(TinyRecipe.load(given.recipe), given.out))


if __name__ == "__main__":
    main()
