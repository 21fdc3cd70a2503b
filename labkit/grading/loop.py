"""The loop over a batch of submissions: a row for each, whatever it is, in ``grades.csv``.

An interrupted batch continues where it stopped: grades are kept in ``graded/``, and used again as
long as the submission, its source, the checks and the limits are the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
from pydantic import TypeAdapter

from labkit.errors import LabkitError
from labkit.grading.build import PACKAGE, sources
from labkit.grading.feedback import page
from labkit.grading.gradebook import Grade, read_table, write_table
from labkit.grading.judge import Outcome
from labkit.grading.keeper import Limits
from labkit.grading.notebook import GradedCell, graded_cells, read, written_cells
from labkit.paths import data_dir
from labkit.records.base import write_whole

MARK = "LABKIT_SUBMISSION"
"""An environment variable of everything that a submission starts, to find what is left."""
KEEPER_SECONDS = 60
"""Seconds that a keeper may take beyond its submission's time."""
PASSED_ON = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "USERPROFILE",
    "APPDATA", "LOCALAPPDATA", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH",
    "LABKIT_CACHE", "PYTHONPATH",
)  # fmt: skip
"""The environment variables that a submission sees."""

STATUSES = {
    "tampered": "it changed the copy of the lab that grades, which was put back: its score is 0",
    "unreadable": "",
    "wall limit": (
        "it took longer than {wall_seconds:g} s in all: what was tested until then counts"
    ),
    "process limit": "it started too many processes, which were ended",
    "memory limit": "it used more than {memory_mb} MB of memory, and was ended there",
    "failed": "the grading itself failed, so look at it by hand",
    "kernel died": "",
    "time limit": "",
    "output cut": "it printed more than {output_kb} kB in a cell: the rest was dropped",
    "older release": "",
    "restored": "",
}
"""What can happen to a submission, gravest first, and the sentence if its notes give none."""


@dataclass(frozen=True)
class Submission:
    """One student's notebook for one assignment; ``path`` may not exist.

    ``unreadable`` says why the student's folder cannot be listed, if it cannot.
    """

    student: str
    assignment: str
    path: Path
    unreadable: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Student and assignment as text: bytes that are not UTF-8 as in ``J\\xfcrg``."""
        return _text(self.student), _text(self.assignment)

    def grade(self, status: str, comment: str, most: float = 0.0, **found: Any) -> Grade:
        """Return its row."""
        return Grade(*self.key, status, max_score=most, comment=comment, **found)


def find(folder: Path) -> list[Submission]:
    """Return every submission in nbgrader's layout, ``folder``/STUDENT/NAME/NAME.ipynb, in order.

    A folder STUDENT/NAME without that notebook is a submission too, and so is a folder STUDENT that
    cannot be read. Raises `LabkitError` if there is no folder, or nothing like this in it.
    """
    if not folder.is_dir():
        raise LabkitError(
            f"There is no folder {folder}: give one that holds STUDENT/NAME/NAME.ipynb."
        )
    found = []
    for student in _folders(folder):
        try:
            found += [
                Submission(student.name, work.name, work / f"{work.name}.ipynb")
                for work in _folders(student)
            ]
        except OSError as error:
            found.append(Submission(student.name, "", student, _cannot_read("folder", error)))
    if not found:
        raise LabkitError(f"There are no submissions STUDENT/NAME/NAME.ipynb in {folder}.")
    return found


def _folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:  # knows folders without asking for each one's permission
        return sorted(
            Path(entry.path) for entry in entries if entry.is_dir() and entry.name[0] != "."
        )


def _text(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _cannot_read(what: str, error: OSError) -> str:
    return f"the {what} cannot be read ({error.strerror or error})"


def grade(
    submissions: Sequence[Submission],
    out: Path,
    limits: Limits | None = None,
    *,
    folder: Path | None = None,
    jobs: int = 1,
    again: bool = False,
    watch: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> list[Grade]:
    """Grade every submission, ``jobs`` at a time, into ``out``: the table and a page for each.

    ``folder`` holds the assignments' sources (default: the course's); ``again`` grades what is
    graded already; ``watch`` may wrap the loop in a progress bar. Raises an error in one sentence
    if ``out`` cannot be written.
    """
    grades: dict[int, Grade] = {}
    with staged(sources(folder)) as stage, ThreadPoolExecutor(max(1, jobs)) as pool:
        batch = _Batch(out, limits or Limits(), stage, max(1, jobs), again)
        table = out / "grades.csv"
        rows = read_table(table) if table.exists() else []
        ours = {one.key for one in submissions}
        keys = [(row["student"], row["assignment"]) for row in rows]
        earlier = {key: row for key, row in zip(keys, rows, strict=True) if key in ours}
        waiting = {pool.submit(batch.grade, one): i for i, one in enumerate(submissions)}
        try:
            for done in watch(as_completed(waiting)):
                one = grades[waiting[done]] = done.result()
                one.written = earlier.pop((one.student, one.assignment), {}).get("written") or ""
                write_table([grades[i] for i in sorted(grades)], table, earlier.values())
        except BaseException:
            batch.stop()
            raise
    return [grades[number] for number in sorted(grades)]


@contextlib.contextmanager
def staged(sources: Mapping[str, Path]) -> Iterator[Stage]:
    """Yield a `Stage` in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="labkit-grading-", ignore_cleanup_errors=True) as name:
        yield Stage(Path(name), sources)


