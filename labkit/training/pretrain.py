"""Training a small model from nothing: the loop that the tiny model and the translator share.

What a step trains on is a function of the step's number alone, and a checkpoint is the weights,
the optimizer's moments and that number. So a run that was killed ends where it would have ended.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from labkit.errors import LabkitError
from labkit.records.base import RecordError, write_whole
from labkit.training.checkpoints import (
    Checkpoint,
    load_latest,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from labkit.training.recipe import Frozen, Positive


class Course(Frozen):
    """How long and how fast: steps, the learning rate's course, AdamW's settings."""

    steps: Positive
    learning_rate: Annotated[float, Field(gt=0)]
    """The peak, after the warm-up; a cosine from there to ``final_share`` of it."""
    warmup: Positive
    final_share: Annotated[float, Field(ge=0, le=1)]
    betas: tuple[float, float]
    weight_decay: Annotated[float, Field(ge=0)]
    clip: Annotated[float, Field(gt=0)]
    checkpoint_every: Positive


@dataclass(frozen=True)
class Job:
    """What is trained: the model, the loss of each step, and the figure it is watched by.

    ``loss_at(step)`` gives a scalar with its gradient; ``held_out()`` nats per token of text that
    is not trained on. ``recipe`` is kept in checkpoints, and a run of another one is refused.
    """

    name: str
    model: PreTrainedModel
    loss_at: Callable[[int], Tensor]
    held_out: Callable[[], float]
    recipe: dict[str, Any]


def learning_rate_at(step: int, course: Course) -> float:
    """Linear warm-up, then a cosine to ``final_share`` of the peak."""
    if step < course.warmup:
        return course.learning_rate * (step + 1) / course.warmup
    done = (step - course.warmup) / max(1, course.steps - course.warmup)
    share = course.final_share + (1 - course.final_share) * (1 + math.cos(math.pi * done)) / 2
    return course.learning_rate * share


def optimise(job: Job, course: Course, out: Path) -> float:
    """Run the steps that are left, with checkpoints in ``out``; returns seconds over all runs."""
    model = job.model
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=course.learning_rate,
        betas=course.betas,
        weight_decay=course.weight_decay,
    )
    done, seconds = _resume(job, optimizer, out)
    started = time.perf_counter() - seconds
    progress = tqdm(
        range(done, course.steps), initial=done, total=course.steps, desc=job.name, mininterval=10
    )
    for step in progress:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, course)
        loss = job.loss_at(step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), course.clip)
        optimizer.step()
        optimizer.zero_grad()
        progress.set_postfix(loss=f"{loss.item():.3f}")
        if (step + 1) % course.checkpoint_every == 0 or step + 1 == course.steps:
            seconds = time.perf_counter() - started
            tensors = {f"model.{name}": value for name, value in model.named_parameters()}
            state = {"step": step + 1, "seconds": seconds, "recipe": job.recipe}
            save_checkpoint(out, Checkpoint({**tensors, **optimizer_tensors(optimizer)}, state))
            progress.write(
                f"step {step + 1}: loss {loss.item():.3f},"
                f" held out {job.held_out():.3f}, {seconds:.0f} s"
            )
    return seconds


def _resume(job: Job, optimizer: torch.optim.Optimizer, out: Path) -> tuple[int, float]:
    """Put back the last checkpoint in ``out``; returns its step and seconds, or zeros."""
    checkpoint = load_latest(out)
    if checkpoint is None:
        return 0, 0.0
    if checkpoint.state["recipe"] != job.recipe:
        raise LabkitError(f"{out} holds a run of another recipe; give another folder.")
    with torch.no_grad():
        for name, parameter in job.model.named_parameters():
            parameter.copy_(checkpoint.tensors[f"model.{name}"])
    restore_optimizer(optimizer, checkpoint.tensors)
    return checkpoint.state["step"], checkpoint.state["seconds"]


def print_result(train: Callable[[], dict[str, float]]) -> None:
    """Print the result of ``train`` as JSON; on an error, print one sentence, exit status 2."""
    try:
        print(json.dumps(train()))
    except (LabkitError, RecordError) as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write model and tokenizer as a folder that transformers loads; weights as float16.

    The configuration says float32, so that loading widens them: arithmetic in float16 is slow on
    most processors, and the file stays half as large.
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


def round_to_half(model: PreTrainedModel) -> None:
    """Make the weights what `save_model` keeps of them, so that figures are of what is saved."""
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float()
