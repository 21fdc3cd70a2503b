"""The base model's hidden states, which the heads read: computed when needed, or kept on disk.

The base model is frozen, so a hidden state never changes. Text seen once (phase 1) goes through the
base model when its batch comes up. Answers are seen in several epochs (phase 2), so their states
are kept as float16: in their shards if the writer kept them, otherwise in the cache folder, after
one pass over the answers. On a CPU the base model would otherwise take nearly all of the time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import safetensors
import torch
from torch import Tensor, nn
from tqdm import tqdm

from labkit.errors import LabkitError
from labkit.paths import cache_dir
from labkit.records.base import RecordError, write_whole
from labkit.training.answers import Answers, fingerprint
from labkit.training.batches import Runs, Sequences
from labkit.training.checkpoints import locked

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
    path = cache_dir() / "features" / f"{name}.npy"
    return store_features(base.module, answers.sequences, path, layers)


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


class StoredFeatures:
    """Hidden states of all sequences in one float16 file (N, W), read when needed."""

    def __init__(self, path: Path, positions: int) -> None:
        self._states = np.load(path, mmap_mode="r")
        if len(self._states) != positions:
            raise LabkitError(f"The hidden states {path} are of another text: remove that file.")

    def hidden(self, runs: Runs, length: int) -> Tensor:
        """See `Features`."""
        states = np.zeros((len(runs), length, self._states.shape[1]), dtype=np.float32)
        for row, (start, end) in enumerate(zip(runs.starts, runs.ends, strict=True)):
            taken = min(length, int(end - start))
            states[row, :taken] = self._states[int(start) : int(start) + taken]
        return torch.from_numpy(states)


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
    base: PreTrainedModel,
    sequences: Sequences,
    path: Path,
    layers: Sequence[int] = (),
) -> StoredFeatures:
    """Compute the hidden states of all sequences into ``path``, unless it exists.

    Rows are computed by length, so that little is padded, under another name and with a note of how
    many are done, so a killed run continues where it was. Raises `LabkitError` if the disk is full.
    """
    if not path.exists():
        width = head_weight(base).shape[1] * (len(layers) + 1)
        size = len(sequences.tokens) * width * 2 / 1e9
        try:
            with locked(path.parent, wait=True, name=f".{path.stem}.lock"):
                if not path.exists():
                    _fill(base, sequences, path, width, layers)
        except (OSError, RecordError) as error:
            raise LabkitError(
                f"Could not keep the base model's hidden states in {path.parent} ({error}):"
                f" {size:.1f} GB are needed there."
            ) from None
    return StoredFeatures(path, len(sequences.tokens))


def _fill(
    base: PreTrainedModel,
    sequences: Sequences,
    path: Path,
    width: int,
    layers: Sequence[int],
) -> None:
    """Write the states of all sequences into ``path``, a few rows at a time."""
    part, note = path.with_suffix(".part"), path.with_suffix(".part.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    done = json.loads(note.read_text(encoding="utf-8")) if note.exists() and part.exists() else 0
    shape = (len(sequences.tokens), width)
    mode = "r+" if done else "w+"
    states = np.lib.format.open_memmap(part, mode=mode, dtype=np.float16, shape=shape)
    device = next(base.parameters()).device
    order = sequences.bounds.diff().argsort(stable=True).tolist()
    for first in tqdm(range(done, len(order), ROWS_AT_ONCE), desc="hidden states", leave=False):
        numbers = order[first : first + ROWS_AT_ONCE]
        rows = [sequences.row(number) for number in numbers]
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)  # (B, T)
        found = last_hidden(base, padded.to(device), layers).half().cpu().numpy()
        for number, row, values in zip(numbers, rows, found, strict=True):
            place = int(sequences.bounds[number])
            states[place : place + len(row)] = values[: len(row)]
        if first // ROWS_AT_ONCE % 16 == 15:
            states.flush()
            write_whole(note, json.dumps(first + ROWS_AT_ONCE))
    states.flush()
    del states
    part.replace(path)
    note.unlink(missing_ok=True)
