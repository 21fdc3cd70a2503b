"""The training loop of the heads: both phases, one optimizer, one log, resumable at every step.

A step depends only on the recipe and the step's number: which runs of text, in which order, which
tokens its softmax covers, which learning rate. A checkpoint therefore holds the weights, the
optimizer's moments and that number, and a killed run ends where it would have ended anyway.

A checkpoint is one safetensors file with JSON in its header, whole or absent. It is written under a
temporary name, flushed, and renamed; the one before it is kept under a second name until the next
is written. So a kill at any moment, a full disk or a damaged file costs at most the steps since the
last good checkpoint.

accelerate spreads a step over processes; the sums of the losses are divided by the whole batch's
counts, so any number of processes computes the same gradient.
"""

from __future__ import annotations

import hashlib
import json
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import safetensors
import torch
from accelerate import Accelerator
from safetensors.torch import save
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict as gathered
from tqdm import tqdm

from labkit.errors import LabkitError
from labkit.records.base import write_whole
from labkit.records.losslog import LossLog, LossPoint, ValidationPoint
from labkit.speculative.checkpoint import new_heads
from labkit.speculative.eagle import Eagle
from labkit.speculative.speculator import Speculator
from labkit.training.answers import at_hand
from labkit.training.batches import (
    Candidates,
    TrainingBatch,
    batch_indices,
    draw_candidates,
    learning_rate_at,
    make_batch,
)
from labkit.training.losses import HeadLosses, HeldOut, Material, frequent_targets, validate_heads
from labkit.training.recipe import Recipe, Schedule

LOG_NAME = "losslog.jsonl"
LATEST = "checkpoint.safetensors"
PREVIOUS = "checkpoint-previous.safetensors"
WHOLE = gathered.StateDictOptions(full_state_dict=True)


