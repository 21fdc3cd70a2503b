"""Slides for two lectures, made from tagged cells of the notebooks: ``python -m docs.slides``.

A cell tagged ``slide`` (metadata ``slideshow.slide_type``, as Jupyter has it) begins a slide, one
tagged ``fragment`` is added to it; of a code cell its output is shown. Each lecture is one page
that holds its figures and loads nothing.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import nbformat
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

from docs.executed import options, outputs
from docs.expected import COMPARED
from docs.rendering import mathml
from docs.stage import ROOT
from labkit.course.run import course
from labkit.errors import LabkitError
from labkit.records import write_whole
from labkit.widgets.base import document


@dataclass(frozen=True)
class Lecture:
    """A lecture: its file's name, its title, and the notebooks that its slides are from."""

    name: str
    title: str
    notebooks: tuple[str, ...]


LECTURES = (
    Lecture(
        "speculative-decoding",
        "Speculative decoding: the same text, sooner",
        ("00", "01", "02", "03", "04", "05", "06", "07", "11", "12"),
    ),
    Lecture(
        "minimum-bayes-risk",
        "Minimum Bayes risk decoding: which text to want",
        ("08", "09", "10", "13"),
    ),
)
SENTENCES = 2
"""Sentences that a slide keeps of a paragraph; the rest is in the notebook."""

STYLE = """
:root { color-scheme: light dark; --back: #fbfbfc; --ink: #1a1f26; --soft: #4a5561;
  --line: #d5dae0; }
@media (prefers-color-scheme: dark) { :root { --back: #0e1116; --ink: #e8ebef; --soft: #aab4c0;
  --line: #333b45; } }
html { scroll-snap-type: y proximity; background: var(--back); color: var(--ink);
  font: clamp(16px, 1.9vw, 30px)/1.4 system-ui, sans-serif; }
body { margin: 0; }
section { box-sizing: border-box; min-height: 100vh; padding: 4vh 6vw; scroll-snap-align: start;
  border-bottom: 1px solid var(--line); break-after: page; }
section > * { max-width: 62ch; }
h1, h2, h3 { line-height: 1.2; margin: 0 0 0.6em; }
footer { color: var(--soft); font-size: 0.6em; }
img { display: block; max-width: min(100%, 88vw); max-height: 54vh; margin: 0.6em 0; }
.picture { background: #fff; border-radius: 8px; }
table { max-width: 88vw; border-collapse: collapse; font-size: 0.75em; margin: 0.6em 0; }
td, th { padding: 0.2em 0.8em 0.2em 0; border-bottom: 1px solid var(--line); }
mtd[columnalign="left"] { text-align: left; }
math { overflow-x: auto; font-family: "STIX Two Math", "Cambria Math", math; }
pre { font-size: 0.6em; overflow-x: auto; }
"""
KEYS = """
addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, PageDown: 1, ArrowLeft: -1, PageUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const slides = [...document.querySelectorAll("section")];
  const here = slides.findLastIndex((slide) => slide.getBoundingClientRect().top <= 2);
  slides[Math.min(slides.length - 1, Math.max(0, here + step))].scrollIntoView();
});
"""


def _math(formula: str, options: Mapping[str, Any]) -> str:
    return mathml(formula.strip(), block=options["display_mode"])


RENDERER = MarkdownIt("commonmark", {"html": True}).enable("table")
RENDERER.use(dollarmath_plugin, renderer=_math)


def write(out: Path, executed: Mapping[str, Any]) -> list[Path]:
    """Write both lectures to the folder ``out``; return the files."""
    return [write_whole(out / f"{one.name}.html", page(one, executed)) for one in LECTURES]


def page(lecture: Lecture, executed: Mapping[str, Any]) -> str:
    """Return a lecture as one page; ``executed`` holds notebooks with outputs by their names."""
    slides = [f"<h1>{html.escape(lecture.title)}</h1><p>Next slide: → or Page Down.</p>"]
    for path in course():
        if path.name[:2] in lecture.notebooks:
            notebook = executed.get(path.name) or nbformat.read(path, as_version=4)
            slides += slides_of(notebook, path)
    body = "\n".join(f"<section>\n{slide}\n</section>" for slide in slides)
    return document(lecture.title, STYLE, f"<main>\n{body}\n</main>\n<script>{KEYS}</script>")


def slides_of(notebook: Any, path: Path) -> Iterator[str]:
    """Yield the slides of a notebook as HTML; a slide that would show nothing is left out."""
    slides: list[str] = []
    for cell in notebook["cells"]:
        kind = cell["metadata"].get("slideshow", {}).get("slide_type")
        if kind == "slide":
            slides.append("")
        if kind:
            markdown = cell["cell_type"] == "markdown"
            slides[-1] += _prose(cell, path) if markdown else _results(cell)
    source = f"<footer>{path.stem}</footer>"
    return (slide + source for slide in slides if slide)


def _prose(cell: Any, path: Path) -> str:
    """Return a Markdown cell as a slide has it: links as words, paragraphs cut, figures inside."""
    text = re.sub(r"(?<!!)\[([^\]]*)\]\([^)]*\)", r"\1", "".join(cell["source"]))
    text = "\n\n".join(_cut(block) for block in re.split(r"\n\s*\n", text))
    made = RENDERER.render(text)
    made = re.sub(r"</?a\b[^>]*>|<details>.*?</details>", "", made, flags=re.DOTALL)
    return re.sub(r'src="([^"]+\.svg)"', lambda found: _inside(path.parent / found[1]), made)


def _cut(block: str) -> str:
    """Keep the first sentences of a paragraph; lists, tables, formulas and figures are kept whole.

    >>> _cut("One. Two. Three."), _cut("* One. Two. Three.")
    ('One. Two.', '* One. Two. Three.')
    """
    if re.match(r"\s*([#|>$<!]|\* |\d+\. |```)", block) or "$$" in block:
        return block
    return " ".join(re.split(r"(?<=[.?!:])\s+(?=[A-Z*`$_])", block)[:SENTENCES])


def _inside(figure: Path) -> str:
    if not figure.is_file():
        raise LabkitError(f"There is no figure {figure}.")
    return f'src="data:image/svg+xml;base64,{base64.b64encode(figure.read_bytes()).decode()}"'


def _results(cell: Any) -> str:
    """Return the pictures, tables and text that a cell gave."""
    return "\n".join(filter(None, map(_result, cell.get("outputs", ()))))


def _result(output: Any) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        words = html.escape(data.get("text/plain", ""), quote=True)
        picture = data["image/png"].strip()
        return f'<img class="picture" alt="{words}" src="data:image/png;base64,{picture}">'
    if found := COMPARED.fullmatch(data.get("text/plain", "")):
        return f"<p><b>{html.escape(found['name'])}:</b> {html.escape(found['value'])}</p>"
    if "text/html" in data:
        return data["text/html"]
    text = data.get("text/plain") or output.get("text", "")
    return f"<pre>{html.escape(text)}</pre>" if text else ""


@click.command()
@click.option(
    "--out",
    default=ROOT / "build" / "slides",
    show_default="build/slides",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the slides.",
)
@options
def main(out: Path, execute: bool, base: str) -> None:
    """Write the slides of both lectures, one HTML file each; they need no network."""
    try:
        for path in write(out, outputs(base) if execute else {}):
            click.echo(path)
    except LabkitError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main()
