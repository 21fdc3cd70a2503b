"""What the heads are trained on: windows of text (phase 1), the base model's answers (phase 2).

Both are `Sequences`: token ids laid end to end, with the places where each sequence begins. Answers
are made once and kept as *shards*, small safetensors files of token ids, each written whole: a
generation killed at any moment goes on with the first shard that is missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

from labkit.errors import LabkitError
from labkit.records.base import RecordError, write_whole
from labkit.training.checkpoints import locked
from labkit.training.recipe import Precision
from labkit.training.text import Document

SHARD_ROWS = 512
"""Answers in a shard: enough that the last, unevenly long ones take a small part of its time."""


@dataclass(frozen=True)
class Writing:
    """How the base model continues: at most so many tokens, greedily where ``temperature`` is 0,
    else drawn from the ``top_k`` most probable ones up to a mass of ``top_p``; ``repeats`` as in
    `labkit.training.recipe.Generation`, as is ``precision``."""

    max_new_tokens: int
    temperature: float = 0.0
    top_k: int = 1000
    top_p: float = 1.0
    repeats: int = 0
    seed: int = 0
    precision: Precision = "float32"


Continue = Callable[[Sequence[Sequence[int]], Writing, int], "Written"]
"""A base model that writes: from prompts' ids, a way to choose and a seed to what follows each."""


@dataclass(frozen=True)
class Written:
    """What a base model wrote: an answer per prompt, and where they were kept the hidden states.

    ``states`` float16 (A, D): of all answers end to end, the state that gave each of their tokens.
    """

    answers: list[list[int]]
    states: Tensor | None = None


@dataclass(frozen=True)
class Sequences:
    """Sequences of token ids, laid end to end.

    ``tokens`` int64 (N,); ``bounds`` int64 (R + 1,): sequence r is tokens[bounds[r]:bounds[r + 1]];
    ``given`` int64 (R,): how many of a sequence's first tokens are context only. Training takes the
    hidden states from position given - 1 on: there the base model's own next token is the first
    that was not given.
    """

    tokens: Tensor
    bounds: Tensor
    given: Tensor

    def __len__(self) -> int:
        return len(self.given)

    def row(self, index: int) -> Tensor:
        """Sequence ``index``: int64 (length,)."""
        return self.tokens[self.bounds[index] : self.bounds[index + 1]]

    @property
    def digest(self) -> str:
        """A short name for exactly these sequences."""
        content = hashlib.sha256()
        for part in (self.tokens, self.bounds, self.given):
            content.update(part.numpy().tobytes())
        return content.hexdigest()[:16]


def from_rows(rows: Iterable[Sequence[int]], given: Iterable[int]) -> Sequences:
    """`Sequences` out of lists.

    >>> from_rows([[5, 6, 7], [8, 9]], given=[1, 1]).row(1).tolist()
    [8, 9]
    """
    parts = [torch.as_tensor(row, dtype=torch.int64) for row in rows]
    lengths = torch.tensor([0, *map(len, parts)])
    tokens = torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)
    return Sequences(tokens, lengths.cumsum(0), torch.tensor(list(given), dtype=torch.int64))


def pack_text(documents: Sequence[Document], tokenizer: Any) -> Tensor:
    """All documents as one stream of token ids, each followed by the end-of-text token: (N,)."""
    rows = tokenizer([document.text for document in documents])["input_ids"]
    return torch.tensor([token for row in rows for token in (*row, tokenizer.eos_token_id)])


def some_text(documents: Sequence[Document], tokenizer: Any, enough: int) -> Tensor:
    """`pack_text` of so many documents that they hold ``enough`` tokens, or of all: (N,).

    They come in an order that depends on their names alone and mixes the sources, so asking for
    more only adds to the end. Tokenising everything would take a small machine half a minute.
    """
    mixed = sorted(documents, key=lambda document: hashlib.sha256(document.name.encode()).digest())
    parts, size = [], 0
    for first in range(0, len(mixed), 8):
        parts.append(pack_text(mixed[first : first + 8], tokenizer))
        size += len(parts[-1])
        if size >= enough:
            break
    return torch.cat(parts)


def text_windows(stream: Tensor, window: int) -> Sequences:
    """Whole windows of ``window`` tokens cut from ``stream`` (N,); the last, shorter one is left.

    Raises `LabkitError` where the text is shorter than one window.
    """
    count = len(stream) // window
    if not count:
        raise LabkitError(f"The text has {len(stream):,} tokens, less than one window of {window}.")
    bounds = torch.arange(count + 1) * window
    return Sequences(stream[: count * window], bounds, torch.ones(count, dtype=torch.int64))


def text_prompts(stream: Tensor, length: int, count: int, seed: int) -> list[list[int]]:
    """``count`` different prompts of ``length`` tokens, cut where ``seed`` says; none overlap.

    Raises `LabkitError` where the stream (N,) is too short for that many.
    """
    places = len(stream) // length
    if places < count:
        raise LabkitError(
            f"The text gives {places:,} prompts of {length} tokens and the recipe asks for"
            f" {count:,}: ask for fewer or shorter ones."
        )
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randperm(places, generator=generator)[:count] * length
    return distinct(stream[start : start + length].tolist() for start in starts.tolist())


def distinct(rows: Iterable[Sequence[int]]) -> list[list[int]]:
    """The rows without repetitions, in the order of their first appearance.

    >>> distinct([[1, 2], [3], [1, 2]])
    [[1, 2], [3]]
    """
    return [list(row) for row in dict.fromkeys(map(tuple, rows))]