class Trainer:
    """A run in progress: heads, optimizer, position in the data, log and checkpoints.

    Checkpoints and the log go to ``out``. Raises `LabkitError` if it holds a run of another recipe
    or from other weights, or no checkpoint in it can be read.
    """

    def __init__(
        self,
        recipe: Recipe,
        speculator: Speculator | Eagle,
        base_table: Tensor,
        out: Path,
        accelerator: Accelerator,
        began_with: str | None = None,
    ) -> None:
        self.recipe = recipe
        self.out = out
        self.accelerator = accelerator
        self.device = accelerator.device
        precision = at_hand(recipe.precision, self.device)
        module = HeadLosses(speculator, base_table, recipe.loss.labels, precision)
        module = module.to(self.device)
        options = recipe.optimizer
        optimizer = torch.optim.AdamW(
            module.parameters(), lr=0.0, betas=options.betas, weight_decay=options.weight_decay
        )
        self._vocabulary = len(base_table)
        self.module, self.optimizer = accelerator.prepare(module, optimizer)
        settings = recipe.model_dump(mode="json")
        self._run = Run(out, self.module, self.optimizer, settings, began_with)
        self.progress = self._run.progress
        self._log = self._open_log()

    @property
    def trained(self) -> int:
        """The phase that was trained last, 0 before the first."""
        return self.progress.phase if self.progress.step else self.progress.phase - 1

    def run_phase(
        self, phase: int, schedule: Schedule, material: Material, held_out: HeldOut
    ) -> None:
        """Do the remaining steps of ``phase``; a finished phase is skipped.

        An interrupt (Ctrl-C, or stopping a notebook's cell) takes effect after the current step:
        the state is saved and KeyboardInterrupt raised.
        """
        if phase < self.progress.phase:
            return
        processes, micro_batches = self.accelerator.num_processes, schedule.micro_batches
        if schedule.rows % (processes * micro_batches):
            raise LabkitError(
                f"A step has {schedule.rows} rows, which {processes} processes with {micro_batches}"
                " micro-batches cannot share equally: change rows in the recipe."
            )
        if phase > self.progress.phase:  # the one before was not run
            self.progress.phase, self.progress.step = phase, 0
        half, watch = self.recipe.loss.sampled_vocabulary // 2, self.recipe.watch
        frequent = frequent_targets(material, self._vocabulary)[:half]
        if self.progress.total_steps == 0:
            self._validate(held_out)
        bar = tqdm(
            range(self.progress.step + 1, schedule.steps + 1),
            initial=self.progress.step,
            total=schedule.steps,
            desc=f"phase {phase}",
            unit="step",
            disable=not self.accelerator.is_main_process,
        )
        with _deferred_interrupt() as interrupted:
            for step in bar:
                point = self._step(phase, schedule, material, frequent)
                self._append(point)
                losses = " ".join(f"{loss:.2f}" for loss in point.loss)
                speed = self.progress.tokens / max(self.progress.seconds, 1e-9)
                bar.set_postfix_str(f"loss {losses}, {speed:,.0f} tokens/s")
                last = step == schedule.steps
                if last or step % watch.validate_every == 0:
                    self._validate(held_out)
                if last:
                    self.progress.phase, self.progress.step = phase + 1, 0
                if last or interrupted() or step % watch.checkpoint_every == 0:
                    self._run.save(writes=self.accelerator.is_main_process)
                    self.accelerator.wait_for_everyone()
                if interrupted():
                    raise KeyboardInterrupt

    def speculator(self) -> Speculator | Eagle:
        """Return a copy of the heads as they are now, on the CPU."""
        model = self.accelerator.unwrap_model(self.module).speculator
        fresh = new_heads(model.config, model.table.cpu())
        weights = self._run.states()[0].items()
        fresh.load_state_dict({name.removeprefix("speculator."): w.cpu() for name, w in weights})
        return fresh.eval().requires_grad_(False)

    def _step(
        self, phase: int, schedule: Schedule, material: Material, frequent: Tensor
    ) -> LossPoint:
        """Do one optimizer step and return its line of the log."""
        began, device, progress = time.perf_counter(), self.device, self.progress
        heads, processes = self.recipe.heads.count, self.accelerator.num_processes
        seed = self.recipe.seed + phase
        indices = batch_indices(progress.step, schedule.rows, len(material.runs), seed)
        runs = material.runs.take(indices)
        whole = make_batch(material.tokens, runs, schedule.window, heads)
        counts = whole.counts().clamp(min=1)
        candidates = self._candidates(whole, frequent)
        rate = learning_rate_at(progress.step, schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        sums = torch.zeros(heads)
        own = torch.arange(schedule.rows)[self.accelerator.process_index :: processes]
        parts = own.chunk(schedule.micro_batches)
        for number, part in enumerate(parts):
            hidden = material.hidden(runs.take(part), schedule.window + heads).to(device)
            tokens, inside = whole.tokens[part].to(device), whole.inside[part].to(device)
            last = number == len(parts) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.module):
                losses = self.module(TrainingBatch(tokens, inside, heads), hidden, candidates)
                # Processes' gradients are averaged afterwards: each is multiplied by their number.
                self.accelerator.backward((losses / counts.to(device)).sum() * processes)
            sums += losses.detach().cpu()
        self.accelerator.clip_grad_norm_(self.module.parameters(), self.recipe.optimizer.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        means = self.accelerator.reduce(sums.to(device), "sum").cpu() / counts
        progress.step += 1
        progress.total_steps += 1
        progress.tokens += int(counts[0])
        progress.seconds += time.perf_counter() - began
        return LossPoint(
            phase=phase,
            step=progress.total_steps,
            tokens=progress.tokens,
            loss=tuple(means.tolist()),
            lr=rate,
            seconds=progress.seconds,
        )

    def _candidates(self, batch: TrainingBatch, frequent: Tensor) -> Candidates | None:
        """Draw the tokens that this step's softmax runs over, or None for all."""
        size = self.recipe.loss.sampled_vocabulary
        if not size or size >= self._vocabulary:
            return None
        seed = self.recipe.seed * 1_000_003 + self.progress.total_steps
        generator = torch.Generator().manual_seed(seed)
        heads = range(batch.heads)
        targets = torch.cat([batch.targets(head)[batch.counted(head)] for head in heads])
        drawn = draw_candidates(targets, frequent, size, self._vocabulary, generator)
        return Candidates(*(part.to(self.device) for part in vars(drawn).values()))

    @torch.no_grad()
    def _validate(self, held_out: HeldOut) -> None:
        """Evaluate the heads on held-out text; log loss, acceptance and tokens per step."""
        at, found = self.progress, validate_heads(self.speculator(), held_out)
        point = ValidationPoint(phase=at.phase, step=at.total_steps, tokens=at.tokens, **found)
        self._append(point)

    def _append(self, point: LossPoint | ValidationPoint) -> None:
        if self._log is None:
            return
        try:
            self._log.write(point.model_dump_json() + "\n")
            self._log.flush()
        except OSError as error:
            raise LabkitError(
                f"Could not write the loss log in {self.out} ({error.strerror});"
                " free some disk space and run the same command again."
            ) from None

    def _open_log(self) -> TextIO | None:
        """Open the log at its end; return None except in the main process.

        A new run writes the header; a resumed one drops a line that a kill cut short.
        """
        if not self.accelerator.is_main_process:
            return None
        path, recipe = self.out / LOG_NAME, self.recipe
        settings = recipe.model_dump(mode="json")
        log = LossLog(name=recipe.name, base=recipe.base, heads=recipe.heads.count, recipe=settings)
        header = log.model_dump_json(exclude={"points", "validation"})
        found = path.read_bytes() if self.progress.total_steps and path.exists() else b""
        write_whole(path, found[: found.rfind(b"\n") + 1] or f"{header}\n")
        return path.open("a", encoding="utf-8", newline="\n")


@contextmanager
def _deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Defer an interrupt: within the block it only sets a mark; a second one interrupts at once.

    The block gets a function that returns the mark. Signals reach only the main thread; in another
    one nothing changes.
    """
    marked = False

    def mark(_number: int, _frame: object) -> None:
        nonlocal marked
        if marked:
            raise KeyboardInterrupt
        marked = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, mark)
    try:
        yield lambda: marked
    finally:
        signal.signal(signal.SIGINT, before)


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
