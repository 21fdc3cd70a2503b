"""The training loop of the heads: both phases, one optimizer, one log, resumable at every step.

Everything a step does follows from the recipe and the step's number: which runs of text, in which
order, which tokens its softmax is over, which learning rate. A checkpoint therefore holds the
weights, the optimizer's moments and that number, and a run that was killed ends where it would have
ended anyway. accelerate spreads a step over processes; the sums of the losses are divided by the
whole batch's counts, so any number of processes computes the same gradient.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict as gathered
from tqdm import tqdm

from labkit.errors import LabkitError
from labkit.records.base import RecordError, write_whole
from labkit.records.losslog import LossLog, LossPoint, ValidationPoint
from labkit.speculative.checkpoint import new_heads
from labkit.speculative.eagle import Eagle
from labkit.speculative.speculator import Speculator
from labkit.training.checkpoints import Checkpoint, load_latest, save_checkpoint
from labkit.training.features import Features
from labkit.training.phases import (
    Batch,
    Candidates,
    Runs,
    batch_indices,
    chain_tokens_per_step,
    draw_candidates,
    hard_loss,
    learning_rate_at,
    make_batch,
    soft_loss,
)
from labkit.training.recipe import Precision, Recipe, Schedule

LOG_NAME = "losslog.jsonl"


@dataclass(frozen=True)
class Material:
    """What a phase is trained on: flat ``tokens`` int64 (N,), ``runs`` of them, their features."""

    tokens: Tensor
    runs: Runs
    features: Features


@dataclass(frozen=True)
class HeldOut:
    """What training is watched on: one run per sequence, with the base model's own choices.

    ``batch`` of B sequences and S positions, ``hidden`` float32 (B, S + K, W), ``choices`` int64
    (B, S + K): the base model's most probable next token at each position; ``greedy``: whether the
    sequences are the base model's own greedy answers, so that steps can be counted on them.
    """

    batch: Batch
    hidden: Tensor
    choices: Tensor
    greedy: bool


class HeadLosses(nn.Module):
    """The speculator with its loss: what accelerate wraps, so that one forward gives all losses."""

    base_table: Tensor

    def __init__(
        self,
        speculator: Speculator | Eagle,
        base_table: Tensor,
        labels: str,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        self.halved = precision == "bfloat16"
        self.speculator = speculator
        self.register_buffer("base_table", base_table, persistent=False)  # (V, D)
        self.labels = labels

    def forward(self, batch: Batch, hidden: Tensor, candidates: Candidates | None) -> Tensor:
        """Each head's summed cross-entropy over its targets in ``batch``: float32 (K,).

        ``hidden`` float32 (B, S + K, W). ``candidates`` None: over the whole vocabulary.
        """
        with torch.autocast(hidden.device.type, torch.bfloat16, enabled=self.halved):
            return self._losses(batch, hidden, candidates)

    def _losses(self, batch: Batch, hidden: Tensor, candidates: Candidates | None) -> Tensor:
        heads, places = batch.heads, batch.tokens.shape[1] - batch.heads - 1
        table = self.speculator.table
        base_table = self.base_table
        correction = None
        if candidates is not None:
            table, base_table = table[candidates.ids], base_table[candidates.ids]
            correction = candidates.correction
        last = hidden[..., -base_table.shape[1] :]  # what the base model's own head reads
        labels = last @ base_table.T if self.labels == "soft" else None  # (B, S + K, C)
        states = self.speculator.states(hidden[:, :places], batch.tokens[:, 1:])
        sums = []
        for head, state in enumerate(states):
            counted = batch.counted(head)
            logits = self.speculator.logits(head, state[counted], table)  # (M, C)
            if correction is not None:
                logits = logits + correction
            if labels is None:
                targets = batch.targets(head)[counted]
                loss = hard_loss(
                    logits, targets if candidates is None else candidates.places[targets]
                )
            else:
                base = labels[:, 1 + head : 1 + head + places][counted]
                loss = soft_loss(
                    logits, base if correction is None else base + correction, correction
                )
            sums.append(loss.sum())
        return torch.stack(sums[:heads])


@dataclass
class Progress:
    """Where a run is: the phase, its next step, and what was done in all so far."""

    phase: int = 1
    step: int = 0
    total_steps: int = 0
    tokens: int = 0
    seconds: float = 0.0


class Trainer:
    """A run that is under way: heads, optimizer, place in the data, log and checkpoints.

    ``out`` gets the checkpoints and the log. Raises `LabkitError` where it holds another recipe's
    run, or nothing in it can be read.
    """

    def __init__(
        self,
        recipe: Recipe,
        speculator: Speculator | Eagle,
        base_table: Tensor,
        out: Path,
        accelerator: Accelerator | None = None,
    ) -> None:
        self.recipe = recipe
        self.out = out
        self.accelerator = accelerator or new_accelerator()
        self.device = self.accelerator.device
        module = HeadLosses(speculator, base_table, recipe.loss.labels, recipe.precision)
        module = module.to(self.device)
        options = recipe.optimizer
        optimizer = torch.optim.AdamW(
            module.parameters(), lr=0.0, betas=options.betas, weight_decay=options.weight_decay
        )
        self._vocabulary = len(base_table)
        self.module, self.optimizer = self.accelerator.prepare(module, optimizer)
        self.progress = Progress()
        self._resume()
        self._log = self._open_log()

    def run_phase(
        self, phase: int, schedule: Schedule, material: Material, held_out: HeldOut
    ) -> None:
        """Do the steps of ``phase`` that are left; a phase that is done is passed over.

        An interrupt (Ctrl-C, or stopping a notebook's cell) is honoured after the step under way:
        the state is saved and KeyboardInterrupt raised.
        """
        if phase < self.progress.phase:
            return
        if phase > self.progress.phase:  # the one before was left out
            self.progress.phase, self.progress.step = phase, 0
        half = self.recipe.loss.sampled_vocabulary // 2
        frequent = frequent_targets(material, self._vocabulary)[:half]
        bar = tqdm(
            total=schedule.steps,
            initial=self.progress.step,
            desc=f"phase {phase}",
            unit="step",
            disable=not self.accelerator.is_main_process,
        )
        if self.progress.total_steps == 0:
            self._validate(held_out)
        with bar, _deferred_interrupt() as interrupted:
            while self.progress.step < schedule.steps:
                point = self._step(phase, schedule, material, frequent)
                self._append(point)
                bar.update()
                bar.set_postfix_str(_bar_text(point, self.progress))
                last = self.progress.step == schedule.steps
                if last or self.progress.step % self.recipe.watch.validate_every == 0:
                    self._validate(held_out)
                if last:
                    self.progress.phase, self.progress.step = phase + 1, 0
                if (
                    last
                    or interrupted()
                    or self.progress.step % self.recipe.watch.checkpoint_every == 0
                ):
                    self._save()
                if interrupted():
                    raise KeyboardInterrupt
                if last:
                    break

    def speculator(self) -> Speculator | Eagle:
        """The heads as they are now, on the CPU, apart from the run."""
        model = self.accelerator.unwrap_model(self.module).speculator
        fresh = new_heads(model.config, model.table.cpu())
        prefix = "speculator."
        state = self._states()[0]
        fresh.load_state_dict(
            {name.removeprefix(prefix): value.cpu() for name, value in state.items()}
        )
        return fresh.eval().requires_grad_(False)

    def _step(
        self, phase: int, schedule: Schedule, material: Material, frequent: Tensor
    ) -> LossPoint:
        """One optimizer step; returns what the log says of it."""
        began = time.perf_counter()
        step, heads = self.progress.step, self.recipe.heads.count
        indices = batch_indices(step, schedule.rows, len(material.runs), self.recipe.seed + phase)
        runs = material.runs.take(indices)
        whole = make_batch(material.tokens, runs, schedule.window, heads)
        counts = whole.counts().clamp(min=1)
        candidates = self._candidates(whole, frequent)
        rate = learning_rate_at(step, schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        sums = torch.zeros(heads)
        parts = self._own_parts(len(runs), schedule.micro_batches)
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.module):
                sums += self._backward(material, runs.take(part), schedule, candidates, counts)
        self.accelerator.clip_grad_norm_(self.module.parameters(), self.recipe.optimizer.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        losses = self.accelerator.reduce(sums.to(self.device), "sum").cpu() / counts
        progress = self.progress
        progress.step += 1
        progress.total_steps += 1
        progress.tokens += int(counts[0])
        progress.seconds += time.perf_counter() - began
        return LossPoint(
            phase=phase,
            step=progress.total_steps,
            tokens=progress.tokens,
            loss=tuple(losses.tolist()),
            lr=rate,
            seconds=progress.seconds,
        )

    def _own_parts(self, rows: int, micro_batches: int) -> list[Tensor]:
        """The row numbers of each of this process's micro-batches."""
        count = self.accelerator.num_processes
        if rows % (count * micro_batches):
            raise LabkitError(
                f"A step has {rows} rows, which {count} processes with {micro_batches}"
                " micro-batches cannot share evenly: change rows in the recipe."
            )
        own = torch.arange(rows)[self.accelerator.process_index :: count]
        return list(own.chunk(micro_batches))

    def _backward(
        self,
        material: Material,
        runs: Runs,
        schedule: Schedule,
        candidates: Candidates | None,
        counts: Tensor,
    ) -> Tensor:
        """Add this part's share of the gradient; returns the heads' summed losses (K,)."""
        heads = self.recipe.heads.count
        batch = make_batch(material.tokens, runs, schedule.window, heads)
        hidden = material.features.hidden(runs, schedule.window + heads)
        moved = Batch(batch.tokens.to(self.device), batch.inside.to(self.device), heads)
        sums = self.module(moved, hidden.to(self.device), candidates)
        # Processes' gradients are averaged afterwards, so each one's is taken times their number.
        loss = (sums / counts.to(self.device)).sum() * self.accelerator.num_processes
        self.accelerator.backward(loss)
        return sums.detach().cpu()

    def _candidates(self, batch: Batch, frequent: Tensor) -> Candidates | None:
        """The tokens that this step's softmax runs over, or None for all."""
        size = self.recipe.loss.sampled_vocabulary
        if not size or size >= self._vocabulary:
            return None
        seed = self.recipe.seed * 1_000_003 + self.progress.total_steps
        generator = torch.Generator().manual_seed(seed)
        targets = torch.cat(
            [batch.targets(head)[batch.counted(head)] for head in range(batch.heads)]
        )
        drawn = draw_candidates(targets, frequent, size, self._vocabulary, generator)
        return Candidates(
            *(part.to(self.device) for part in (drawn.ids, drawn.correction, drawn.places))
        )

    @torch.no_grad()
    def _validate(self, held_out: HeldOut) -> None:
        """Look at held-out text, and log loss, acceptance and tokens per step."""
        looked = evaluate_heads(self.speculator(), held_out)
        progress = self.progress
        self._append(
            ValidationPoint(
                phase=progress.phase, step=progress.total_steps, tokens=progress.tokens, **looked
            )
        )

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
        """The log, open at its end; None beside the main process.

        A run that begins writes the header; one that goes on drops a line that a kill cut short.
        """
        if not self.accelerator.is_main_process:
            return None
        path = self.out / LOG_NAME
        recipe = self.recipe
        header = LossLog(
            name=recipe.name,
            base=recipe.base,
            heads=recipe.heads.count,
            recipe=recipe.model_dump(mode="json"),
        ).model_dump_json(exclude={"points", "validation"})
        found = path.read_bytes() if self.progress.total_steps and path.exists() else b""
        kept = found[: found.rfind(b"\n") + 1] or header.encode() + b"\n"
        try:
            write_whole(path, kept)
            return path.open("a", encoding="utf-8", newline="\n")
        except (RecordError, OSError) as error:
            raise LabkitError(f"Could not open the loss log in {self.out}: {error}") from None

    def _states(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The weights and the optimizer's state, whole in every process, by parameters' names."""
        options = gathered.StateDictOptions(full_state_dict=True)
        return gathered.get_state_dict(self.module, self.optimizer, options=options)

    def _save(self) -> None:
        """Write a checkpoint; every process takes part, the main one writes."""
        weights, optimizer = self._states()
        if self.accelerator.is_main_process:
            # Tied heads share their tensors, and a safetensors file holds each under one name.
            tensors = {f"model.{name}": value.clone() for name, value in weights.items()}
            for name, entries in optimizer["state"].items():
                for what, value in entries.items():
                    tensors[f"optimizer.{what}.{name}"] = torch.as_tensor(value)
            state = {"progress": vars(self.progress), "recipe": self.recipe.model_dump(mode="json")}
            save_checkpoint(self.out, Checkpoint(tensors, state))
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        """Go on from the last good checkpoint in ``out``, if there is one."""
        checkpoint = load_latest(self.out)
        if checkpoint is None:
            return
        if checkpoint.state["recipe"] != self.recipe.model_dump(mode="json"):
            raise LabkitError(f"{self.out} holds a run of another recipe: give another folder.")
        weights: dict[str, Any] = {}
        moments: dict[str, Any] = {}
        for key, value in checkpoint.tensors.items():
            kind, rest = key.split(".", 1)
            if kind == "model":
                weights[rest] = value
            else:
                what, name = rest.split(".", 1)
                moments.setdefault(name, {})[what] = value
        options = gathered.StateDictOptions(full_state_dict=True)
        groups = self._states()[1]["param_groups"]
        gathered.set_state_dict(
            self.module,
            self.optimizer,
            model_state_dict=weights,
            optim_state_dict={"state": moments, "param_groups": groups},
            options=options,
        )
        self.progress = Progress(**checkpoint.state["progress"])


def new_accelerator() -> Accelerator:
    """accelerate's view of the processes; the frozen tables are equal everywhere and never sent."""
    return Accelerator(kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)])


