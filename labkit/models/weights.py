"""Weights as numpy arrays from safetensors files, without torch and without a copy.

A safetensors file is eight bytes of length, that much JSON (name: dtype, shape, place), then the
numbers. So a float32 weight is a view into the mapped file: opening half a gigabyte costs nothing
until a weight is used, and two processes share one copy.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from labkit.errors import LabkitError

STORED = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}
"""numpy's type for each stored kind of number; bfloat16, which numpy lacks, as its 16 bits."""


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model folder: one, or those that its index names."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return [folder / "model.safetensors"]
    try:
        pieces = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError):
        raise LabkitError(f"The list of weight files {index} is damaged.") from None
    if not pieces or any(piece != Path(str(piece)).name for piece in pieces):
        raise LabkitError(f"The list of weight files {index} names no files of this folder.")
    return [folder / piece for piece in sorted(pieces)]


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return a safetensors file's header and the offset of its numbers.

    Raises `LabkitError` if the file is missing or its length differs from the header's.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            if not 2 <= length <= size - 8:
                raise LabkitError(f"{path} is no safetensors file, or is cut off.")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        whole = all(_consistent(entry) for entry in header.values())
    except OSError as error:
        raise LabkitError(f"The weights {path} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        if isinstance(error, LabkitError):
            raise
        raise LabkitError(f"The header of the weights {path} is damaged.") from None
    if not whole or 8 + length + end != size:
        raise LabkitError(f"The weights {path} have {size:,} bytes, not {8 + length + end:,}.")
    return header, 8 + length


def check_weights(folder: Path) -> None:
    """Raise `LabkitError` if a weight file of a model folder is missing or incomplete."""
    for path in weight_files(folder):
        read_header(path)


def _consistent(entry: dict[str, Any]) -> bool:
    """Return whether a weight's bytes fit its shape (for the number formats read here)."""
    begin, end = entry["data_offsets"]
    kind = STORED.get(entry["dtype"])
    return kind is None or end - begin == math.prod(entry["shape"]) * np.dtype(kind).itemsize


def read_weights(folder: Path) -> dict[str, np.ndarray]:
    """Return every weight of a folder in float32; those stored so are read-only views."""
    return {
        name: weight for path in weight_files(folder) for name, weight in _read_file(path).items()
    }


def _read_file(path: Path) -> dict[str, np.ndarray]:
    header, start = read_header(path)
    numbers = np.asarray(np.memmap(path, np.uint8, mode="r"))
    weights = {}
    for name, entry in header.items():
        if entry["dtype"] not in STORED:
            raise LabkitError(
                f"The weight {name} of {path} is stored as {entry['dtype']}, which cannot be read "
                f"as float32; {', '.join(STORED)} can."
            )
        begin, end = (start + offset for offset in entry["data_offsets"])
        stored = numbers[begin:end].view(STORED[entry["dtype"]]).reshape(entry["shape"])
        weights[name] = _float32(stored, entry["dtype"])
    return weights


def _float32(stored: np.ndarray, kind: str) -> np.ndarray:
    if kind == "BF16":  # the upper half of a float32
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32, copy=False)
