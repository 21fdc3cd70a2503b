"""Model folders on disk: written whole or not at all, and checked before they are read.

A folder that labkit made has a ``manifest.json`` with the size and SHA-256 of each file. Hashing
half a gigabyte at every start would cost a second, so the manifest also keeps each file's
modification time: a file is hashed again only if its size or time changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError

from labkit.errors import LabkitError
from labkit.records import RecordError, write_whole

MANIFEST = "manifest.json"


class FileEntry(BaseModel):
    """A file of a model folder as it was written; ``mtime_ns`` null: always hash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    sha256: str
    mtime_ns: int | None = None


class Manifest(BaseModel):
    """The files of a model folder, their source, and the revision of the code that made them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    revision: int
    files: dict[str, FileEntry]

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """Return the folder's manifest or None; raise `LabkitError` if it is damaged."""
        path = folder / MANIFEST
        if not path.exists():
            return None
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValidationError):
            raise LabkitError(f"The manifest {path} is damaged.") from None

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


def check_folder(folder: Path, mend: str, deep: bool = False) -> None:
    """Raise `LabkitError`, ending in ``mend``, if a file differs from the manifest.

    A folder without a manifest was not made by labkit and passes. ``deep`` hashes every file.
    """
    try:
        manifest = Manifest.read(folder)
    except LabkitError as error:
        raise LabkitError(f"{str(error)[:-1]}: {mend}.") from None
    if manifest is None:
        return
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


def install(folder: Path, source: str, revision: int, fill: Callable[[Path], None]) -> None:
    """Replace ``folder`` by what ``fill`` writes into an empty one, whole or not at all.

    ``fill`` works under a temporary name next to it; a rename follows. Raises `LabkitError` if the
    disk refuses.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=folder.parent, prefix=temporary_prefix(folder)
        ) as name:
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
        for left in folder.parent.glob(temporary_prefix(folder) + "*"):
            shutil.rmtree(left)
        yield


def temporary_prefix(folder: Path) -> str:
    """Return the prefix of temporary folders next to ``folder``."""
    return f".{folder.name}-unfinished-"


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
