"""The heads' losses, which training differentiates, and how good heads are on held-out text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from labkit.speculative.eagle import Eagle
from labkit.speculative.speculator import Speculator
from labkit.training.batches import Candidates, Runs, TrainingBatch, make_batch
from labkit.training.features import Hidden
from labkit.training.recipe import Precision


@dataclass(frozen=True)
class Material:
    """What a phase is trained on: flat ``tokens`` int64 (N,), ``runs`` of them, their states."""

    tokens: Tensor
    runs: Runs
    hidden: Hidden


@dataclass(frozen=True)
class HeldOut:
    """Text for validation: one run per sequence, with the base model's own choices.

    ``batch`` of B sequences and S positions; ``hidden`` float32 (B, S + K, W); ``choices`` int64
    (B, S + K): the base model's most probable next token at each position; ``greedy``: whether the
    sequences are the base model's own greedy answers, so that steps can be counted on them.
    """

    batch: TrainingBatch
    hidden: Tensor
    choices: Tensor
    greedy: bool


def hard_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy in nats against the target token: (M, C), (M,) to (M,)."""
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


def soft_loss(logits: Tensor, base: Tensor, correction: Tensor | None = None) -> Tensor:
    """Return the cross-entropy in nats against the base model's distribution: (M, C) twice to (M,).

    Both are logits that already include the ``correction`` (C,), if any. It is taken out of the
    logarithm again, so the figure is comparable with that of the whole vocabulary.
    """
    logs = logits.log_softmax(-1)
    if correction is not None:
        logs = logs - correction
    return -(base.softmax(-1) * logs).sum(-1)


class HeadLosses(nn.Module):
    """The speculator with its loss, so that one forward pass gives the losses of all heads.

    accelerate wraps this module.
    """

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

    def forward(
        self, batch: TrainingBatch, hidden: Tensor, candidates: Candidates | None
    ) -> Tensor:
        """Return each head's summed cross-entropy over its targets in ``batch``: float32 (K,).

        ``hidden`` float32 (B, S + K, W). ``candidates`` None: over the whole vocabulary.
        """
        ids = slice(None) if candidates is None else candidates.ids
        correction = None if candidates is None else candidates.correction
        with torch.autocast(hidden.device.type, torch.bfloat16, enabled=self.halved):
            table, base_table = self.speculator.table[ids], self.base_table[ids]
            last = hidden[..., -base_table.shape[1] :]  # what the base model's own head reads
            labels = last @ base_table.T if self.labels == "soft" else None  # (B, S + K, C)
            wanted = batch.counted(0)
            z = hidden[:, : batch.positions]
            states = self.speculator.states(z, batch.tokens[:, 1:], wanted)
            sums = []
            for head, state in zip(range(batch.heads), states, strict=False):
                counted = batch.counted(head)
                logits = self.speculator.logits(head, state[counted[wanted]], table)  # (M, C)
                if correction is not None:
                    logits = logits + correction
                if labels is None:
                    targets = batch.targets(head)[counted]
                    targets = targets if candidates is None else candidates.places[targets]
                    loss = hard_loss(logits, targets)
                else:
                    base = labels[:, 1 + head : 1 + head + batch.positions][counted]
                    base = base if correction is None else base + correction
                    loss = soft_loss(logits, base, correction)
                sums.append(loss.sum())
            return torch.stack(sums)


def hold_out(material: Material, base_table: Tensor, heads: int, greedy: bool) -> HeldOut:
    """Read the features and the base model's choices of ``material``, whose runs are whole."""
    runs = material.runs
    window = int((runs.ends - runs.starts).max()) - 2
    batch = make_batch(material.tokens, runs, window, heads)
    hidden = material.hidden(runs, window + heads)
    last = hidden[..., -base_table.shape[1] :]
    choices = torch.stack([(row @ base_table.T).argmax(-1) for row in last])
    return HeldOut(batch, hidden, choices, greedy)


@torch.no_grad()
def validate_heads(speculator: Speculator | Eagle, held_out: HeldOut) -> dict[str, Any]:
    """Return ``loss``, ``accept`` and ``tokens_per_step`` of the heads on held-out text.

    Loss is the mean cross-entropy in nats against the text's tokens; accept is the share of
    positions where a head's most probable token is the base model's own. The steps are those of a
    chain of drafts, which on greedy answers is exactly what decoding would do.
    """
    batch, heads = held_out.batch, held_out.batch.heads
    losses, hits = torch.zeros(heads), torch.zeros(heads)
    inside = batch.counted(0)
    right = torch.zeros(*inside.shape, heads, dtype=torch.bool)  # (B, S, K)
    for row in range(len(inside)):  # all states at once would take much memory
        one = slice(row, row + 1)
        z = held_out.hidden[one, : batch.positions]
        states = speculator.states(z, batch.tokens[one, 1:], inside[one])
        for head, state in enumerate(states):
            counted, targets = batch.counted(head)[row], batch.targets(head)[row]
            logits = speculator.logits(head, state[counted[inside[row]]])  # (M, V)
            losses[head] += hard_loss(logits, targets[counted]).sum()
            guess = logits.argmax(-1)
            chosen = held_out.choices[row, 1 + head : 1 + head + batch.positions][counted]
            hits[head] += (guess == chosen).sum()
            right[row, counted, head] = guess == targets[counted]
    counts = batch.counts()
    steps = chain_tokens_per_step(right[inside], inside.sum(1)) if held_out.greedy else None
    return {
        "loss": tuple((losses / counts).tolist()),
        "accept": tuple((hits / counts).tolist()),
        "tokens_per_step": steps,
    }


def chain_tokens_per_step(right: Tensor, lengths: Tensor) -> float:
    """Return the tokens committed per step by a chain of drafts, the bonus token included.

    ``right`` bool (N, K): whether head i's most probable token is the base model's own, at every
    position of answers laid end to end; ``lengths`` int64 (R,): positions per answer, summing to N.
    A step commits one token and the leading run of right drafts after it.

    >>> right = torch.tensor([[True, False], [True, True], [False, True], [True, True]])
    >>> chain_tokens_per_step(right, torch.tensor([4]))  # commits 2, 1, 3
    2.0
    """
    leading = right.long().cumprod(dim=1).sum(dim=1)  # (N,)
    tokens = steps = 0
    for run in leading.split(lengths.tolist()):
        jumps, place = run.tolist(), 0
        while place < len(jumps):
            place += 1 + jumps[place]
            steps += 1
        tokens += place
    return tokens / max(steps, 1)


def frequent_targets(material: Material, vocabulary: int) -> Tensor:
    """Return all tokens, the most frequent targets of the heads first: int64 (V,).

    >>> from labkit.training.batches import cut_runs, from_rows
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
