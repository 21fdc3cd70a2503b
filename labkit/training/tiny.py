"""The tiny base model: a byte-level BPE tokenizer and a small Llama, trained from scratch.

``python -m labkit.training.tiny RECIPE --out FOLDER`` trains it on one core in about half an hour.
Killed at any moment and started again with the same command, it continues from its last checkpoint
and ends where it would have ended anyway.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from labkit.models.store import locked
from labkit.training.pretrain import Job, byte_pairs, command_parser, print_result, train_model
from labkit.training.recipe import Course, Frozen, Positive, Source
from labkit.training.text import pack_text, read_documents

END_OF_TEXT = "<|endoftext|>"
INITIAL_SCALE = 0.04  # twice transformers' own: narrow models start too quietly with 0.02
GOLDEN = (math.sqrt(5) - 1) / 2


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

    batch_tokens: Positive
    windows: Annotated[tuple[Positive, ...], Field(min_length=1)]


class TinyRecipe(Frozen):
    """Every setting that decides the tiny model's weights."""

    seed: int
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

    Returns ``loss`` (held out, nats per token, of the weights as saved), ``bits_per_byte`` and
    ``seconds`` (spent training, over all runs). Raises `LabkitError` if another process is training
    in ``out``.
    """
    with locked(out):
        documents = read_documents(recipe.sources)
        training = [document for document in documents if not document.held_out]
        held_out = [document for document in documents if document.held_out]
        tokenizer = train_tokenizer((text.text for text in training), recipe.model.vocabulary)
        stream, unseen = pack_text(training, tokenizer), pack_text(held_out, tokenizer)
        model = build_model(recipe.model, recipe.seed)
        job = Job(
            name="tiny",
            model=model,
            tokenizer=tokenizer,
            course=recipe.training,
            loss_at=lambda step: _loss(model, batch_at(step, stream, recipe.training, recipe.seed)),
            held_out=lambda: held_out_loss(model, unseen),
            recipe=recipe.model_dump(mode="json"),
        )
        size = sum(len(document.text.encode()) for document in held_out)
        bits = len(unseen) / math.log(2) / size
        return train_model(job, out, lambda loss: {"bits_per_byte": loss * bits})


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
