"""The base model's answers, which phase 2 trains on: written many at a time, kept as shards.

A shard is a small safetensors file of token ids, written whole. A generation killed at any moment
continues with the first missing shard.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from labkit.errors import LabkitError
from labkit.kernels import choose, engine_for
from labkit.kernels.engine import Engine
from labkit.kernels.llama import LlamaWeights
from labkit.kernels.panel import host_features
from labkit.models import LanguageModel
from labkit.models.store import locked
from labkit.paths import cache_dir
from labkit.reading import read_text
from labkit.records import write_whole
from labkit.sampling import Sampling
from labkit.speculative.batch import Batch, Row, common_beginning
from labkit.training.batches import Runs, Sequences, from_rows, stacked
from labkit.training.recipe import Precision

SHARD_ROWS = 512
"""Answers in a shard: enough that the last, unevenly long ones take a small part of its time."""
COLUMNS = ("tokens", "lengths", "given")
"""What a shard holds: token ids end to end, the length of each row, its prompt's length."""
READ_AT_ONCE = 1024
"""Prompt tokens processed in one step: nobody waits for an answer, so slots fill at once."""
SLOTS: dict[Precision, int] = {"float32": 24, "bfloat16": 128}
"""Answers written at once; more gain little on a CPU and cost memory."""
BFLOAT16 = ("avx512bf16", "amx-bf16", "bf16")
"""Instructions for products of bfloat16, by LLVM's names: two of x86-64, one of ARM."""


@dataclass(frozen=True)
class Writing:
    """How the base model writes: at most ``max_new_tokens``, greedily at ``temperature`` 0,
    otherwise drawn from the ``top_k`` most probable tokens up to a mass of ``top_p``. ``repeats``
    and ``precision`` are explained in `labkit.training.recipe.Generation`."""

    max_new_tokens: int
    temperature: float = 0.0
    top_k: int = 1000
    top_p: float = 1.0
    repeats: int = 0
    seed: int = 0
    precision: Precision = "float32"


@dataclass(frozen=True)
class Written:
    """One answer per prompt, plus hidden states if they were kept.

    ``states`` float16 (A, D): of all answers end to end, the state that gave each token.
    """

    answers: list[list[int]]
    states: Tensor | None = None


Continue = Callable[[Sequence[Sequence[int]], Writing, int], Written]
"""A base model that writes: from prompts' token ids, settings and a seed to their answers."""


def continue_all(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    manner: Writing,
    eos_ids: Collection[int] = (),
    seed: int = 0,
    layers: Sequence[int] = (),
    slots: int | None = None,
) -> list[Row]:
    """Continue every prompt until an end token (kept), the limit or a loop.

    The ``states`` of each row are the base model's hidden states, (A, D) in all: row a is the state
    that gave answer token a, so heads train without passing the answers through the base model
    again. They hold the states after ``layers`` too; see `kernels.engine.Output`.
    """
    batch = Batch(
        engine,
        min(slots or SLOTS[manner.precision], len(prompts)),
        max(map(len, prompts)) + manner.max_new_tokens,
        eos_ids,
        shared=common_beginning(prompts),
        chunk=READ_AT_ONCE,
        repeats=manner.repeats,
        keep=("states",),
        layers=layers,
    )
    sampling = Sampling(temperature=manner.temperature, top_k=manner.top_k, top_p=manner.top_p)
    seeds = [seed * 1_000_003 + index for index in range(len(prompts))]
    return batch.run(prompts, manner.max_new_tokens, sampling, seeds)


def at_hand(wanted: Precision, device: torch.device) -> Precision:
    """Return ``wanted``, or float32, with a warning, on a processor that only imitates bfloat16.

    There torch's products in bfloat16 took ninety times as long as in float32 (two AVX2 cores).
    """
    if wanted == "float32" or device.type != "cpu" or any(map(host_features().get, BFLOAT16)):
        return wanted
    warnings.warn(
        "This processor has no instructions for bfloat16: products are in float32.", stacklevel=2
    )
    return "float32"


