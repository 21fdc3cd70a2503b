"""What the two phases ask of the heads: which places, which targets, which learning rate.

All pure functions. Positions count from 0 within a sequence x_0, x_1, ...; z_t is the base model's
hidden state over x_0..x_t, after its last norm, from which it reads its own next token x_{t+1}.
Head i (0-based here) is given z_t and x_{t+1}..x_{t+1+i} and predicts x_{t+2+i}, as in the
published recipe (Wertheimer et al., "Accelerating Production LLMs with Combined Token/Embedding
Speculators", 2024). The phases differ in their text, not in their loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from labkit.training.data import Sequences
from labkit.training.recipe import Schedule


@dataclass(frozen=True)
class Runs:
    """Stretches of consecutive positions to train on: int64 (N,) each.

    A run of sequence number ``rows`` begins at ``starts`` in the flat tokens; the sequence begins
    at ``origins`` and stops before ``ends``.
    """

    rows: Tensor
    starts: Tensor
    origins: Tensor
    ends: Tensor

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, indices: Tensor) -> Runs:
        """Some of the runs."""
        return Runs(*(part[indices] for part in vars(self).values()))


def cut_runs(sequences: Sequences, window: int) -> Runs:
    """Cut every sequence into runs of ``window`` positions, the last one shorter.

    The first position is the last given token; the last one still has a token two places on.

    >>> from labkit.training.data import from_rows
    >>> cut_runs(from_rows([[0, 1, 2, 3, 4, 5]], given=[2]), window=2).starts.tolist()
    [1, 3]
    """
    starts: list[int] = []
    rows: list[int] = []
    for row, given in enumerate(sequences.given.tolist()):
        begin, end = sequences.bounds[row : row + 2].tolist()
        places = range(begin + given - 1, end - 2, window)
        starts.extend(places)
        rows.extend([row] * len(places))
    numbers = torch.tensor(rows, dtype=torch.int64)
    return Runs(
        numbers,
        torch.tensor(starts, dtype=torch.int64),
        sequences.bounds[numbers],
        sequences.bounds[numbers + 1],
    )


def batch_indices(step: int, size: int, count: int, seed: int) -> Tensor:
    """Which of ``count`` runs make up the batch of ``step``: int64 (size,).

    Every epoch goes through all of them once, in an order that depends on ``seed`` and the epoch
    alone; so the position in the data is the step's number, and nothing else need be kept.

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
class Batch:
    """Runs of S positions with what K heads need of them.

    ``tokens`` int64 (B, S + K + 1): from the first position on, zero beyond the sequence's end;
    ``inside`` bool (B, S + K + 1): whether that token is one of the sequence's.
    """

    tokens: Tensor
    inside: Tensor
    heads: int

    def inputs(self, head: int) -> Tensor:
        """The token that head ``head`` is given beside the state before it: (B, S)."""
        return self._shift(self.tokens, 1 + head)

    def targets(self, head: int) -> Tensor:
        """The token that head ``head`` is to predict: (B, S)."""
        return self._shift(self.tokens, 2 + head)

    def counted(self, head: int) -> Tensor:
        """Whether that token exists: bool (B, S)."""
        return self._shift(self.inside, 2 + head)

    def counts(self) -> Tensor:
        """How many targets each head has: float32 (K,)."""
        return torch.stack([self.counted(head).sum() for head in range(self.heads)]).float()

    def _shift(self, part: Tensor, by: int) -> Tensor:
        return part[:, by : by + part.shape[1] - self.heads - 1]


def make_batch(tokens: Tensor, runs: Runs, window: int, heads: int) -> Batch:
    """The batch of ``runs`` out of the flat ``tokens`` (N,)."""
    places = runs.starts[:, None] + torch.arange(window + heads + 1)  # (B, S + K + 1)
    inside = places < runs.ends[:, None]
    taken = tokens[places.clamp(max=len(tokens) - 1)]
    return Batch(taken * inside, inside, heads)


def learning_rate_at(step: int, schedule: Schedule) -> float:
    """The learning rate of ``step`` (from 0): a straight warm-up from 0, then a cosine.

    >>> from labkit.training.recipe import Schedule
    >>> plan = Schedule(steps=100, rows=1, window=1, learning_rate=1.0, warmup_share=0.1)
    >>> [round(learning_rate_at(step, plan), 3) for step in (0, 9, 10, 99)]
    [0.1, 1.0, 1.0, 0.1]
    """
    warmup = max(1, round(schedule.steps * schedule.warmup_share))
    if step < warmup:
        return schedule.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, schedule.steps - warmup)
    cosine = (1 + math.cos(math.pi * done)) / 2
    return schedule.learning_rate * (schedule.final_share + (1 - schedule.final_share) * cosine)


@dataclass(frozen=True)
class Candidates:
    """The tokens that a step's softmax runs over.

    ``ids`` int64 (C,); ``correction`` float32 (C,) is added to the logits: the logarithm of how
    many tokens each one stands for, so that the sum of exponentials is right on average (Bengio and
    Senécal, 2008); ``places`` int64 (V,) gives a token's place in ``ids``, or -1.
    """

    ids: Tensor
    correction: Tensor
    places: Tensor


def draw_candidates(
    targets: Tensor, frequent: Tensor, size: int, vocabulary: int, generator: torch.Generator
) -> Candidates:
    """All ``targets``, the ``frequent`` tokens, and equally likely others up to ``size``.

    The first two stand for themselves; each of the n others, drawn from the m that are left, for
    m / n tokens.
    """
    taken = torch.zeros(vocabulary, dtype=torch.bool)
    taken[targets.flatten()] = True
    taken[frequent] = True
    sure = taken.nonzero().squeeze(1)
    left = (~taken).nonzero().squeeze(1)
    drawn = min(max(size - len(sure), 1), len(left))
    others = left[torch.randperm(len(left), generator=generator)[:drawn]]
    ids = torch.cat([sure, others])
    correction = torch.zeros(len(ids))
    if drawn:
        correction[len(sure) :] = math.log(len(left) / drawn)
    places = torch.full((vocabulary,), -1)
    places[ids] = torch.arange(len(ids))
    return Candidates(ids, correction, places)


def hard_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats against the token that stands there: (M, C), (M,) to (M,)."""
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


def soft_loss(logits: Tensor, base: Tensor, correction: Tensor | None = None) -> Tensor:
    """Cross-entropy in nats against the base model's distribution: (M, C), (M, C) to (M,).

    Both are logits with the ``correction`` (C,), if any, already added; it is taken out of the
    logarithm again, so that the figure is comparable with that of the whole vocabulary.
    """
    logs = logits.log_softmax(-1)
    if correction is not None:
        logs = logs - correction
    return -(base.softmax(-1) * logs).sum(-1)


def chain_tokens_per_step(right: Tensor, lengths: Tensor) -> float:
    """Tokens committed per step by a chain of drafts, the bonus token included.

    ``right`` bool (N, K): whether head i's most probable token is the base model's own, at every
    position of answers laid end to end; ``lengths`` int64 (R,): positions per answer, summing to N.
    From each place a step commits one token and the leading run of right drafts after it.

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
