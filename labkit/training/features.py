"""The base model's hidden states, which the heads read: computed when needed, or kept on disk.

The base model is frozen, so a hidden state never changes. Text seen once (phase 1) goes through the
base model when its batch comes up. Answers are seen in several epochs (phase 2), so their states
are kept as float16: in the answers' shards if the writer kept them, otherwise in shards in the
cache folder, after one pass over the answers. On a CPU the base model would otherwise take nearly
all of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from labkit.errors import LabkitError
from labkit.models.store import locked
from labkit.paths import cache_dir
from labkit.training.answers import (
    Answers,
    fingerprint,
    read_answers,
    shards_of,
    short_digest,
    write_shard,
)
from labkit.training.batches import Runs, Sequences, stacked

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from labkit.models import LanguageModel

ROWS_AT_ONCE = 16

Hidden = Callable[[Runs, int], Tensor]
"""A source of hidden states: of so many positions from each run's start, (B, length, W) float32.

W is D, or more if other layers are read too (`last_hidden`). Positions after a sequence's end hold
zeros."""


def answer_features(
    base: LanguageModel, answers: Answers, layers: Sequence[int], keep: bool
) -> Hidden:
    """Return the answers' hidden states from where they cost least.

    ``keep`` says whether to compute them once for all epochs if the shards do not hold them.
    """
    if not keep:
        return computed_features(base.module, answers.sequences, layers)
    if answers.width == head_weight(base.module).shape[1] * (len(layers) + 1):
        return answers.hidden
    content = short_digest(*(part.numpy().tobytes() for part in vars(answers.sequences).values()))
    name = "-".join([fingerprint(base), content, *map(str, layers)])
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


def computed_features(
    base: PreTrainedModel, sequences: Sequences, layers: Sequence[int] = ()
) -> Hidden:
    """Return states that the base model computes each time, from a sequence's first token on."""
    tokens = sequences.tokens

    def hidden(runs: Runs, length: int) -> Tensor:
        begins = runs.starts - runs.origins  # (B,)
        stops = torch.minimum(runs.ends, runs.starts + length) - runs.origins
        places = runs.origins[:, None] + torch.arange(int(stops.max()))
        rows = tokens[places.clamp(max=len(tokens) - 1)]  # (B, T)
        states = last_hidden(base, rows.to(base.device), layers).float()
        edges = zip(states, begins.tolist(), stops.tolist(), strict=True)
        return stacked([row[begin:stop] for row, begin, stop in edges], length)

    return hidden


def store_features(
    base: PreTrainedModel, sequences: Sequences, folder: Path, layers: Sequence[int] = ()
) -> Hidden:
    """Compute the hidden states of all answers into shards in ``folder``, unless they exist.

    A killed run continues with the first missing shard. Raises `LabkitError` if the disk is full.
    """
    with locked(folder, wait=True):
        for path, part in shards_of(folder, len(sequences), "hidden states"):
            if not path.exists():
                rows = [sequences.row(number) for number in range(len(sequences))[part]]
                given = sequences.given[part].tolist()
                states = _answer_states(base, rows, given, layers)
                try:
                    write_shard(path, [row.tolist() for row in rows], given, states)
                except LabkitError as error:
                    written = len(sequences.tokens) - int(sequences.given.sum())
                    size = written * states.shape[1] * 2 / 1e9
                    raise LabkitError(f"{error} All states need {size:.1f} GB.") from None
    return read_answers(folder).hidden


def _answer_states(
    base: PreTrainedModel, rows: Sequence[Tensor], given: Sequence[int], layers: Sequence[int]
) -> Tensor:
    """Return the states that gave the answers' tokens, end to end: float16 (A, W)."""
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))  # so little is padded
    states: dict[int, Tensor] = {}
    for first in range(0, len(order), ROWS_AT_ONCE):
        numbers = order[first : first + ROWS_AT_ONCE]
        padded = nn.utils.rnn.pad_sequence([rows[n] for n in numbers], batch_first=True)  # (B, T)
        found = last_hidden(base, padded.to(base.device), layers).half().cpu()
        for number, values in zip(numbers, found, strict=True):
            states[number] = values[given[number] - 1 : len(rows[number]) - 1]
    return torch.cat([states[number] for number in range(len(rows))])
