"""Training runs on disk: one checkpoint file that is whole or absent.

A checkpoint is a safetensors file with JSON in its header. It is written under a temporary name,
flushed, and renamed; the one before it is kept under a second name until the next is written. So a
kill at any moment, a full disk or a damaged file costs at most the steps since the last good
checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict as gathered

from labkit.errors import LabkitError
from labkit.records.base import write_whole

LATEST = "checkpoint.safetensors"
PREVIOUS = "checkpoint-previous.safetensors"
WHOLE = gathered.StateDictOptions(full_state_dict=True)


def save_checkpoint(folder: Path, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> None:
    """Make ``tensors`` and a ``state`` that JSON can hold the latest checkpoint in ``folder``.

    The latest so far becomes the previous one. Raises `LabkitError` if the disk refuses; the latest
    so far is then still there.
    """
    whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    header = {"state": json.dumps(state), "sha256": digest_of(whole, state)}
    latest, fresh = folder / LATEST, folder / (LATEST + ".new")
    try:
        write_whole(fresh, save(whole, metadata=header))
        if latest.exists():
            latest.replace(folder / PREVIOUS)
        fresh.replace(latest)
    except (LabkitError, OSError) as error:
        kept = [path for path in (latest, folder / PREVIOUS) if path.exists()]
        start = f"continue from {kept[0]}" if kept else "start again: no checkpoint was saved yet"
        raise LabkitError(
            f"Could not save a checkpoint ({error}). Free some disk space, then run the same"
            f" command to {start}."
        ) from None


def load_latest(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return the latest good checkpoint in ``folder``, or None if there is none yet.

    A damaged latest file gives a warning, and the previous one is used. Raises `LabkitError` if
    checkpoints exist but none is good.
    """
    present = [folder / name for name in (LATEST, PREVIOUS) if (folder / name).exists()]
    for path in present:
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            state = json.loads(header["state"])
            whole = header["sha256"] == digest_of(tensors, state)
        except (OSError, KeyError, ValueError, safetensors.SafetensorError):
            whole = False
        if whole:
            return tensors, state
        damaged = f"The checkpoint {path} is damaged. Trying the one before it."
        warnings.warn(damaged, stacklevel=2)
    if present:
        raise LabkitError(
            f"No checkpoint in {folder} can be read; to train from the start, remove "
            f"{' and '.join(path.name for path in present)} there."
        )
    return None


@dataclass
class Progress:
    """How far a run is: the phase, its next step, and what was done in all so far."""

    phase: int = 1
    step: int = 0
    total_steps: int = 0
    tokens: int = 0
    seconds: float = 0.0


class Run:
    """A training run in a folder: model, optimizer and progress, saved whole and resumed exactly.

    It continues from the last good checkpoint, if there is one. Raises `LabkitError` if that is of
    another recipe, or began with other weights than are given.

    Every step depends only on the recipe and the step's number, so a checkpoint needs no state of
    random generators. `accelerate.Accelerator.save_state` is not used: it pickles the optimizer and
    the generators, and it writes its files one after another into one folder without a checksum,
    so a run killed while saving would resume from a mixture of two steps.
    """

    def __init__(
        self,
        out: Path,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        recipe: dict[str, Any],
        began_with: str | None = None,
    ) -> None:
        self.out, self.module, self.optimizer, self.recipe = out, module, optimizer, recipe
        self.began_with = began_with
        self.progress = Progress()
        if checkpoint := load_latest(out):
            self._resume(*checkpoint)

    def states(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the weights and the optimizer's state, whole in every process, by name."""
        return gathered.get_state_dict(self.module, self.optimizer, options=WHOLE)

    def save(self, writes: bool = True) -> None:
        """Save a checkpoint; every process takes part, and the one with ``writes`` writes it."""
        weights, optimizer = self.states()
        if not writes:
            return
        # Tied weights share their tensors, and a safetensors file holds each under one name.
        tensors = {f"model.{name}": value.clone() for name, value in weights.items()}
        for name, entries in optimizer["state"].items():
            for what, value in entries.items():
                tensors[f"optimizer.{what}.{name}"] = torch.as_tensor(value)
        progress = vars(self.progress)
        state = {"progress": progress, "recipe": self.recipe, "began_with": self.began_with}
        save_checkpoint(self.out, tensors, state)

    def _resume(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        if state["recipe"] != self.recipe:
            raise LabkitError(f"{self.out} holds a run of another recipe: give another folder.")
        began_with = state.get("began_with", self.began_with)
        if self.began_with not in (None, began_with):
            raise LabkitError(
                f"{self.out} holds a run that did not start from those heads: give another folder."
            )
        self.began_with = began_with
        weights: dict[str, Any] = {}
        moments: dict[str, Any] = {}
        for key, value in tensors.items():
            kind, rest = key.split(".", 1)
            if kind == "model":
                weights[rest] = value
            else:
                what, name = rest.split(".", 1)
                moments.setdefault(name, {})[what] = value
        optimizer = {"state": moments, "param_groups": self.states()[1]["param_groups"]}
        gathered.set_state_dict(
            self.module,
            self.optimizer,
            model_state_dict=weights,
            optim_state_dict=optimizer,
            options=WHOLE,
        )
        self.progress = Progress(**state["progress"])


def digest_of(tensors: Mapping[str, Tensor], state: Mapping[str, Any] | None = None) -> str:
    """Return the SHA-256 of every tensor's name and bytes and of the state."""
    digest = hashlib.sha256(json.dumps(state or {}, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().flatten().view(torch.uint8).cpu().numpy().data)
    return digest.hexdigest()
