"""The base of every widget: a record in, its JSON to the page, a picture as a fallback.

Also a plain page of widgets: no kernel, no server, nothing loaded from elsewhere.
"""

from __future__ import annotations

import base64
import html
import io
import json
import os
import re
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import traitlets

from labkit.records import Record, RecordError

Table = tuple[Sequence[str], Sequence[Sequence[object]]]
"""Headings, then rows of cells."""
HERE = Path(__file__).parent
PAGE_STYLE = (HERE / "shared" / "page.css").read_text(encoding="utf-8")
"""The look of a page around widgets, light or dark as the reader's system is."""
FOLD_BEYOND = 16
"""A fallback table with more rows is folded away."""

_IMPORT = re.compile(r'^import (\w+|\{[^}]*\}) from "(\.{1,2}/[^"]+)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function\*?|class|const|let) (\w+))", re.MULTILINE)


def script(folder: str) -> str:
    """Return the one ES module of the widget in ``folder``: its widget.js and all that it imports.

    A widget's module cannot import its neighbours once a notebook has loaded it, so every file
    becomes a function that returns what the file exports.
    """
    return f"{bundle(HERE / folder / 'widget.js')}\nexport default {folder}_widget.default;\n"


def bundle(path: Path) -> str:
    """Return the module at ``path`` and those it imports as plain statements, imports first."""
    modules: dict[str, str] = {}
    _add(path, modules)
    return "\n".join(modules.values())


def _add(path: Path, modules: dict[str, str]) -> str:
    """Add a module behind those that it imports; return its name: its path as an identifier."""
    name = re.sub(r"\W", "_", path.resolve().relative_to(HERE).with_suffix("").as_posix())
    if name in modules:
        return name

    def taken(line: re.Match[str]) -> str:
        names = line[1].replace(" as ", ": ") if line[1][0] == "{" else f"{{ default: {line[1]} }}"
        return f"const {names} = {_add(path.parent / line[2], modules)};\n"

    text = _IMPORT.sub(taken, path.read_text(encoding="utf-8"))
    given = _EXPORT.findall(text)
    text = _EXPORT.sub("", text)
    if "\nexport default " in text:
        text = text.replace("\nexport default ", "\nconst $view = ")
        given.append("default: $view")
    modules[name] = f"const {name} = (() => {{\n{text}return {{ {', '.join(given)} }};\n}})();"
    return name


def style(folder: str, *others: str) -> str:
    """Return the widget's one stylesheet: the shared one, ``others`` by their paths, its own."""
    sheets = ("shared/style.css", *others, f"{folder}/style.css")
    return "\n".join((HERE / sheet).read_text(encoding="utf-8") for sheet in sheets)


class RecordWidget(anywidget.AnyWidget):
    """A widget that shows records of one kind, and nothing else.

    It takes a record, the JSON text of one, or a path to one. For anything else (a record of
    another kind or version, a damaged file) the widget shows one sentence, also in ``problem``. A
    subclass sets ``READS`` and ``MOST``, ``_esm = script("folder")``, ``_css = style("folder")``
    and defines what readers without a widget manager see: `figure`, `table` and `summary`.
    """

    READS: ClassVar[type[Record]]
    MOST: ClassVar[int] = 1
    """The largest number of records it shows side by side."""

    records_json = traitlets.Unicode("[]").tag(sync=True)
    problem = traitlets.Unicode("").tag(sync=True)
    _records: tuple[Any, ...] = ()

    def __init__(self, *given: Any, **state: Any) -> None:
        super().__init__()
        self.records = given
        for name in sorted(state, key=lambda name: name == "selected"):  # depends on the others
            if state[name] is not None:  # else what fits the records stays
                self.set_trait(name, state[name])

    @property
    def records(self) -> tuple[Any, ...]:
        """The records on show; set them to show others."""
        return self._records

    @records.setter
    def records(self, given: Iterable[Any]) -> None:
        with self.hold_sync():
            try:
                self._records, self.problem = self._take(tuple(given)), ""
            except RecordError as error:
                self._records, self.problem = (), str(error)
            self.records_json = f"[{','.join(record.to_json() for record in self._records)}]"
            self.fit_state()

    @property
    def record(self) -> Any:
        """The (first) record on show, or None; set it to show another."""
        return self._records[0] if self._records else None

    @record.setter
    def record(self, given: Any) -> None:
        self.records = (given,)

    def fit_state(self) -> None:
        """Adjust the widget's own traits to new records."""

    def figure(self) -> Any:
        """Return the picture shown in place of the widget, from `labkit.plots`."""
        raise NotImplementedError

    def table(self) -> Table:
        """Return the table shown in place of the widget: headings, then rows of cells (as text)."""
        raise NotImplementedError

    def summary(self) -> str:
        """Return the widget's content in one sentence, for readers of plain text."""
        raise NotImplementedError

    def _take(self, given: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the records; raises `RecordError` for none, too many, or what is no record."""
        name, kind = type(self).__name__, self.READS.KIND
        if not given:
            raise RecordError(f"{name} needs a record of kind {kind!r}.")
        if len(given) > self.MOST:
            most = counted(self.MOST, "record")
            raise RecordError(f"{name} shows at most {most}, not {len(given)}.")
        return tuple(read(self.READS, each) for each in given)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the live view, and the picture and table for readers without a widget manager."""
        bundle = super()._repr_mimebundle_(**kwargs)
        assert bundle is not None  # only widgets without a view have none
        data, metadata = bundle
        if self.problem:
            data["text/plain"] = f"{type(self).__name__}: {self.problem}"
            data["text/html"] = f"<p>{html.escape(data['text/plain'])}</p>"
            return data, metadata
        data["text/plain"], data["image/png"] = self.summary(), png(self.figure())
        said = html.escape(self.summary())
        data["text/html"] = (
            f"<figure><img alt='{said}' style='max-width:100%' "
            f"src='data:image/png;base64,{data['image/png']}'><figcaption>{said}</figcaption>"
            f"</figure>{table_html(*self.table())}"
        )
        return data, metadata


def read(kind: type[Record], given: Any) -> Record:
    """Return a record of that kind from itself, its JSON text, or a path; raises `RecordError`."""
    if isinstance(given, kind):
        return given
    if isinstance(given, bytes) or (isinstance(given, str) and given.lstrip()[:1] in ("{", "[")):
        return kind.from_json(given)
    if isinstance(given, str | os.PathLike):
        return kind.load(given)
    what = repr(given.kind) if isinstance(given, Record) else f"Python {type(given).__name__}"
    raise RecordError(f"A record of kind {kind.KIND!r} is needed, this is a {what}.")


def within(name: str, value: float, low: float, high: float) -> Any:
    """Return the value of a trait; raise `TraitError` if it is not from ``low`` to ``high``."""
    if not low <= value <= high:
        raise traitlets.TraitError(f"{name} lies between {low:g} and {high:g} here, not {value}.")
    return value


def counted(number: int, one: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "step"), counted(0, "step")
    ('1 step', '0 steps')
    """
    return f"{number} {one}" if number == 1 else f"{number} {one}s"


def png(figure: Any) -> str:
    """Return the figure as a PNG in base64, reduced to 256 colours: a third of the size."""
    from PIL import Image

    small = io.BytesIO()
    method, dither = Image.Quantize.MAXCOVERAGE, Image.Dither.NONE
    whole = Image.open(io.BytesIO(figure.png(dpi=110))).convert("RGB")
    whole.quantize(256, method=method, dither=dither).save(small, format="png", optimize=True)
    return base64.b64encode(small.getvalue()).decode("ascii")


def table_html(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return an HTML table; every cell is text, whatever a model wrote into it."""
    head = "".join(f"<th scope='col'>{html.escape(str(cell))}</th>" for cell in headings)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    if len(rows) <= FOLD_BEYOND:
        return table
    return f"<details><summary>Table of {len(rows)} rows</summary>{table}</details>"


def inline(value: object) -> str:
    """Return JSON for the inside of a script element: no text in it can close the element."""
    return json.dumps(value).replace("<", "\\u003c")


def inside(code: str) -> str:
    """Return JavaScript for the inside of a script element, a widget's module as ``WIDGET``."""
    return code.replace("export default ", "const WIDGET = ", 1).replace("</script", "<\\/script")


def traits_of(widget: anywidget.AnyWidget) -> dict[str, Any]:
    """Return the traits that a widget shares with its view, by name."""
    state = widget.get_state().items()
    return {name: value for name, value in state if name[0] != "_" and name != "layout"}


def fragment(widget: RecordWidget) -> str:
    """Return HTML in which the widget goes on working from its present state.

    The widget's module is in the page itself, since a page opened from a folder must not import
    files. The element holds the view and its model as ``widget`` and ``model``, for tests.
    """
    place = f"labkit-{uuid.uuid4().hex[:10]}"
    model = (HERE / "shared" / "model.js").read_text(encoding="utf-8")
    return f"""<div id="{place}"></div>
<style>{widget._css}</style>
<script type="module">
{inside(widget._esm)}
{model}
const place = document.getElementById("{place}");
place.widget = WIDGET;
place.model = new PageModel({inline(traits_of(widget))});
WIDGET.render({{ model: place.model, el: place }});
</script>"""


def page(widgets: Iterable[RecordWidget], title: str) -> str:
    """Return a whole HTML page with these widgets, in the reader's own theme."""
    inner = "\n".join(f"<div class='place'>{fragment(widget)}</div>" for widget in widgets)
    heading = html.escape(title)
    return document(heading, PAGE_STYLE, f"<main>\n<h1>{heading}</h1>\n{inner}\n</main>")


def document(title: str, css: str, inner: str) -> str:
    """Return a whole HTML page from its title, its stylesheet and the inside of its body."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{css}</style>
</head>
<body>
{inner}
</body>
</html>
"""