def hold_out(material: Material, base_table: Tensor, heads: int, greedy: bool) -> HeldOut:
    """`HeldOut` of all of ``material``'s runs, which are whole sequences: reads their features once
    and the base model's choices."""
    runs = material.runs
    window = int((runs.ends - runs.starts).max()) - 2
    batch = make_batch(material.tokens, runs, window, heads)
    hidden = material.features.hidden(runs, window + heads)
    last = hidden[..., -base_table.shape[1] :]
    choices = torch.stack([(row @ base_table.T).argmax(-1) for row in last])
    return HeldOut(batch, hidden, choices, greedy)


@torch.no_grad()
def evaluate_heads(speculator: Speculator | Eagle, held_out: HeldOut) -> dict:
    """``loss``, ``accept`` and ``tokens_per_step`` of the heads on held-out text.

    Loss is the mean cross-entropy in nats against the tokens that stand there; accept the share of
    places where a head's most probable token is the base model's own. The steps are those of a
    chain of drafts, which on greedy answers is exactly what decoding would do.
    """
    batch, heads = held_out.batch, held_out.batch.heads
    places = batch.tokens.shape[1] - heads - 1
    losses, hits = torch.zeros(heads), torch.zeros(heads)
    right = torch.zeros(*batch.inputs(0).shape, heads, dtype=torch.bool)  # (B, S, K)
    for row in range(len(batch.tokens)):
        states = speculator.states(
            held_out.hidden[row : row + 1, :places], batch.tokens[row : row + 1, 1:]
        )
        for head, state in enumerate(states):
            counted = batch.counted(head)[row]
            logits = speculator.logits(head, state[0, counted])  # (M, V)
            losses[head] += hard_loss(logits, batch.targets(head)[row, counted]).sum()
            guess = logits.argmax(-1)
            chosen = held_out.choices[row, 1 + head : 1 + head + places][counted]
            hits[head] += (guess == chosen).sum()
            right[row, counted, head] = guess == batch.targets(head)[row, counted]
    counts = batch.counts()
    inside = batch.counted(0)
    steps = chain_tokens_per_step(right[inside], inside.sum(1)) if held_out.greedy else None
    return {
        "loss": tuple((losses / counts).tolist()),
        "accept": tuple((hits / counts).tolist()),
        "tokens_per_step": steps,
    }


