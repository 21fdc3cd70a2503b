"""What one training step reads: positions, inputs, targets, candidates, learning rate.

All pure functions of the recipe and the step's number, so a step can be computed again exactly.
Text is `Sequences` of token ids; runs of positions are cut from them and gathered into a
`TrainingBatch`. Positions count from 0 within a sequence x_0, x_1, ...; z_t is the base model's
hidden state over x_0..x_t, after its last norm, which gives its own next token x_{t+1}.
Head i (from 0 in code) reads z_t and x_{t+1}..x_{t+1+i} and predicts x_{t+2+i}, as in the
published recipe (Wertheimer et al., "Accelerating Production LLMs with Combined Token/Embedding
Speculators", 2024). The phases differ in their text, not in their loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from labkit.errors import LabkitError
from labkit.training.recipe import Course, Schedule


@dataclass(frozen=True)
class Sequences:
    """Sequences of token ids, end to end.

    ``tokens`` int64 (N,); ``bounds`` int64 (R + 1,): sequence r is tokens[bounds[r]:bounds[r + 1]];
    ``given`` int64 (R,): how many of a sequence's first tokens are context only. Training uses the
    hidden states from position given - 1 on, where the base model's own next token is the first
    that was not given.
    """

    tokens: Tensor
    bounds: Tensor
    given: Tensor

    def __len__(self) -> int:
        return len(self.given)

    def row(self, index: int) -> Tensor:
        """Return sequence ``index``: int64 (length,)."""
        return self.tokens[self.bounds[index] : self.bounds[index + 1]]


def from_rows(rows: Iterable[Sequence[int]], given: Iterable[int]) -> Sequences:
    """Make `Sequences` from lists.

    >>> from_rows([[5, 6, 7], [8, 9]], given=[1, 1]).row(1).tolist()
    [8, 9]
    """
    parts = [torch.as_tensor(row, dtype=torch.int64) for row in rows]
    lengths = torch.tensor([0, *map(len, parts)])
    tokens = torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)
    return Sequences(tokens, lengths.cumsum(0), torch.tensor(list(given), dtype=torch.int64))


def text_windows(stream: Tensor, window: int) -> Sequences:
    """Cut windows of ``window`` tokens from ``stream`` (N,), without the last, shorter one.

    Raises `LabkitError` if the text is shorter than one window.
    """
    count = len(stream) // window
    if not count:
        raise LabkitError(f"The text has {len(stream):,} tokens, less than one window of {window}.")
    bounds = torch.arange(count + 1) * window
    return Sequences(stream[: count * window], bounds, torch.ones(count, dtype=torch.int64))


@dataclass(frozen=True)
class Runs:
    """Runs of consecutive positions to train on: int64 (N,) each.

    A run of sequence number ``rows`` begins at ``starts`` in the flat tokens; the sequence begins
    at ``origins`` and ends before ``ends``.
    """

    rows: Tensor
    starts: Tensor
    origins: Tensor
    ends: Tensor

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, indices: Tensor) -> Runs:
        """Return some of the runs."""
        return Runs(*(part[indices] for part in vars(self).values()))


def cut_runs(sequences: Sequences, window: int) -> Runs:
    """Cut every sequence into runs of ``window`` positions, the last one shorter.

    The first position is the last given token; after the last one, two tokens still follow.

    >>> cut_runs(from_rows([[0, 1, 2, 3, 4, 5]], given=[2]), window=2).starts.tolist()
    [1, 3]
    """
    begins = sequences.bounds[:-1] + sequences.given - 1  # (R,)
    places = (sequences.bounds[1:] - 2 - begins).clamp(min=0)
    counts = -(-places // window)
    rows = torch.arange(len(sequences)).repeat_interleave(counts)  # (N,)
    before = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[rows]  # runs of the same row
    origins, ends = sequences.bounds[rows], sequences.bounds[rows + 1]
    return Runs(rows, begins[rows] + before * window, origins, ends)


def batch_indices(step: int, size: int, count: int, seed: int) -> Tensor:
    """Return which of ``count`` runs make up the batch of ``step``: int64 (size,).

    Every epoch uses all of them once, in an order that depends only on ``seed`` and the epoch. So
    the step's number is the position in the data, and nothing else needs to be saved.

    >>> sorted(torch.cat([batch_indices(step, 2, 6, seed=1) for step in (0, 1, 2)]).tolist())
    [0, 1, 2, 3, 4, 5]
    """
    places = range(step * size, (step + 1) * size)
    return torch.stack([_shuffled(count, seed, place // count)[place % count] for place in places])


@lru_cache(maxsize=2)
def _shuffled(count: int, seed: int, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(count, generator=generator)


@dataclass(frozen=True)
class TrainingBatch:
    """Runs of S positions with the tokens that K heads read and predict.

    ``tokens`` int64 (B, S + K + 1): from the first position on, zero beyond the sequence's end;
    ``inside`` bool (B, S + K + 1): whether that token belongs to the sequence.
    """

    tokens: Tensor
    inside: Tensor
    heads: int

    @property
    def positions(self) -> int:
        """S, the positions of a run."""
        return self.tokens.shape[1] - self.heads - 1

    def targets(self, head: int) -> Tensor:
        """Return the token that head ``head`` must predict: (B, S)."""
        return self._shift(self.tokens, 2 + head)

    def counted(self, head: int) -> Tensor:
        """Return whether that token exists: bool (B, S)."""
        return self._shift(self.inside, 2 + head)

    def counts(self) -> Tensor:
        """Count the targets of each head: float32 (K,)."""
        return torch.stack([self.counted(head).sum() for head in range(self.heads)]).float()

    def _shift(self, part: Tensor, by: int) -> Tensor:
        return part[:, by : by + self.positions]


def make_batch(tokens: Tensor, runs: Runs, window: int, heads: int) -> TrainingBatch:
    """Gather the batch of ``runs`` from the flat ``tokens`` (N,)."""
    places = runs.starts[:, None] + torch.arange(window + heads + 1)  # (B, S + K + 1)
    inside = places < runs.ends[:, None]
    taken = tokens[places.clamp(max=len(tokens) - 1)]
    return TrainingBatch(taken * inside, inside, heads)


def stacked(parts: Sequence[Tensor], length: int) -> Tensor:
    """Stack the states (T, W) of runs of different T, zeros after their ends: (B, length, W)."""
    return torch.stack([functional.pad(part, (0, 0, 0, length - len(part))) for part in parts])


def learning_rate_at(step: int, schedule: Schedule | Course) -> float:
    """Return the learning rate of ``step`` (from 0): a linear warm-up from 0, then a cosine.

    >>> plan = Schedule(steps=100, rows=1, window=1, learning_rate=1.0, warmup_share=0.1)
    >>> [round(learning_rate_at(step, plan), 3) for step in (0, 9, 10, 99)]
    [0.1, 1.0, 1.0, 0.1]
    """
    warmup = schedule.warmup_steps
    if step < warmup:
        return schedule.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, schedule.steps - warmup)
    cosine = (1 + math.cos(math.pi * done)) / 2
    return schedule.learning_rate * (schedule.final_share + (1 - schedule.final_share) * cosine)


@dataclass(frozen=True)
class Candidates:
    """The tokens that a step's softmax runs over.

    ``ids`` int64 (C,). ``correction`` float32 (C,) is added to the logits: the logarithm of how
    many tokens each one represents, so that the sum of exponentials is right on average (Bengio and
    Senécal, 2008). ``places`` int64 (V,) is a token's place in ``ids``, or -1.
    """

    ids: Tensor
    correction: Tensor
    places: Tensor


def draw_candidates(
    targets: Tensor, frequent: Tensor, size: int, vocabulary: int, generator: torch.Generator
) -> Candidates:
    """Take all ``targets``, the ``frequent`` tokens, and equally likely others up to ``size``.

    The first two represent themselves; each of the n others, drawn from the m that remain,
    represents m / n tokens.
    """
    taken = torch.zeros(vocabulary, dtype=torch.bool)
    taken[targets.flatten()] = taken[frequent] = True
    sure, left = taken.nonzero().squeeze(1), (~taken).nonzero().squeeze(1)
    drawn = min(max(size - len(sure), 1), len(left))
    others = left[torch.randperm(len(left), generator=generator)[:drawn]]
    ids = torch.cat([sure, others])
    correction = torch.zeros(len(ids))
    if drawn:
        correction[len(sure) :] = math.log(len(left) / drawn)
    places = torch.full((vocabulary,), -1)
    places[ids] = torch.arange(len(ids))
    return Candidates(ids, correction, places)
