"""A copy of the lab's code and the assignments' sources, made at the start of a batch.

Examiners run from this copy. A submission can change the lab's files if it runs as the same user,
but that does not change how others are graded; a change of the copy is detected and undone. The
lab's own files are only compared, never written.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from labkit.grading.build import PACKAGE


@contextlib.contextmanager
def staged(sources: Mapping[str, Path]) -> Iterator[Stage]:
    """Yield a `Stage` in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="labkit-grading-", ignore_cleanup_errors=True) as name:
        yield Stage(Path(name), sources)


class Stage:
    """A copy in ``folder`` of the package and of ``sources``, the assignments by name.

    ``state`` is a short text that changes whenever the checks or the grading do.
    """

    def __init__(self, folder: Path, sources: Mapping[str, Path]) -> None:
        self.folder = folder
        shutil.copytree(PACKAGE, folder / PACKAGE.name)  # keeps times, so caches stay good
        self.sources: dict[str, Path] = {}
        for name, path in sources.items():
            self.sources[name] = folder / "sources" / name / path.name
            self.sources[name].parent.mkdir(parents=True)
            shutil.copyfile(path, self.sources[name])
        self._content = _contents(folder)
        self._originals = _contents(PACKAGE)
        state = hashlib.sha256()
        for path, content in self._content.items():
            if path.parent.name in ("checks", "grading"):
                state.update(content)
        self.state = state.hexdigest()

    def mend(self) -> list[str]:
        """Restore the copy; return the names of the files that were changed."""
        changed = [
            path
            for path, content in self._content.items()
            if not path.is_file() or path.read_bytes() != content
        ]
        for path in changed:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._content[path])
        added = sorted(set(_code(self.folder)) - set(self._content))
        for path in added:
            path.unlink()
        return [path.name for path in changed + added]

    def changed_originals(self) -> list[str]:
        """Return the names of the lab's own files that changed since the last call."""
        before, self._originals = self._originals, _contents(PACKAGE)
        return [path.name for path in before if before[path] != self._originals.get(path)]


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in _code(folder)}


def _code(folder: Path) -> list[Path]:
    return sorted(path for kind in ("*.py", "*.ipynb") for path in folder.rglob(kind))
