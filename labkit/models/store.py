"""Model folders on disk: written whole or not at all, checked before they are read, and read.

A folder that labkit made has a ``manifest.json`` with the size and SHA-256 of each file. Hashing
half a gigabyte at every start would cost a second, so the manifest also keeps each file's
modification time: a file is hashed again only if its size or time changed.

Weights are read without torch and without a copy. A safetensors file is eight bytes of length, that
much JSON (name: dtype, shape, place), then the numbers. So a float32 weight is a view into the
mapped file: opening half a gigabyte costs nothing until a weight is used, and two processes share
one copy.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError

from labkit.errors import LabkitError
from labkit.records import RecordError, write_whole

MANIFEST = "manifest.json"

STORED = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}
"""numpy's type for each stored kind of number; bfloat16, which numpy lacks, as its 16 bits."""


class FileEntry(BaseModel, frozen=True, extra="forbid"):
    """A file of a model folder as it was written; ``mtime_ns`` null: always hash."""

    size: int
    sha256: str
    mtime_ns: int | None = None


class Manifest(BaseModel, frozen=True, extra="forbid"):
    """The files of a model folder, their source, and the revision of the code that made them."""

    source: str
    revision: int
    files: dict[str, FileEntry]

    def write(self, folder: Path) -> None:
        """Write the manifest into its folder."""
        write_whole(folder / MANIFEST, self.model_dump_json(indent=2) + "\n")


def make_manifest(folder: Path, source: str, revision: int, times: bool) -> Manifest:
    """Describe every file in ``folder``.

    ``times`` keeps the files' modification times: right for a cache, wrong for a folder in git,
    where a checkout sets new ones.
    """
    files = {
        path.name: FileEntry(
            size=path.stat().st_size,
            sha256=sha256(path),
            mtime_ns=path.stat().st_mtime_ns if times else None,
        )
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST
    }
    return Manifest(source=source, revision=revision, files=files)


def check_folder(folder: Path, mend: str, deep: bool = False) -> Manifest | None:
    """Return a folder's manifest; raise `LabkitError`, ending in ``mend``, if a file differs.

    A folder without a manifest was not made by labkit and passes. ``deep`` hashes every file.
    """
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        manifest = Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        raise LabkitError(f"The manifest {path} is damaged: {mend}.") from None
    hashed = {}
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise LabkitError(f"The model file {path} is missing: {mend}.")
        stat = path.stat()
        if stat.st_size != entry.size:
            sizes = f"{stat.st_size:,} bytes instead of {entry.size:,}"
            raise LabkitError(f"The model file {path} has {sizes}: {mend}.")
        if deep or stat.st_mtime_ns != entry.mtime_ns:
            if sha256(path) != entry.sha256:
                raise LabkitError(f"The model file {path} is damaged: {mend}.")
            hashed[name] = entry.model_copy(update={"mtime_ns": stat.st_mtime_ns})
    aged = any(entry.mtime_ns is not None for entry in manifest.files.values())
    if aged and any(manifest.files[name] != entry for name, entry in hashed.items()):
        # A read-only folder cannot store the new times and is hashed at each start.
        with contextlib.suppress(RecordError):
            manifest.model_copy(update={"files": manifest.files | hashed}).write(folder)
    return manifest


def install(folder: Path, source: str, revision: int, fill: Callable[[Path], None]) -> None:
    """Replace ``folder`` by what ``fill`` writes into an empty one, whole or not at all.

    ``fill`` works under a temporary name next to it; a rename follows. Raises `LabkitError` if the
    disk refuses.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=unfinished(folder)) as name:
            fresh = Path(name) / "fresh"
            fresh.mkdir()
            fill(fresh)
            for path in fresh.iterdir():  # some libraries write files for the user alone
                path.chmod(fresh.stat().st_mode & 0o666)
            make_manifest(fresh, source, revision, times=True).write(fresh)
            if folder.exists():
                folder.rename(Path(name) / "old")
            fresh.rename(folder)
    except (OSError, SafetensorError) as error:  # the latter when the disk is full in save_file
        reason = getattr(error, "strerror", None) or error
        raise LabkitError(f"Cannot write the model folder {folder}: {reason}.") from None


LOCK = ".lock"
"""The file in a folder that a process holds while it writes there."""


@contextlib.contextmanager
def locked(folder: Path, wait: bool = False, name: str = LOCK) -> Iterator[None]:
    """Keep other processes from writing to ``folder`` until the block ends.

    The operating system holds the lock, so a crashed process leaves none behind. Raises
    `LabkitError` if another process holds it, or waits for that process with ``wait``.
    """
    lock = filelock.FileLock(folder / name, timeout=-1 if wait else 0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise LabkitError(
            f"Another process is writing to {folder}: wait until it ends, or give another folder."
        ) from None
    except OSError as error:
        raise LabkitError(f"Cannot write to {folder}: {error.strerror or error}.") from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold the lock on ``folder`` and remove what killed writers left."""
    with locked(folder.parent, wait=True, name=f".{folder.name}.lock"):
        for left in folder.parent.glob(unfinished(folder) + "*"):
            shutil.rmtree(left)
        yield


def unfinished(folder: Path) -> str:
    """Return the prefix of temporary folders next to ``folder``."""
    return f".{folder.name}-unfinished-"


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        end, whole = 0, True
        for entry in header.values():  # bytes must fit the shape, in the number formats read here
            first, last = entry["data_offsets"]
            kind = np.dtype(STORED[entry["dtype"]]) if entry["dtype"] in STORED else None
            fits = kind is None or last - first == math.prod(entry["shape"]) * kind.itemsize
            end, whole = max(end, last), whole and fits
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


def read_weights(folder: Path) -> dict[str, np.ndarray]:
    """Return every weight of a folder in float32; those stored so are read-only views."""
    weights = {}
    for path in weight_files(folder):
        header, start = read_header(path)
        numbers = np.asarray(np.memmap(path, np.uint8, mode="r"))
        for name, entry in header.items():
            kind = entry["dtype"]
            if kind not in STORED:
                raise LabkitError(
                    f"The weight {name} of {path} is stored as {kind}, which cannot be read as "
                    f"float32; {', '.join(STORED)} can."
                )
            begin, end = (start + offset for offset in entry["data_offsets"])
            stored = numbers[begin:end].view(STORED[kind]).reshape(entry["shape"])
            if kind == "BF16":  # the upper half of a float32
                stored = (stored.astype(np.uint32) << 16).view(np.float32)
            weights[name] = stored.astype(np.float32, copy=False)
    return weights
