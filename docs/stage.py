"""The pages that Sphinx reads, put together from what the project has: nothing is written twice.

Pages are texts by their path; `pages` makes all of them and `write` brings a folder to that state.
"""

from __future__ import annotations

import ast
import copy
import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from docs import study
from labkit.course.run import WIDGET, course
from labkit.errors import LabkitError
from labkit.facade import HOMES
from labkit.gallery import EXHIBITS, Exhibit
from labkit.paths import data_dir
from labkit.records import Provenance, StorageStudy
from labkit.widgets.base import fragment

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "labkit"

Pages = dict[str, str | bytes]


def pages(executed: Mapping[str, Any] | None = None) -> Pages:
    """Every page and every file that one links to, by its path in the site's sources.

    ``executed`` holds notebooks with outputs by their names; the others are shown without.
    """
    made: Pages = {}
    for part in (own_pages(), course_pages(executed or {}), gallery_pages(), api_pages()):
        made.update(part)
    made["commands.md"] = commands_page()
    return made


def write(folder: Path, made: Pages) -> None:
    """Bring ``folder`` to hold these pages and nothing else; what has not changed is left alone."""
    for old in sorted(folder.rglob("*"), reverse=True):
        if old.is_dir():
            if not any(old.iterdir()):
                old.rmdir()
        elif old.relative_to(folder).as_posix() not in made:
            old.unlink()
    for name, text in made.items():
        path, data = folder / name, text if isinstance(text, bytes) else text.encode()
        if not path.is_file() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


# ------------------------------------------------------------------------------------------ links


def destination(target: Path) -> str:
    """Where in the site's sources a file or folder of the project is shown."""
    path = target.relative_to(ROOT)
    name = path.as_posix()
    if name == "README.md":
        return "architecture.md"
    if path.parts[:2] == ("notebooks", "assignments"):
        return "assignments.md"
    if path.parts[0] == "notebooks":
        inside = path.relative_to("notebooks").as_posix()
        return f"course/{inside}" if path.suffix else "course/index.md"
    if path.parts[0] == "docs":
        return path.name
    if target in modules():
        return f"api/{'.'.join(path.with_suffix('').parts[:2])}.html#{dotted(target)}"
    return f"files/{name}" + ("/README.md.txt" if target.is_dir() else "")


def relinked(text: str, home: Path, page: str) -> tuple[str, Pages]:
    """Markdown of a file in the folder ``home``, its links leading where ``page`` must lead.

    The pages returned are the files that are no page of their own and have to come along. Raises
    `LabkitError` where a link leads nowhere.
    """
    along: Pages = {}

    def lead(match: re.Match[str]) -> str:
        before, target, anchor, after = match.groups()
        if re.match(r"[a-z]+:", target) or not target:
            return match[0]
        file = (home / target).resolve()
        if not file.exists() or not file.is_relative_to(ROOT):
            raise LabkitError(f"{page}: the link to {target} leads nowhere.")
        goal = destination(file)
        inside = before.startswith("href")  # of HTML, which Sphinx leaves as it is
        if goal.startswith("api/"):
            room, _, name = goal.partition("#")
            link = f"{_from(page, room)}#module-{name}" if inside else f"#{name}"
            return f"{before}{link}{after}"
        if goal.startswith(("files/", "course/figures/")):
            along[goal] = (file / "README.md" if file.is_dir() else file).read_bytes()
        elif inside:
            goal = posixpath.splitext(goal)[0] + ".html"
        return f"{before}{_from(page, goal)}{anchor}{after}"

    return re.sub(r'(\]\(|href=")([^)"#\s]*)((?:#[^)"\s]*)?)([)"])', lead, text), along


def _from(page: str, goal: str) -> str:
    """The way from one page to another."""
    return posixpath.relpath(goal, posixpath.dirname(page) or ".")


# ------------------------------------------------------------------------------- our own pages


