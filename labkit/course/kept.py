"""What the notebooks show: sentences, tables, and predictions compared with the measurement.

A reader who has made a prediction looks at the result. A notebook asks with `predict`, whose
``...`` the reader replaces, and answers with `compare`. Predictions are kept in
``predictions.json`` next to the notebook, so that they outlive the kernel.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType

from pydantic import BaseModel, Field, ValidationError

from labkit.errors import LabkitError
from labkit.records.base import RecordError, write_whole

Value = bool | int | float | str
"""What can be predicted: a number, a word, or True or False."""

DRIVE = Path("/content/drive/MyDrive")
"""Google Drive on Colab, where it is mounted: files there outlive the session."""


def predictions_file(drive: Path = DRIVE) -> Path:
    """Return where predictions are kept: in Drive where it is mounted, else in this folder."""
    name = "predictions.json"
    return drive / f"labkit-{name}" if drive.is_dir() else Path(name)


FILE = predictions_file()
"""The file of predictions, next to the notebook, which is its kernel's folder."""

CLOSE = 0.1
"""A prediction within this share of the measured number counts as close."""


LEFT = "style='text-align:left;vertical-align:top'"
"""Notebooks align tables right; words read better aligned left."""


@dataclass(frozen=True)
class Shown:
    """A cell's output: as HTML, and as text for other places."""

    text: str
    markup: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.markup


