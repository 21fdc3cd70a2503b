"""Translating a whole test set in several ways, batch by batch, resumable, and scoring it.

Sources stream through in batches; after each, a line in a journal keeps what was output and the
statistics that scores are computed from. So memory does not grow with the texts, a run that was
stopped goes on where it was, and several processes can share the work, each with a journal of its
own in one folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

from labkit.errors import LabkitError
from labkit.mbr.bench import timed
from labkit.mbr.conditional import Conditional
from labkit.mbr.decide import choose
from labkit.mbr.draws import Draws, batched, draw, stream
from labkit.mbr.evaluate import Corpus, corpus, signature
from labkit.mbr.family import oracle
from labkit.mbr.pairs import Pair
from labkit.mbr.search import Beam, beam, greedy
from labkit.records import Sample, Weighting, write_whole

SYSTEMS = ("greedy", "beam", "sample", "mbr", "oracle")


@dataclass(frozen=True)
class Plan:
    """What is to be compared: how to draw, how to search, what to decide by.

    ``base`` names the model in the journal; ``drawing`` says how many samples make hypotheses and
    evidence, and how many sources go through the model at once.
    """

    base: str = ""
    utility: str = "chrf"
    weighting: Weighting = "uniform"
    drawing: Draws = field(default_factory=Draws)
    searching: Beam = field(default_factory=Beam)


@dataclass(frozen=True)
class Translated:
    """One batch done: outputs and seconds of each system, and the statistics of its segments.

    ``digest`` tells the sources and references from others.
    """

    number: int
    digest: str
    outputs: dict[str, list[str]]
    seconds: dict[str, float]
    statistics: dict[str, dict[str, list[list[float]]]]


class Journal:
    """The batches done so far: in memory, or in the JSON-lines files of a folder.

    ``settings`` are kept in the folder. Raises `LabkitError` where the folder holds a run of other
    settings, or cannot be read or written.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None, settings: dict[str, Any], process: int = 0
    ) -> None:
        self.kept: list[Translated] = []
        self.folder = None if folder is None else Path(folder)
        if self.folder is None:
            return
        self.file = self.folder / f"batches-{process}.jsonl"
        note = self.folder / "settings.json"
        try:
            if not note.exists():
                write_whole(note, json.dumps(settings, indent=1))
            found = json.loads(note.read_text(encoding="utf-8"))
            if self.file.exists():  # a line that was being written as the run stopped is dropped
                whole, _, _ = self.file.read_bytes().rpartition(b"\n")
                write_whole(self.file, whole + b"\n" if whole else b"")
        except (OSError, ValueError) as error:
            raise LabkitError(f"The journal in {folder} cannot be used: {error}") from None
        for name, value in settings.items():
            if found.get(name) != value:
                raise LabkitError(
                    f"The journal in {folder} is of a run with {name} {found.get(name)!r}, not "
                    f"{value!r}; give another folder, or the same settings to go on."
                )

    def __iter__(self) -> Iterator[Translated]:
        """Yield every batch done, by any process, in order and once."""
        if self.folder is None:
            yield from self.kept
            return
        seen = set()
        for path in sorted(self.folder.glob("batches-*.jsonl")):
            with path.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, start=1):
                    if not line.endswith("\n"):  # another process is writing it
                        break
                    try:
                        batch = Translated(**json.loads(line))
                    except (ValueError, TypeError):
                        raise LabkitError(
                            f"Line {number} of {path} is damaged; take it out, and its batch is "
                            "done again."
                        ) from None
                    if batch.number not in seen:
                        seen.add(batch.number)
                        yield batch

    def add(self, batch: Translated) -> None:
        """Store a batch."""
        if self.folder is None:
            self.kept.append(batch)
            return
        try:
            with self.file.open("a", encoding="utf-8", newline="\n") as out:
                out.write(json.dumps(asdict(batch), ensure_ascii=False) + "\n")
        except OSError as error:
            raise LabkitError(f"Cannot write {self.file}: {error.strerror}.") from None


