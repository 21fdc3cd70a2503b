"""Training a small model from scratch: what the tiny model and the translator share.

Checkpoints and the learning rate are those of the heads' training: a step depends only on its
number, so a killed run ends where it would have ended.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from labkit.errors import LabkitError
from labkit.models.store import make_manifest
from labkit.records.base import write_whole
from labkit.training.batches import learning_rate_at
from labkit.training.checkpoints import Run
from labkit.training.recipe import Course


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


@dataclass(frozen=True)
class Job:
    """A model to train by ``course``, the loss of each step, and the loss on held-out text.

    ``loss_at(step)`` returns a scalar with its gradient; ``held_out()`` nats per token of text that
    is not trained on. Checkpoints hold ``recipe``, and a run of another one is refused.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    course: Course
    loss_at: Callable[[int], Tensor]
    held_out: Callable[[], float]
    recipe: dict[str, Any]


def train_model(job: Job, out: Path, more: Callable[[float], dict[str, float]]) -> dict[str, float]:
    """Do the remaining steps of ``job``, with checkpoints in ``out``; save the model when done.

    The model goes to ``out/model`` and its figures to ``out/result.json``. Returns these: ``loss``
    (held out, nats per token, of the weights as saved), what ``more`` adds, given the loss, and
    ``seconds``, those of all runs.
    """
    model, course = job.model, job.course
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=0.0, betas=course.betas, weight_decay=course.weight_decay
    )
    run = Run(out, model, optimizer, job.recipe)
    run.resume()
    progress = run.progress
    started = time.perf_counter() - progress.seconds
    steps = range(progress.step, course.steps)
    bar = tqdm(steps, initial=progress.step, total=course.steps, desc=job.name, mininterval=10)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, course)
        loss = job.loss_at(step)
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
                f" held out {job.held_out():.3f}, {progress.seconds:.0f} s"
            )
    folder = out / "model"
    save_model(model, job.tokenizer, folder)
    make_manifest(folder, f"labkit.training.{job.name}", revision=1, times=False).write(folder)
    for parameter in model.parameters():  # what `save_model` keeps of them
        parameter.data = parameter.data.half().float()
    left = job.held_out()
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