class Stage:
    """A copy in ``folder`` of the package and of ``sources``, the assignments by name.

    Examiners run from this copy. A submission can change the lab's files if it runs as the same
    user, but that does not change how others are graded; a change of the copy is detected and
    undone. The lab's own files are only compared, never written.

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
        self._content = {path: path.read_bytes() for path in _code(folder)}
        self._originals = _digests()
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
            if path.is_symlink() or not path.is_file() or path.read_bytes() != content
        ]
        added = sorted(set(_code(self.folder)) - set(self._content))
        for path in changed + added:
            self._clear(path)
        for path in changed:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._content[path])
        return [path.name for path in changed + added]

    def _clear(self, path: Path) -> None:
        """Remove ``path``, be it a folder, a link or a pipe, and what is no folder above it."""
        for above in reversed(path.parents):
            if self.folder in above.parents and (above.is_symlink() or not above.is_dir()):
                above.unlink(missing_ok=True)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def changed_originals(self) -> list[str]:
        """Return the names of the lab's own files that changed since the last call."""
        before, self._originals = self._originals, _digests()
        return [path.name for path in before if before[path] != self._originals.get(path)]


def _digests() -> dict[Path, bytes]:
    files = (path for path in _code(PACKAGE) if path.is_file())  # a pipe would never end
    return {path: hashlib.sha256(path.read_bytes()).digest() for path in files}


def _code(folder: Path) -> list[Path]:
    return sorted(path for kind in ("*.py", "*.ipynb") for path in folder.rglob(kind))