def translate(
    model: Conditional,
    pairs: Iterable[Pair],
    plan: Plan | None = None,
    folder: str | os.PathLike[str] | None = None,
    share: tuple[int, int] = (0, 1),
    progress: Callable[[int], object] = lambda sources: None,
) -> Journal:
    """Translate every source by each of `SYSTEMS`; batches already done are skipped.

    ``folder`` keeps the journal. ``share`` is (this process, processes): batches are
    dealt out in turn. ``progress`` is called after each batch with its number of sources. Raises
    `LabkitError` where a batch in the journal is of other pairs.
    """
    plan = plan or Plan()
    process, processes = share
    journal = Journal(folder, json.loads(json.dumps(asdict(plan))), process)
    done = {batch.number: batch.digest for batch in journal}
    for number, batch in enumerate(batched(pairs, plan.drawing.at_once)):
        if number in done:
            if done[number] != _digest(batch):
                raise LabkitError(
                    f"The journal in {folder} is of other pairs, from number "
                    f"{number * plan.drawing.at_once + 1} on; give another folder."
                )
        elif number % processes == process:
            journal.add(_translate(model, number, batch, plan))
        else:
            continue
        progress(len(batch))
    return journal


def _digest(pairs: Sequence[Pair]) -> str:
    return blake2b(json.dumps(pairs).encode(), digest_size=8).hexdigest()


def _translate(model: Conditional, number: int, pairs: Sequence[Pair], plan: Plan) -> Translated:
    """Translate one batch by every system. MBR and the oracle choose among the same samples."""
    sources, references = zip(*pairs, strict=True)
    samples, draw_s = timed(lambda: draw(model, sources, plan.drawing))
    of_source = list(zip(sources, references, samples, strict=True))
    limit, single = plan.drawing.max_new_tokens, replace(plan.drawing, samples=1)
    ways: dict[str, Iterable[Sample]] = {  # each runs as its list is taken
        "greedy": greedy(model, sources, limit),
        "beam": (found[0] for found in beam(model, sources, plan.searching)),
        "sample": (drawn[0] for drawn in stream(model, sources, single)),
        "mbr": (
            choose(drawn, utility=plan.utility, weighting=plan.weighting, source=source)
            for source, _, drawn in of_source
        ),
        "oracle": (oracle(drawn, y, plan.utility) for _, y, drawn in of_source),
    }
    outputs, seconds = {}, {}
    for name in SYSTEMS:
        chosen: list[Sample]
        chosen, took = timed(partial(list, ways[name]))
        outputs[name] = [one.text for one in chosen]
        seconds[name] = took + draw_s * (name in ("mbr", "oracle"))
    statistics = {name: corpus(texts, references).statistics for name, texts in outputs.items()}
    return Translated(number, _digest(pairs), outputs, seconds, statistics)


def collect(journal: Iterable[Translated]) -> tuple[dict[str, Corpus], dict[str, float]]:
    """Return each system's corpus and its seconds, from all batches."""
    corpora = {name: Corpus() for name in SYSTEMS}
    seconds = dict.fromkeys(SYSTEMS, 0.0)
    for batch in journal:
        for name, of in corpora.items():
            seconds[name] += batch.seconds[name]
            for metric, rows in batch.statistics[name].items():
                of.statistics[metric] += rows
    return corpora, seconds


def scored(journal: Journal) -> dict[str, Any]:
    """Return quality and time of every system, from all batches done so far.

    Gives ``systems``, each with ``bleu``, ``chrf`` and ``seconds`` (for mbr and oracle: drawing the
    samples and choosing among them), ``signature`` for both metrics, and ``segments``. If several
    processes share the work, only a call after all have ended scores the whole test set.
    """
    corpora, seconds = collect(journal)
    return {
        "systems": {
            name: {**of.scores(), "seconds": seconds[name]} for name, of in corpora.items()
        },
        "signature": {name: signature(name) for name in ("bleu", "chrf")},
        "segments": len(corpora["mbr"].table("bleu")),
    }
