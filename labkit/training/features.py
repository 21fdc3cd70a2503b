"""The base model's hidden states, which the heads read: computed when needed, or kept on disk.

The base model is frozen, so a hidden state never changes. Text seen once (phase 1) goes through the
base model when its batch comes up. Answers are seen in several epochs (phase 2), so their states
are kept as float16: in the answers' shards if the writer kept them, otherwise in shards in the
cache folder, after one pass over the answers. On a CPU the base model would otherwise take nearly
all of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import safetensors
import torch
from torch import Tensor, nn
from tqdm import tqdm

from labkit.errors import LabkitError
from labkit.models.store import locked
from labkit.paths import cache_dir
from labkit.training.answers import (
    SHARD_ROWS,
    Answers,
    fingerprint,
    read_answers,
    shard_paths,
    write_shard,
)
from labkit.training.batches import Runs, Sequences

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from labkit.models import LanguageModel

ROWS_AT_ONCE = 16


class Features(Protocol):
    """A source of hidden states for runs of positions."""

    def hidden(self, runs: Runs, length: int) -> Tensor:
        """Return the states of ``length`` positions from each run's start: (B, length, W) float32.

        W is D, or more if other layers are read too (`last_hidden`). Positions after a sequence's
        end hold zeros.
        """
        ...


def answer_features(
    base: LanguageModel, answers: Answers, layers: Sequence[int], keep: bool
) -> Features:
    """Return the answers' hidden states from where they cost least.

    ``keep`` says whether to compute them once for all epochs if the shards do not hold them.
    """
    if not keep:
        return ComputedFeatures(base.module, answers.sequences, layers)
    if answers.width == head_weight(base.module).shape[1] * (len(layers) + 1):
        return ShardFeatures(answers)
    name = "-".join([fingerprint(base), answers.sequences.digest, *map(str, layers)])
    return store_features(base.module, answers.sequences, cache_dir() / "features" / name, layers)


def last_hidden(base: PreTrainedModel, tokens: Tensor, layers: Sequence[int] = ()) -> Tensor:
    """Return what the base model's output head reads: (B, T) token ids to (B, T, D).

    The states after ``layers`` come first, if any: (B, T, (r + 1) D) for r layers, as a decoder's
    forward pass returns them (`labkit.kernels.engine.Output`).
    """
    with torch.no_grad():
        out = base.base_model(input_ids=tokens, use_cache=False, output_hidden_states=bool(layers))
    told = [out.hidden_states[layer] for layer in layers]
    return torch.cat([*told, out.last_hidden_state], dim=-1)


def head_weight(base: PreTrainedModel) -> Tensor:
    """Return the base model's output table: (V, D)."""
    return base.get_output_embeddings().weight.detach()


class ComputedFeatures:
    """Hidden states that the base model computes each time."""

    def __init__(
        self, base: PreTrainedModel, sequences: Sequences, layers: Sequence[int] = ()
    ) -> None:
        self._base = base
        self._layers = layers
        self._tokens = sequences.tokens

    def hidden(self, runs: Runs, length: int) -> Tensor:
        """See `Features`; a sequence is computed from its first token."""
        stops = torch.minimum(runs.ends, runs.starts + length)  # (B,)
        longest = int((stops - runs.origins).max())
        places = runs.origins[:, None] + torch.arange(longest)
        rows = self._tokens[places.clamp(max=len(self._tokens) - 1)]  # (B, longest)
        device = next(self._base.parameters()).device
        states = last_hidden(self._base, rows.to(device), self._layers).float()
        return _slices(states, runs.starts - runs.origins, stops - runs.origins, length)


class ShardFeatures:
    """Hidden states that were kept when the answers were written, read from their shards."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        opened = (safetensors.safe_open(path, framework="pt") for path in answers.paths)
        self._states = [file.get_slice("states") for file in opened]

    def hidden(self, runs: Runs, length: int) -> Tensor:
        """See `Features`. A sequence's last token has no state, and none is needed."""
        given = self._answers.sequences.given
        rows = []
        for row, start, origin, end in torch.stack(list(vars(runs).values()), dim=1).tolist():
            skipped = start - origin - int(given[row]) + 1
            begin = int(self._answers.places[row]) + skipped
            taken = min(length, end - 1 - start)
            states = self._states[int(self._answers.shards[row])][begin : begin + taken].float()
            rows.append(nn.functional.pad(states, (0, 0, 0, length - taken)))
        return torch.stack(rows)  # (B, length, D)


def _slices(states: Tensor, begins: Tensor, stops: Tensor, length: int) -> Tensor:
    """Cut begins[b]..stops[b] from row b, padded with zeros: (B, T, D) to (B, length, D)."""
    places = begins[:, None].to(states.device) + torch.arange(length, device=states.device)
    inside = (places < stops[:, None].to(states.device))[..., None]
    rows = torch.arange(len(states), device=states.device)[:, None]
    return states[rows, places.clamp(max=states.shape[1] - 1)] * inside


def store_features(
    base: PreTrainedModel, sequences: Sequences, folder: Path, layers: Sequence[int] = ()
) -> ShardFeatures:
    """Compute the hidden states of all answers into shards in ``folder``, unless they exist.

    A killed run continues with the first missing shard. Raises `LabkitError` if the disk is full.
    """
    firsts = range(0, len(sequences), SHARD_ROWS)
    bar = tqdm(firsts, desc="hidden states", leave=False)
    with locked(folder, wait=True):
        for path, first in zip(shard_paths(folder), bar, strict=False):
            if not path.exists():
                last = min(first + SHARD_ROWS, len(sequences))
                rows = [sequences.row(number) for number in range(first, last)]
                given = sequences.given[first:last].tolist()
                states = _answer_states(base, rows, given, layers)
                try:
                    write_shard(path, [row.tolist() for row in rows], given, states)
                except LabkitError as error:
                    written = len(sequences.tokens) - int(sequences.given.sum())
                    size = written * states.shape[1] * 2 / 1e9
                    raise LabkitError(f"{error} All states need {size:.1f} GB.") from None
    return ShardFeatures(read_answers(folder))


def _answer_states(
    base: PreTrainedModel, rows: Sequence[Tensor], given: Sequence[int], layers: Sequence[int]
) -> Tensor:
    """Return the states that gave the answers' tokens, end to end: float16 (A, W)."""
    device = next(base.parameters()).device
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))  # so little is padded
    states: dict[int, Tensor] = {}
    for first in range(0, len(order), ROWS_AT_ONCE):
        numbers = order[first : first + ROWS_AT_ONCE]
        padded = nn.utils.rnn.pad_sequence([rows[n] for n in numbers], batch_first=True)  # (B, T)
        found = last_hidden(base, padded.to(device), layers).half().cpu()
        for number, values in zip(numbers, found, strict=True):
            states[number] = values[given[number] - 1 : len(rows[number]) - 1]
    return torch.cat([states[number] for number in range(len(rows))])