def frequent_targets(material: Material, vocabulary: int) -> Tensor:
    """All tokens, those first that the heads have to predict most often: int64 (V,).

    >>> from labkit.training.data import from_rows
    >>> from labkit.training.phases import cut_runs
    >>> rows = from_rows([[3, 3, 3, 1, 2, 2]], given=[3])
    >>> frequent_targets(Material(rows.tokens, cut_runs(rows, 8), None), 4).tolist()
    [2, 0, 1, 3]
    """
    edges = torch.zeros(len(material.tokens) + 1, dtype=torch.int64)
    edges.index_add_(0, material.runs.starts + 2, torch.ones_like(material.runs.starts))
    edges.index_add_(0, material.runs.ends, -torch.ones_like(material.runs.ends))
    targets = material.tokens[edges.cumsum(0)[:-1] > 0]
    counts = torch.bincount(targets, minlength=vocabulary)
    return counts.argsort(descending=True, stable=True)


def _bar_text(point: LossPoint, progress: Progress) -> str:
    losses = " ".join(f"{loss:.2f}" for loss in point.loss)
    return f"loss {losses}, {progress.tokens / max(progress.seconds, 1e-9):,.0f} tokens/s"


@contextmanager
def _deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Within it an interrupt only sets a mark, which the function given tells; a second one acts.

    Signals reach the main thread only; elsewhere nothing changes.
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
