"""A copy of the lab's code and the assignments' sources, made at the start of a batch.

Examiners run from this copy. A submission can change the lab's files if it runs as the same user,
but that does not change how others are graded; a change of the copy is detected and undone. The
lab's own files are only compared, never written.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

PACKAGE = Path(__file__).resolve().parents[1]


class Stage:
    """A copy of the package and of ``sources``, the assignments by name; a context manager."""

    def __init__(self, sources: Mapping[str, Path]) -> None:
        self._folder = tempfile.TemporaryDirectory(
            prefix="labkit-grading-", ignore_cleanup_errors=True
        )
        self.folder = Path(self._folder.name)
        shutil.copytree(PACKAGE, self.folder / PACKAGE.name)  # keeps times, so caches stay good
        self.sources: dict[str, Path] = {}
        for name, path in sources.items():
            self.sources[name] = self.folder / "sources" / name / path.name
            self.sources[name].parent.mkdir(parents=True)
            shutil.copyfile(path, self.sources[name])
        self._content = {path: path.read_bytes() for path in _code(self.folder)}
        self._originals = _digests()

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._folder.cleanup()

    @property
    def state(self) -> str:
        """A short text that changes whenever the checks or the grading do."""
        state = hashlib.sha256()
        for path, content in self._content.items():
            if path.parent.name in ("checks", "grading"):
                state.update(content)
        return state.hexdigest()

    def mend(self) -> list[str]:
        """Restore the copy; return the names of the files that were changed."""
        changed = []
        for path, content in self._content.items():
            if not path.is_file() or path.read_bytes() != content:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                changed.append(path.name)
        added = set(_code(self.folder)) - set(self._content)
        for path in sorted(added):
            path.unlink()
            changed.append(path.name)
        return changed

    def changed_originals(self) -> list[str]:
        """Return the names of the lab's own files that changed since the last call."""
        now = _digests()
        before, self._originals = self._originals, now
        return [path.name for path in before if before[path] != now.get(path)]


def _code(folder: Path) -> list[Path]:
    return sorted(path for kind in ("*.py", "*.ipynb") for path in folder.rglob(kind))


def _digests() -> dict[Path, bytes]:
    return {path: hashlib.sha256(path.read_bytes()).digest() for path in _code(PACKAGE)}