def writer(base: LanguageModel, layers: Sequence[int] = ()) -> Continue:
    """Return ``base`` as a `Continue`, which opens a forward pass when it first writes.

    The states after ``layers`` are kept too. bfloat16 products are for models that the
    weights-once engine can compute; other models write by their usual forward pass.
    """

    @cache
    def engine(precision: Precision) -> Engine:
        path = choose(base.config, base.device, base.dtype).path
        if precision == "bfloat16" and path == "weights_once":
            from labkit.kernels.many_rows import ManyRows

            return ManyRows(LlamaWeights(base.config, base.weights()))
        return engine_for(base)

    def write(prompts: Sequence[Sequence[int]], manner: Writing, seed: int) -> Written:
        manner = replace(manner, precision=at_hand(manner.precision, base.device))
        opened = engine(manner.precision)
        rows = continue_all(opened, prompts, manner, base.eos_ids, seed, layers)
        states = torch.cat([part for row in rows for part in row.states])
        return Written([row.output for row in rows], states.cpu().half())

    return write


@dataclass(frozen=True)
class Answers:
    """Answers kept in the shards of a folder.

    ``states`` says for each sequence which shard's states, and where in them its own begin;
    ``width`` is the width of a state, 0 if none were kept.
    """

    folder: Path
    sequences: Sequences
    states: tuple[tuple[Any, int], ...]
    width: int

    def hidden(self, runs: Runs, length: int) -> Tensor:
        """Read the states that were kept; this is a `labkit.training.features.Hidden`.

        A sequence's last token has no state, and none is needed.
        """
        parts = []
        for row, start, origin, end in torch.stack(list(vars(runs).values()), dim=1).tolist():
            states, place = self.states[row]
            begin = place + start - origin - int(self.sequences.given[row]) + 1
            parts.append(states[begin : begin + min(length, end - 1 - start)].float())
        return stacked(parts, length)


def made_answers(
    base: LanguageModel, prompts: Sequence[Sequence[int]], write: Continue, manner: Writing
) -> Answers:
    """Answer ``prompts`` in the cache folder, unless just these answers are kept there already."""
    what = json.dumps([fingerprint(base), asdict(manner), [list(prompt) for prompt in prompts]])
    folder = cache_dir() / "answers" / short_digest(what.encode())
    return make_shards(folder, prompts, write, manner)


def fingerprint(base: LanguageModel) -> str:
    """Return a short name for exactly this base model, from the numbers of its output table."""
    table = base.module.get_output_embeddings().weight.detach()
    return short_digest(table.float().cpu().contiguous().numpy().tobytes())


def short_digest(*parts: bytes) -> str:
    """Return a short name for exactly this content."""
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def make_shards(
    folder: Path, prompts: Sequence[Sequence[int]], write: Continue, manner: Writing
) -> Answers:
    """Answer every prompt, keep the answers in ``folder`` as shards, and return them all.

    Shards that exist are not made again; each has its own seed. If another process is writing
    there, it waits, and then finds the shards. Raises `LabkitError` if ``folder`` holds answers
    made with other prompts or settings, or cannot be written.
    """
    digest = short_digest(json.dumps([list(row) for row in prompts]).encode())
    settings = {**asdict(manner), "prompts": digest, "shard_rows": SHARD_ROWS}
    with locked(folder, wait=True):
        _claim(folder, json.dumps(settings, indent=2, sort_keys=True) + "\n")
        for index, (path, part) in enumerate(shards_of(folder, len(prompts), "answers")):
            if not path.exists():
                asked = prompts[part]
                written = write(asked, manner, manner.seed * 1_000_003 + index)
                pairs = zip(asked, written.answers, strict=True)
                rows = [[*prompt, *reply] for prompt, reply in pairs]
                write_shard(path, rows, list(map(len, asked)), written.states)
    return read_answers(folder)


def shards_of(folder: Path, count: int, shown: str = "") -> Iterator[tuple[Path, slice]]:
    """Yield each shard of ``count`` rows, its path and its rows; ``shown`` names a progress bar."""
    firsts = tqdm(range(0, count, SHARD_ROWS), desc=shown, leave=False, disable=not shown)
    for index, first in enumerate(firsts):
        yield folder / f"shard-{index:05d}.safetensors", slice(first, first + SHARD_ROWS)


def _claim(folder: Path, settings: str) -> None:
    """Write the settings into a new folder, or compare them with those of an old one."""
    path = folder / "settings.json"
    if not path.exists():
        write_whole(path, settings)
    if read_text(path) != settings:
        raise LabkitError(f"{folder} holds answers made with other settings; give another folder.")