def overlapping(training: Iterable[str], evaluation: Iterable[str], words: int = 8) -> list[str]:
    """The evaluation prompts of which a training prompt shares ``words`` words in a row.

    A shorter evaluation prompt counts when a training prompt holds all of it. Letters' case and
    spacing make no difference.

    >>> overlapping(["Please: why is the sky so blue?"], ["Why is the sky so blue?", "Count to 3."])
    ['Why is the sky so blue?']
    """
    evaluation = list(evaluation)
    wanted = {text: _grams(text, words) for text in evaluation}
    lengths = {len(gram) for grams in wanted.values() for gram in grams}
    seen = {gram for text in training for length in lengths for gram in _grams(text, length)}
    return [text for text in evaluation if wanted[text] & seen]


def _grams(text: str, length: int) -> set[tuple[str, ...]]:
    """All runs of ``length`` words, or the whole text where it has fewer."""
    found = text.lower().split()
    return {tuple(found[i : i + length]) for i in range(max(1, len(found) - length + 1))}


@dataclass(frozen=True)
class Answers:
    """Answers kept in shards: their ``sequences``, and of each the shard's number in ``paths`` and
    the place where its states begin there: int64 (R,) each. ``width``: how many numbers a state
    has, 0 where none were kept."""

    sequences: Sequences
    paths: tuple[Path, ...]
    shards: Tensor
    places: Tensor
    width: int


def make_shards(
    folder: Path,
    prompts: Sequence[Sequence[int]],
    write: Continue,
    manner: Writing,
    *,
    shard_rows: int = SHARD_ROWS,
    watch: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Answers:
    """Answer every prompt, keep the answers in ``folder`` as shards, and return them all.

    Shards that exist are not made again; each has its own seed. If another process is writing
    there, it waits, and then finds the shards. Raises
    `LabkitError` where ``folder`` was made of other prompts or settings, or the disk refuses.
    ``watch`` may wrap the loop over shards in a progress bar.
    """
    settings = {**asdict(manner), "prompts": _digest(prompts), "shard_rows": shard_rows}
    with locked(folder, wait=True):
        _claim(folder, settings)
        for index in watch(range(-(-len(prompts) // shard_rows))):
            path = folder / f"shard-{index:05d}.safetensors"
            part = prompts[index * shard_rows : (index + 1) * shard_rows]
            if not path.exists():
                _write_shard(path, part, write(part, manner, manner.seed * 1_000_003 + index))
    return read_answers(folder)


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Write the settings into a new folder, or compare them with those of an old one."""
    path, text = folder / "settings.json", json.dumps(settings, indent=2, sort_keys=True) + "\n"
    try:
        if not path.exists():
            write_whole(path, text)
        found = path.read_text(encoding="utf-8")
    except (RecordError, OSError) as error:
        raise LabkitError(f"Cannot keep answers in {folder}: {error}") from None
    if found != text:
        raise LabkitError(f"{folder} holds answers made with other settings; give another folder.")


def _write_shard(path: Path, prompts: Sequence[Sequence[int]], written: Written) -> None:
    """One shard: tokens int32 (N,), lengths int32 (R,), given int32 (R,), states float16 (A, D)."""
    rows = [[*prompt, *reply] for prompt, reply in zip(prompts, written.answers, strict=True)]
    content = {
        "tokens": torch.tensor([token for row in rows for token in row], dtype=torch.int32),
        "lengths": torch.tensor([len(row) for row in rows], dtype=torch.int32),
        "given": torch.tensor([len(prompt) for prompt in prompts], dtype=torch.int32),
    }
    if written.states is not None:
        content["states"] = written.states.to(torch.float16).contiguous()
    try:
        write_whole(path, save(content))
    except RecordError as error:
        raise LabkitError(f"{error} Free some disk space; the shards so far are kept.") from None


def read_answers(folder: Path) -> Answers:
    """All answers kept in ``folder``, without repeated ones and without empty ones.

    Raises `LabkitError` where there are none or a shard is damaged.
    """
    paths = tuple(sorted(folder.glob("*.safetensors")))
    if not paths:
        raise LabkitError(f"There are no answers in {folder}: `labkit train generate` makes them.")
    rows: dict[tuple[int, ...], tuple[int, int, int]] = {}
    widths = set()
    for number, path in enumerate(paths):
        tokens, lengths, given, width = _read_shard(path)
        widths.add(width)
        place = 0
        for row, known in zip(tokens.split(lengths.tolist()), given.tolist(), strict=True):
            if len(row) > known:
                rows.setdefault(tuple(row.tolist()), (known, number, place))
            place += len(row) - known
    known, shards, places = zip(*rows.values(), strict=True) if rows else ((), (), ())
    sequences = from_rows(rows, known)
    return Answers(
        sequences,
        paths,
        torch.tensor(shards),
        torch.tensor(places),
        widths.pop() if len(widths) == 1 else 0,
    )


def _read_shard(path: Path) -> tuple[Tensor, Tensor, Tensor, int]:
    """Tokens, lengths and given of one shard, and how wide the states are that it holds."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tokens, lengths, given = (
                file.get_tensor(name).long() for name in ("tokens", "lengths", "given")
            )
            held = "states" in file.keys()  # noqa: SIM118
            return tokens, lengths, given, file.get_slice("states").get_shape()[1] if held else 0
    except (OSError, safetensors.SafetensorError):
        raise LabkitError(f"The shard {path} is damaged: remove it and run again.") from None


def _digest(rows: Sequence[Sequence[int]]) -> str:
    return hashlib.sha256(json.dumps([list(row) for row in rows]).encode()).hexdigest()[:16]