@dataclass
class _Batch:
    """The state that a batch's submissions share; `grade` runs in several threads at once."""

    out: Path
    limits: Limits
    stage: Stage
    jobs: int
    again: bool
    stopped: bool = False
    keepers: set[subprocess.Popen[str]] = field(default_factory=set)

    def stop(self) -> None:
        """Start nothing more, and end every keeper with all its processes."""
        self.stopped = True
        for keeper in list(self.keepers):
            with contextlib.suppress(OSError):
                keeper.terminate()

    def grade(self, one: Submission) -> Grade:
        """Grade a submission; where grading itself raises, its row says so and the rest goes on."""
        source = self.stage.sources.get(one.assignment)
        if one.unreadable:
            return one.grade("unreadable", one.unreadable)
        if source is None:
            names = ", ".join(self.stage.sources)
            return one.grade(
                "unknown assignment", f"there is no assignment of that name: there are {names}"
            )
        try:
            notebook = read(source)
            made = self._tested(one, source, graded_cells(notebook))
            made.written_max = sum(points for _, points in written_cells(notebook))
            return made
        except LabkitError:  # stopped, or the results cannot be written
            raise
        except Exception as error:
            return one.grade("failed", f"{STATUSES['failed']}: {type(error).__name__}: {error}")

    def _tested(self, one: Submission, source: Path, tests: Sequence[GradedCell]) -> Grade:
        """Return what the tests give, now or when it was graded before; write its page."""
        most = sum(test.points for test in tests)
        try:
            if not one.path.is_file():
                beside = ", ".join(
                    sorted(_text(other.name) for other in one.path.parent.iterdir())[:5]
                )
                there = f"there is no file {one.path.name} in the folder"
                return one.grade("missing", f"{there}, which holds {beside or 'nothing'}", most)
            content = one.path.read_bytes()
        except OSError as error:
            return one.grade("unreadable", _cannot_read("notebook", error), most)
        limits = json.dumps(asdict(self.limits))
        parts = (self.stage.state.encode(), content, source.read_bytes(), limits.encode())
        state = hashlib.sha256(b"".join(parts)).hexdigest()
        kept = self.out / "graded" / one.student / f"{one.assignment}.json"
        made = None if self.again else _kept(kept, state)
        if made is None:
            made = self._examined(one, source, tests)
            if made.status != "failed":
                write_whole(kept, json.dumps({"state": state, "grade": asdict(made)}))
        page_at = self.out / "feedback" / one.student / one.assignment
        write_whole(page_at / f"{one.assignment}.html", page(made, tests))
        return made

    def _examined(self, one: Submission, source: Path, tests: Sequence[GradedCell]) -> Grade:
        """Let a keeper run the examiner, and make a grade of the results."""
        if self.stopped:
            raise LabkitError("The grading was stopped; run the same command to go on.")
        mark = secrets.token_hex(8)
        found = self._kept_by_a_keeper(one, source, mark)
        _end_marked(mark)
        if self.stage.mend():
            found["events"].append("tampered")
        changed = self.stage.changed_originals()
        made = _grade_of(one, found, tests, self.limits)
        if changed:
            made.comment += f"; files of the lab changed while it ran: {', '.join(changed[:5])}"
        return made

    def _kept_by_a_keeper(self, one: Submission, source: Path, mark: str) -> dict[str, Any]:
        """Return a keeper's results; empty ones if the keeper itself was ended."""
        spec = {
            # The keeper names files in UTF-8, whatever this process does.
            "submission": os.fsencode(one.path.resolve()).decode("utf-8", "surrogateescape"),
            "source": str(source),
            "limits": asdict(self.limits),
        }
        keeper = subprocess.Popen(
            [sys.executable, "-m", "labkit.grading.keeper"],
            cwd=self.stage.folder,  # so that it is the copy's keeper, and the copy's examiner
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env=self._environment(mark),
            start_new_session=True,
        )
        self.keepers.add(keeper)
        try:
            out, _ = keeper.communicate(
                json.dumps(spec), timeout=self.limits.wall_seconds + KEEPER_SECONDS
            )
            return json.loads(out)
        except (subprocess.TimeoutExpired, ValueError, OSError):
            return {"events": ["kernel died"], "left": 0, "lines": [], "code": -1}
        finally:
            keeper.kill()
            keeper.wait()
            self.keepers.discard(keeper)

    def _environment(self, mark: str) -> dict[str, str]:
        """Return the environment of a submission, without the teacher's secrets."""
        threads = str(max(1, (os.cpu_count() or 1) // self.jobs))
        return {
            **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
            MARK: mark,
            "LABKIT_BASE": "tiny",
            "LABKIT_DATA": str(data_dir()),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads),
            "NUMBA_NUM_THREADS": os.environ.get("NUMBA_NUM_THREADS", threads),
            "PYTHONUTF8": "1",
            "PYTHONNOUSERSITE": "1",
        }


def _grade_of(
    one: Submission, found: dict[str, Any], tests: Sequence[GradedCell], limits: Limits
) -> Grade:
    """Return the grade that follows from a keeper's results."""
    lines = [_valid(json.loads(line)) for line in found["lines"] if line.endswith("\n")]
    events = [*found["events"], *(line["event"] for line in lines if "event" in line)]
    notes = [line["note"] for line in lines if "note" in line]
    outcomes = [Outcome(**line) for line in lines if "test" in line]
    cells: list[Any] = next((line["cells"] for line in reversed(lines) if "cells" in line), [])
    if not any(line.get("done") for line in lines) and not {"wall limit", "tampered"} & set(events):
        failed = found["code"] == 1
        errors = " ".join(found["errors"].split())[-200:] if failed else ""
        events.append("failed" if failed else "kernel died")
        notes.append(errors if failed else "it ended the process that graded it")
    if found["left"]:
        notes.append(f"{found['left']} processes that it had left running were ended")
    tested = {outcome.test for outcome in outcomes}
    outcomes += [Outcome(t.name, False, "not tested") for t in tests if t.name not in tested]
    points = {test.name: test.points for test in tests}
    status = next((status for status in STATUSES if status in events), "graded")
    worthless = status in ("unreadable", "tampered")
    score = sum(points[outcome.test] for outcome in outcomes if outcome.passed and not worthless)
    said = [text.format(**asdict(limits)) for event, text in STATUSES.items() if event in events]
    wrong = [outcome.test for outcome in outcomes if not outcome.passed]
    if wrong and not worthless:
        none = len(wrong) == len(tests)
        notes.append("no test is passed" if none else f"not right: {', '.join(wrong)}")
    comment = "; ".join(dict.fromkeys(text for text in (*said, *notes) if text))
    return one.grade(
        status,
        comment or "every test is passed",
        sum(points.values()),
        score=score,
        outcomes=outcomes,
        cells=cells,
    )


def _valid(found: Any) -> Any:
    """Return what was found with every lone surrogate as a question mark, so it can be written."""
    return json.loads(json.dumps(found, ensure_ascii=False).encode("utf-8", "replace"))


def _kept(path: Path, state: str) -> Grade | None:
    """Return the grade kept at ``path`` if nothing changed since; None if it must be made again."""
    try:
        found = json.loads(path.read_bytes())
        if found["state"] != state:
            return None
        kept = TypeAdapter(Grade).validate_python(_valid(found["grade"]))
        page(kept, [])
        return kept
    except Exception:  # none yet, or a damaged one: it is graded again
        return None


def _end_marked(mark: str) -> None:
    """End what a submission still has running, even if its keeper was ended."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                process.kill()
        except (psutil.Error, OSError):  # gone, or of another user
            continue
