"""Checkpoints: one safetensors file whose header carries JSON, whole or not there at all.

A checkpoint is written under a temporary name, flushed, and renamed; the one before it is kept
under a second name until the next is written. So a kill at any moment, a full disk or a file that
was damaged later costs at most the steps since the last good checkpoint.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

from labkit.errors import LabkitError
from labkit.records.base import RecordError, write_whole

LATEST = "checkpoint.safetensors"
PREVIOUS = "checkpoint-previous.safetensors"


@contextlib.contextmanager
def locked(folder: Path, wait: bool = False, name: str = ".lock") -> Iterator[None]:
    """Keep other processes from writing to ``folder`` until the block ends.

    The operating system holds the lock, so a crashed process leaves none behind. Raises
    `LabkitError` if another process holds it, or waits for that process with ``wait``.
    """
    lock = filelock.FileLock(folder / name, timeout=-1 if wait else 0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise LabkitError(
            f"Another process is writing to {folder}: wait until it ends, or give another folder."
        ) from None
    except OSError as error:
        raise LabkitError(f"Cannot write to {folder}: {error.strerror or error}.") from None
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class Checkpoint:
    """Named tensors and a JSON-able state."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Make ``checkpoint`` the latest in ``folder``; the latest so far becomes the previous one.

    Raises `LabkitError` where the disk refuses; then the latest so far is still there.
    """
    tensors = {name: tensor.detach().contiguous() for name, tensor in checkpoint.tensors.items()}
    header = {"state": json.dumps(checkpoint.state), "sha256": _digest(tensors, checkpoint.state)}
    latest, fresh = folder / LATEST, folder / (LATEST + ".new")
    try:
        write_whole(fresh, save(tensors, metadata=header))
        if latest.exists():
            latest.replace(folder / PREVIOUS)
        fresh.replace(latest)
    except (RecordError, OSError) as error:
        kept = [path for path in (latest, folder / PREVIOUS) if path.exists()]
        start = f"continue from {kept[0]}" if kept else "start again: no checkpoint was saved yet"
        raise LabkitError(
            f"Could not save a checkpoint ({error}). Free some disk space, then run the same"
            f" command to {start}."
        ) from None


def load_latest(folder: Path) -> Checkpoint | None:
    """The latest good checkpoint in ``folder``, or None where there is none yet.

    A damaged latest file is reported in one warning and the previous one is taken. Raises
    `LabkitError` where a checkpoint exists but none is good.
    """
    present = [folder / name for name in (LATEST, PREVIOUS) if (folder / name).exists()]
    for path in present:
        try:
            return load_checkpoint(path)
        except LabkitError as error:
            warnings.warn(f"{error} Trying the one before it.", stacklevel=2)
    if present:
        raise LabkitError(
            f"No checkpoint in {folder} can be read; remove {present[0].name} there to train from"
            " the beginning."
        )
    return None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint file; raises `LabkitError` if it is damaged."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        state = json.loads(header["state"])
        whole = header["sha256"] == _digest(tensors, state)
    except (OSError, KeyError, ValueError, safetensors.SafetensorError):
        whole = False
    if not whole:
        raise LabkitError(f"The checkpoint {path} is damaged.")
    return Checkpoint(tensors, state)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's moments and step counts as flat names, ``optimizer.<parameter>.<what>``."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{index}.{what}": torch.as_tensor(value)
        for index, entries in state.items()
        for what, value in entries.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave; other names in ``tensors`` are left alone."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, what = name.split(".")
            state.setdefault(int(index), {})[what] = value
    whole = optimizer.state_dict()
    optimizer.load_state_dict({**whole, "state": state})


def _digest(tensors: dict[str, Tensor], state: dict[str, Any]) -> str:
    """SHA-256 over every tensor's name and bytes and the state."""
    digest = hashlib.sha256(json.dumps(state, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().flatten().view(torch.uint8).cpu().numpy().data)
    return digest.hexdigest()
