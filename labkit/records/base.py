"""What every record shares: frozen, versioned, validated on reading, written whole or not."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from labkit.errors import LabkitError, first_problem

Probability = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]


class RecordError(LabkitError):
    """A record's text or file is not what it should be; the message is one sentence."""


class Part(BaseModel):
    """A frozen piece of a record: unknown keys, infinities and NaN are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Provenance(Part):
    """How a recorded figure came to be, so that anyone can make it again."""

    command: str
    seed: int | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    machine: str = ""
    date: str = ""
    note: str = ""


class Record(Part):
    """A plain record of something the lab computed; the only thing widgets and plots read.

    Subclasses name their ``kind`` and ``version``, which are written into the JSON and checked on
    reading.
    """

    KIND: ClassVar[str]
    VERSION: ClassVar[int] = 1

    kind: str = ""
    version: int = 0
    provenance: Provenance | None = None

    def model_post_init(self, _context: object) -> None:
        """Check the kind and version, and fill them in."""
        self._check_header(self.__dict__)
        object.__setattr__(self, "kind", self.KIND)
        object.__setattr__(self, "version", self.VERSION)

    @classmethod
    def _check_header(cls, content: Any) -> None:
        """Raise `RecordError` for another kind or version, before any wrong field is reported."""
        if not isinstance(content, dict):
            raise RecordError(f"This is no {cls.KIND} record: its text is no JSON object.")
        kind, version = content.get("kind") or cls.KIND, content.get("version") or cls.VERSION
        if kind != cls.KIND:
            raise RecordError(f"A record of kind {cls.KIND!r} is needed, this is a {kind!r}.")
        if version != cls.VERSION:
            raise RecordError(
                f"This labkit reads version {cls.VERSION} of {cls.KIND!r} records, "
                f"this is version {version}: make it again."
            )

    def to_json(self) -> str:
        """Return the record as JSON text; ``from_json`` gives back an equal record."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a record, or raise `RecordError`: one sentence on what is wrong with the text."""
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            raise RecordError(f"This is no {cls.KIND} record: its text is no JSON.") from None
        cls._check_header(content)
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            problem = first_problem(error, "the text as a whole")
            raise RecordError(f"Not a {cls.KIND} record: {problem}.") from None

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the record to ``path`` by a temporary name and a rename; return the path."""
        return write_whole(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read the record at ``path``; raise `RecordError` if it is missing or damaged."""
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RecordError(f"Cannot read the {cls.KIND} record {path}: {reason}.") from None
        try:
            return cls.from_json(text)
        except RecordError as error:
            raise RecordError(f"{path}: {error}") from None


def write_whole(path: str | os.PathLike[str], data: str | bytes) -> Path:
    """Write ``data`` so that ``path`` holds either all of it or what it held before.

    The file gets the permissions that the umask leaves, like any new file. Raises `RecordError` in
    one sentence where the disk refuses (full, read-only, no such folder).
    """
    path = Path(path)
    content = data.encode() if isinstance(data, str) else data
    temporary = path.parent / f".tmp-{secrets.token_hex(8)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:  # not `tempfile`, whose files only their owner may read
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise RecordError(f"Cannot write {path}: {error.strerror or error}.") from None
    return path