def write_shard(
    path: Path, rows: Sequence[Sequence[int]], given: Sequence[int], states: Tensor | None = None
) -> None:
    """Write one shard: tokens int32 (N,), lengths and given int32 (R,), states float16 (A, D)."""
    columns = [token for row in rows for token in row], list(map(len, rows)), list(given)
    content = {
        name: torch.tensor(column, dtype=torch.int32)
        for name, column in zip(COLUMNS, columns, strict=True)
    }
    if states is not None:
        content["states"] = states.to(torch.float16).contiguous()
    try:
        write_whole(path, save(content))
    except LabkitError as error:
        raise LabkitError(f"{error} Free some disk space; the shards so far are kept.") from None


def read_answers(folder: Path) -> Answers:
    """Read all answers in ``folder``, without repeated ones and without empty ones.

    Raises `LabkitError` if there are none or a shard is damaged.
    """
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise LabkitError(f"There are no answers in {folder}: `labkit train generate` makes them.")
    rows: dict[tuple[int, ...], tuple[int, tuple[Any, int]]] = {}
    widths = set()
    for path in paths:
        (tokens, lengths, given), states = _read_shard(path)
        widths.add(0 if states is None else states.get_shape()[1])
        place = 0
        for row, known in zip(tokens.split(lengths.tolist()), given.tolist(), strict=True):
            if len(row) > known:
                rows.setdefault(tuple(row.tolist()), (known, (states, place)))
            place += len(row) - known
    if not rows:
        raise LabkitError(f"There are no answers in {folder}: every one in it is empty.")
    known, kept = zip(*rows.values(), strict=True)
    return Answers(folder, from_rows(rows, known), kept, widths.pop() if len(widths) == 1 else 0)


def _read_shard(path: Path) -> tuple[list[Tensor], Any]:
    """Read tokens, lengths and given of one shard, and open its states; None if it has none."""
    try:
        file: Any = safetensors.safe_open(path, framework="pt")
        columns = [file.get_tensor(name).long() for name in COLUMNS]
        states = file.get_slice("states") if "states" in file.keys() else None  # noqa: SIM118
    except (OSError, safetensors.SafetensorError):
        raise LabkitError(f"The shard {path} is damaged: remove it and run again.") from None
    _check_columns(path, *columns)
    return columns, states


def _check_columns(path: Path, tokens: Tensor, lengths: Tensor, given: Tensor) -> None:
    """Raise `LabkitError` unless the three columns describe rows laid end to end."""
    flat = tokens.ndim == lengths.ndim == given.ndim == 1 and len(lengths) == len(given)
    if not flat or int(lengths.sum()) != len(tokens) or not bool((lengths >= given).all()):
        raise LabkitError(f"The lengths in {path} do not fit its tokens: make the file again.")
    if not bool((given >= 1).all()) or (len(tokens) and int(tokens.min()) < 0):
        raise LabkitError(f"{path} has an answer without a prompt or a negative token id.")


def convert_answers(source: Path, folder: Path) -> dict[str, int | str]:
    """Turn answers in one ``.npz`` file into shards that ``--answers`` reads.

    ``source`` holds ``tokens`` (unsigned, all sequences end to end), ``lengths`` and ``given`` (how
    many of each are its prompt). Returns how many ``answers``, their ``tokens`` without prompts,
    and the ``folder``. Raises `LabkitError` if the file is something else.
    """
    try:
        with np.load(source, allow_pickle=False) as file:
            columns = [torch.from_numpy(file[name].astype(np.int64)) for name in COLUMNS]
    except Exception as error:  # numpy and zipfile raise a dozen kinds for a damaged file
        reason = str(error).partition("\n")[0]
        raise LabkitError(
            f"{source} is not a .npz file with tokens, lengths and given ({reason})."
        ) from None
    _check_columns(source, *columns)
    tokens, lengths, given = columns
    if not bool((lengths > given).any()):
        raise LabkitError(f"{source} holds no answers.")
    rows = [row.tolist() for row in tokens.split(lengths.tolist())]
    with locked(folder):
        _claim(folder, json.dumps({"converted": source.name, "answers": len(rows)}) + "\n")
        for path, part in shards_of(folder, len(rows)):
            write_shard(path, rows[part], given[part].tolist())
    written = len(tokens) - int(given.sum())
    return {"answers": len(rows), "tokens": written, "folder": str(folder)}