def own_pages() -> Pages:
    """The pages written for the site, and README's picture of how it is built."""
    made: Pages = {}
    for path in sorted((ROOT / "docs").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if path.name == "teaching.md":
            text = with_minutes(text)
        made[path.name], along = relinked(text, path.parent, path.name)
        made.update(along)
    record = StorageStudy.load(data_dir() / "records" / study.NAME)
    made["study.md"] = study.filled(str(made["study.md"]), record, _recorded(record.provenance))
    made.update(study.pictures(record))
    built = section((ROOT / "README.md").read_text(encoding="utf-8"), "How it is built")
    made["architecture.md"], along = relinked(f"# {built[3:]}", ROOT, "architecture.md")
    made["assignments.md"] = f"{made['assignments.md']}\n{assignments(made)}"
    race = next(exhibit for exhibit in EXHIBITS if exhibit.name == "race")
    made["race.part"] = _live(race, "front")
    return made | along


def section(text: str, title: str) -> str:
    r"""The section of a Markdown text under the heading ``## title``, heading included.

    >>> section("# A\n## B\nb\n### C\n## D\n", "B")
    '## B\nb\n### C\n'
    """
    found = re.search(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    if not found:
        raise LabkitError(f"There is no section {title!r}.")
    return found[0]


def assignments(made: Pages) -> str:
    """What each assignment asks for, in its own opening words; no solution comes along."""
    parts = []
    for path in sorted((ROOT / "notebooks" / "assignments").glob("*/*.ipynb")):
        text, along = relinked(opening(path), path.parent, "assignments.md")
        made.update(along)
        parts.append(re.sub(r"^#", "##", text, flags=re.MULTILINE))
    return "\n\n".join(parts) + "\n"


# --------------------------------------------------------------------------------- the course


def opening(path: Path) -> str:
    """The first cell of a notebook: its title, what one learns, needs and spends."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return "".join(notebook["cells"][0]["source"])


def says(path: Path, what: str) -> str:
    """What the opening cell's table says under ``what``; `LabkitError` where it says nothing."""
    found = re.search(rf"^\| \*\*{re.escape(what)}\*\* \| (.*?) \|$", opening(path), re.MULTILINE)
    if not found:
        raise LabkitError(f"{path.name}: the opening cell has no row {what!r}.")
    return found[1]


def minutes(path: Path) -> int:
    """How long a notebook takes without its exercises, as its opening cell says."""
    found = re.match(r"about (\d+) minutes, and \d+ more", says(path, "It takes"))
    if not found:
        raise LabkitError(f"{path.name}: the opening cell does not say how many minutes it takes.")
    return int(found[1])


def with_minutes(text: str) -> str:
    """The teacher's page with each notebook's minutes behind its link in the tables of plans."""

    def timed(line: str) -> str:
        return re.sub(
            r"\[[^]]*\]\(\.\./notebooks/(\w+\.ipynb)\)",
            lambda link: f"{link[0]} ({minutes(ROOT / 'notebooks' / link[1])} min)",
            line,
        )

    lines, plan = [], False
    for line in text.splitlines():
        plan = ("hours" in line) if line.startswith("#") else plan
        lines.append(timed(line) if plan and line.startswith("|") else line)
    return "\n".join(lines) + "\n"


def course_pages(executed: Mapping[str, Any]) -> Pages:
    """Each notebook as a page, and a page that lists them."""
    made: Pages = {}
    for path in course():
        page = f"course/{path.name}"
        notebook = executed.get(path.name) or json.loads(path.read_text(encoding="utf-8"))
        made[page], along = notebook_page(notebook, path, page)
        made[f"files/notebooks/{path.name}"] = path.read_bytes()
        made.update(along)
    listed, along = relinked(course_index(), ROOT / "notebooks", "course/index.md")
    made.update(along | {"course/index.md": listed})
    return made


def notebook_page(notebook: Any, path: Path, page: str) -> tuple[str, Pages]:
    """A notebook for the site: links lead on, and widgets are pictures or lead to the gallery."""
    cells, along = [], {}
    for cell in copy.deepcopy(notebook["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            cell["source"], more = relinked(source, path.parent, page)
            along.update(more)
        cells.append(cell)
        if cell["cell_type"] == "code":
            cells += _shown(cell, source)
    base = notebook["metadata"].get("base")
    cells.insert(1, _text("site-note", _how_to_run(path.name, base)))
    metadata = {"kernelspec": notebook["metadata"]["kernelspec"]}
    metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    made = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n", along


def _shown(cell: Any, source: str) -> list[Any]:
    """What is below a code cell besides its outputs: where its widget is live."""
    for output in cell["outputs"]:
        output.get("data", {}).pop(WIDGET, None)
    last = (source.splitlines() or [""])[-1]
    what = "This is a picture of" if cell["outputs"] else "Here the notebook shows"
    return [
        _text(
            f"{cell['id']}-live",
            f"*{what} a live widget,* [{exhibit.title}](../gallery/{exhibit.name}.md); "
            "*the link leads to one that works on this site, over a recording.*",
        )
        for exhibit in EXHIBITS
        if last.startswith(f"{exhibit.title}(")
    ]


def _text(name: str, text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": text}


def _how_to_run(name: str, base: str | None) -> str:
    toy = ", a toy whose texts make little sense" if base == "tiny" else ""
    how = (
        f"Below each cell is what it gave on the model `{base}`{toy}. Press *Hide results* to "
        "predict first."
        if base
        else "Here it is shown without outputs."
    )
    return (
        "```{note}\n"
        f"This page is a notebook to be worked through: `make lab` opens the course. {how}\n"
        f"{{download}}`Download it <../files/notebooks/{name}>`.\n```"
    )


def course_index() -> str:
    """The page that lists the course: what one can do afterwards, and how long it takes."""
    paths = course()
    rows = [
        f"| [{path.name[:2]} {title(path)}]({path.name}) "
        f"| {says(path, 'Afterwards you can')} | {minutes(path)} |"
        for path in paths
    ]
    hours = sum(map(minutes, paths)) / 60
    names = "\n".join(f"{path.name[:2]} {title(path)} <{path.stem}>" for path in paths)
    return f"""# The course

In reading order, about {hours:.0f} hours together without the exercises. Each notebook asks a
question, has you predict the answer, and then lets you find out; each ends with exercises, and the
checks know the common mistakes.

| notebook | afterwards you can | minutes |
| :-- | :-- | --: |
{chr(10).join(rows)}

```{{toctree}}
:hidden:

{names}
```
"""


def title(path: Path) -> str:
    """The short title of a notebook: what stands before the colon of its heading."""
    return opening(path).splitlines()[0].removeprefix("# ").split(":")[0]


# -------------------------------------------------------------------------------- the gallery


def gallery_pages() -> Pages:
    """A page for each widget, live over a shipped record, and a page that shows them all."""
    made: Pages = {}
    for exhibit in EXHIBITS:
        made[f"gallery/{exhibit.name}.md"] = _exhibit_page(exhibit)
        made[f"gallery/{exhibit.name}.part"] = _live(exhibit, exhibit.name)
        picture = f"{exhibit.name}.png"
        made[f"gallery/{picture}"] = (data_dir() / "pictures" / picture).read_bytes()
    made["gallery/index.md"] = _gallery_index()
    return made


def _live(exhibit: Exhibit, place: str) -> str:
    """The widget as HTML; the name of its place is the same in every build."""
    widget = exhibit.make(data_dir())
    if widget.problem:
        raise LabkitError(f"The gallery's {exhibit.title} cannot be shown: {widget.problem}")
    live = re.sub(r"labkit-[0-9a-f]{10}", f"labkit-{place}", fragment(widget))
    return f'<div class="live">\n{live}\n</div>\n'


def _exhibit_page(exhibit: Exhibit) -> str:
    record = exhibit.make(data_dir()).record
    return f"""# {exhibit.title}

{exhibit.text}

```{{raw}} html
:file: {exhibit.name}.part
```

## In Python

```python
{exhibit.python}
```

{_recorded(record.provenance)}
"""


def _recorded(made: Provenance | None) -> str:
    """How a record came to be, where it says so."""
    if made is None:
        return ""
    note = f" ({made.note})" if made.note else ""
    return f"Recorded by `{made.command}` on {made.machine}, {made.date}{note}."


def _gallery_index() -> str:
    cards = "\n".join(
        f"""## [{exhibit.title}]({exhibit.name}.md)

[![{exhibit.title}]({exhibit.name}.png)]({exhibit.name}.md)

{exhibit.text}
"""
        for exhibit in EXHIBITS
    )
    names = "\n".join(f"{exhibit.title} <{exhibit.name}>" for exhibit in EXHIBITS)
    return f"""# Gallery

<a href='playground/index.html'><strong>Playground</strong></a>: type a prompt of your own and watch
a small model decode it, in the page itself.

Six pictures of decoding, each live over a record of what a real model did. They work on these
pages as they do in a notebook, and no kernel runs.

{cards}
```{{toctree}}
:hidden:

{names}
```
"""


# ------------------------------------------------------------------- the rooms and the commands


def modules() -> list[Path]:
    """Every public file or folder of the package, in alphabetical order."""
    files = [*PACKAGE.rglob("*.py"), *(path.parent for path in PACKAGE.glob("*/**/__init__.py"))]

    def public(path: Path) -> bool:
        parts = path.relative_to(PACKAGE).parts
        return "cli" not in parts and not any(part.startswith("_") for part in parts)

    return sorted(filter(public, files))


def dotted(path: Path) -> str:
    """The name by which Python imports a file or folder of the package."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def api_pages() -> Pages:
    """A page for each room, with a section for each module, and a page that lists the rooms."""
    paths = modules()
    rooms = [path for path in paths if path.parent == PACKAGE]
    made: Pages = {"api/index.rst": _api_index(rooms)}
    for room in rooms:
        below = [path for path in paths if room in path.parents]
        parts = [_section(room, "="), *(_section(path, "-") for path in below)]
        made[f"api/{dotted(room)}.rst"] = "\n".join(parts)
    return made


def _section(path: Path, underline: str) -> str:
    name = dotted(path)
    return f"{name}\n{underline * len(name)}\n\n.. automodule:: {name}\n"


def summary(path: Path) -> str:
    """The first paragraph of a module's docstring."""
    file = path / "__init__.py" if path.is_dir() else path
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("::", ".")


def _api_index(rooms: list[Path]) -> str:
    names = "\n".join(
        f"* `{name} <{home}.{name}>`" for name, home in sorted(HOMES["labkit"].items())
    )
    what = "\n".join(f"* :py:mod:`{dotted(room)}`: {summary(room)}" for room in rooms)
    listed = "\n".join(f"   {dotted(room)}" for room in rooms)
    return f"""Python
======

What ``from labkit import ...`` gives:

{names}

The rooms, each with what happens there; :doc:`/architecture` says which may use which.

{what}

.. toctree::
   :hidden:

{listed}
"""


def commands_page() -> str:
    """What every command says to ``--help``."""
    from labkit.cli import main

    parts = [
        f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"
        for context, command in _commands(click.Context(main, info_name="labkit"), main)
    ]
    head = "# Command line\n\nEvery command takes `--json` and then prints exactly one JSON object."
    return "\n\n".join([head, *parts])


def _commands(context: click.Context, command: Any) -> Iterator[tuple[click.Context, Any]]:
    if not hasattr(command, "list_commands"):
        yield context, command
        return
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        yield from _commands(
            click.Context(below, context, info_name=name, max_content_width=88), below
        )