def note(text: str) -> Shown:
    """Return a sentence for the page."""
    return Shown(text, f"<p>{html.escape(text)}</p>")


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> Shown:
    """Return a table: floats to three places, line breaks as ↵, everything else as it is.

    >>> table(("word", "p"), [("sun", 0.25), ("rain", 0.75)])
    word  p
    sun   0.250
    rain  0.750
    """
    cells = [[_cell(value) for value in row] for row in rows]
    lines = [headings, *cells]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
    head = "".join(f"<th {LEFT}>{html.escape(heading)}</th>" for heading in headings)
    body = "".join(
        "<tr>" + "".join(f"<td {LEFT}>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in cells
    )
    return Shown(text, f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value).replace("\n", "↵ ")


class Prediction(BaseModel, extra="forbid"):
    """A guess made before the result was known, the result, and a guess made after it."""

    guess: Value | None = None
    measured: Value | None = None
    unit: str = ""
    revised: Value | None = None


class Predictions(BaseModel, extra="forbid"):
    """All predictions by name, in the order of their first use."""

    version: int = 1
    by_name: dict[str, Prediction] = Field(default_factory=dict)


def predict(name: str, guess: Value | EllipsisType = ...) -> Shown:
    """Keep your prediction, before you know the result: a number, a word, True or False.

    Left as ``...``, nothing is kept and the page asks again. A guess made once the result is known
    is kept beside the first one. Raises `LabkitError` for anything else than such a value, and
    where the folder cannot be written.
    """
    kept = _read()
    entry = kept.by_name.setdefault(name, Prediction())
    if isinstance(guess, EllipsisType):
        if entry.guess is None:
            return note(f"Your turn: put your prediction of “{name}” in place of the ... above.")
        return note(f"You have predicted “{name}”: {_words(entry.guess, entry.unit)}.")
    if not isinstance(guess, Value):
        raise LabkitError(
            f"The prediction of {name!r} is a {type(guess).__name__}: give a number, a word in "
            "quotes, True or False."
        )
    if entry.measured is None:
        entry.guess = guess
    elif guess != entry.guess:
        entry.revised = guess
    _write(kept)
    after = "" if entry.measured is None else " The result was known by then."
    return note(f"Kept: “{name}” will be {_words(guess)}.{after}")


def compare(name: str, measured: Value, unit: str = "") -> Shown:
    """Compare the prediction of that name with the result; ``unit`` follows numbers."""
    kept = _read()
    entry = kept.by_name.setdefault(name, Prediction())
    entry.measured, entry.unit = _plain(measured), unit
    if entry.guess is not None:
        _write(kept)
    return _comparison(name, entry)


def predictions() -> Shown:
    """Show every prediction so far next to its result."""
    said = {n: entry for n, entry in _read().by_name.items() if entry.guess is not None}
    if not said:
        return note("No prediction is kept yet: each ... in a predict cell is a place for one.")
    return table(
        ("what", "you said", "it was", ""),
        [
            (name, _words(e.guess, e.unit), _words(e.measured, e.unit), _judgement(e))
            for name, e in said.items()
        ],
    )


def _plain(value: object) -> Value:
    """Return the value as plain Python, also if it is of numpy or torch."""
    item = getattr(value, "item", None)
    return item() if callable(item) else value  # type: ignore[return-value]


def _number(value: Value | None) -> float | None:
    """Return the value as a number, or None for a word, True or False."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return None


def _words(value: Value | None, unit: str = "") -> str:
    """Return a value for a reader: three significant digits, yes and no for True and False.

    >>> _words(0.61803), _words(1234), _words(True), _words(2, "×")
    ('0.618', '1234', 'yes', '2 ×')
    """
    if value is None:
        return "not known yet"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        value = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{value} {unit}".strip()


def _judgement(entry: Prediction) -> str:
    """Judge the prediction in words; empty if there is nothing to judge."""
    if entry.guess is None or entry.measured is None:
        return ""
    guess, measured = _number(entry.guess), _number(entry.measured)
    if guess is None or measured is None:
        said, came = (str(v).strip().casefold() for v in (entry.guess, entry.measured))
        return "as you said" if said == came else "not as you said"
    if guess == measured:
        return "just so"
    if abs(guess - measured) <= CLOSE * abs(measured):
        return "close"
    return "less than you said" if measured < guess else "more than you said"


def _comparison(name: str, entry: Prediction) -> Shown:
    """Show one prediction and its result, numbers as bars of one scale."""
    if entry.guess is None:
        came = _words(entry.measured, entry.unit)
        return note(f"{name}: {came}. (You made no prediction here.)")
    lines = {"you said": entry.guess, "it was": entry.measured}
    if entry.revised is not None:
        lines["later you said"] = entry.revised
    lengths = [_number(value) for value in lines.values()]
    most = max((n for n in lengths if n is not None), default=0.0)
    drawn = most > 0 and all(n is not None and n >= 0 for n in lengths)
    verdict, said, rows = _judgement(entry), [], ""
    for (who, value), length in zip(lines.items(), lengths, strict=True):
        words, bar = _words(value, entry.unit), ""
        said.append(f"{who} {words}")
        if drawn:
            width = max(2, round(240 * (length or 0) / most))
            colour = "#1b779f" if who == "it was" else "#7f8794"
            style = f"width:{width}px;height:10px;border-radius:2px;background:{colour}"
            bar = f"<td style='text-align:left;min-width:250px'><div style='{style}'></div></td>"
        rows += f"<tr><td {LEFT}>{who}</td>{bar}<td {LEFT}>{html.escape(words)}</td></tr>"
    return Shown(
        f"{name}: {'; '.join(said)}: {verdict}.",
        f"<p><b>{html.escape(name)}</b>: {verdict}</p><table><tbody>{rows}</tbody></table>",
    )


def _read() -> Predictions:
    """Read what is kept; raise `LabkitError` if the file is damaged."""
    try:
        return Predictions.model_validate_json(FILE.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Predictions()
    except (OSError, UnicodeDecodeError) as error:
        raise LabkitError(f"The predictions in {FILE} cannot be read: {error}.") from None
    except ValidationError:
        says = f"The predictions in {FILE} are damaged: delete that file to begin anew."
        raise LabkitError(says) from None


def _write(kept: Predictions) -> None:
    try:
        write_whole(FILE, kept.model_dump_json(indent=1) + "\n")
    except RecordError as error:
        raise LabkitError(f"{error} Predictions are kept beside the notebook.") from None
