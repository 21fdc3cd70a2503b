"""The Playground and every widget as a static site: plain files, without a kernel."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.errors import LabkitError
from labkit.paths import data_dir, find_chromium, plain_heads
from labkit.records import write_whole
from labkit.widgets import LossCurves, Race, RiskMatrix, ServingCurves, TokenStepper, TreeLab
from labkit.widgets.base import PAGE_STYLE, RecordWidget, document, fragment
from labkit.widgets.playground import page as playground_page


@dataclass(frozen=True)
class Exhibit:
    """One widget of the gallery: its page's name, what it shows, the Python that makes it."""

    name: str
    title: str
    text: str
    python: str
    make: Callable[[Path], RecordWidget]
    pose: dict[str, Any] = field(default_factory=dict)
    """The traits for its picture."""


EXHIBITS = (
    Exhibit(
        "race",
        "Race",
        "One model, one prompt, the same text: plainly and with trained heads, each replayed in "
        "its measured time. Colours say which head drafted a token; the bar below says where the "
        "time went.",
        "Race(*Decoder('real').race(prompt, 96).traces)",
        lambda data: Race(*(data / "records" / f"race-{m}.json" for m in ("vanilla", "mlp"))),
        {"time": 1.2},
    ),
    Exhibit(
        "token-stepper",
        "TokenStepper",
        "A sampled generation, one step at a time: the tree of drafts, p and q of every node, the "
        "number drawn, the test passed or failed, and what replaced a rejected token.",
        "TokenStepper(Decoder('real').trace(prompt, 64, 'mlp', Sampling(temperature=0.7)))",
        lambda data: TokenStepper(data / "records" / "trace-sampled.json"),
        {"step": 12},
    ),
    Exhibit(
        "tree-lab",
        "TreeLab",
        "Build a candidate tree by hand, or take the optimiser's: expected tokens per step from "
        "measured acceptance, speedup from measured costs, and the attention mask that lets one "
        "pass check all of it.",
        "TreeLab('data/records/tree.json')",
        lambda data: TreeLab(data / "records" / "tree.json"),
    ),
    Exhibit(
        "loss-curves",
        "LossCurves",
        "The loss and the acceptance of every head through both phases of training: ordinary text "
        "first, then the base model's own answers, where the curves fall again.",
        "LossCurves(plain_heads('real') / 'losslog.json')",
        lambda _data: LossCurves(plain_heads("real") / "losslog.json"),
    ),
    Exhibit(
        "serving-curves",
        "ServingCurves",
        "Time to first token and time per token against the number of users at once, with and "
        "without a speculator: the gain is large for few users and shrinks as the machine fills.",
        "ServingCurves('data/records/serving.json')",
        lambda data: ServingCurves(data / "records" / "serving.json"),
    ),
    Exhibit(
        "risk-matrix",
        "RiskMatrix",
        "Translations of one sentence against each other: the loss of every pair, the weight of "
        "each sample, the risk of each hypothesis, and the one to choose. Switch the loss, the "
        "weights and the evidence, and see the decision move.",
        "RiskMatrix(decode(samples, utility='chrf'))",
        lambda data: RiskMatrix(data / "records" / "risk.json"),
    ),
)

PLAYGROUND = "playground/index.html"
"""The page that computes, in the gallery's folder."""

CARDS = """
pre { overflow-x: auto; padding: 10px 12px; border: 1px solid var(--line); border-radius: 6px; }
nav, footer { color: var(--soft); margin: 0 0 16px; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 16px;
  padding: 0; list-style: none; }
.cards li { border: 1px solid var(--line); border-radius: 8px; padding: 12px 16px; }
.cards h2 { margin: 0 0 6px; font-size: 1.15rem; }
.cards p { margin: 0; }
"""


def build(folder: Path) -> list[Path]:
    """Write an index, the Playground, and a page for each widget to ``folder``; return the files.

    Raises `LabkitError` where a shipped record is missing or the disk refuses.
    """
    pages = {}
    for exhibit in EXHIBITS:
        widget = exhibit.make(data_dir())
        if widget.problem:
            raise LabkitError(f"The gallery's {exhibit.title} cannot be shown: {widget.problem}")
        pages[f"{exhibit.name}.html"] = _exhibit_page(exhibit, widget)
    pages |= {PLAYGROUND: playground(), "index.html": _index()}
    return [write_whole(folder / name, page) for name, page in pages.items()]


def playground() -> str:
    """Return the Playground's page: the `tiny` model and its heads, computed in the browser."""
    data = data_dir()
    try:
        return playground_page(data / "models" / "tiny", data / "heads" / "tiny")
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}" if error.filename else error
        raise LabkitError(f"The Playground cannot be built: {reason}.") from None


def _exhibit_page(exhibit: Exhibit, widget: RecordWidget) -> str:
    here = EXHIBITS.index(exhibit)
    links = " · ".join(
        f'<a href="{e.name}.html">{e.title}</a>'
        for e in (EXHIBITS[here - 1], EXHIBITS[(here + 1) % len(EXHIBITS)])
    )
    return document(
        f"{exhibit.title} · labkit",
        PAGE_STYLE + CARDS,
        f"""<nav aria-label="Gallery"><a href="index.html">All six</a> ·
{links}</nav>
<main>
<h1>{exhibit.title}</h1>
<p>{html.escape(exhibit.text)}</p>
{fragment(widget)}
<h2>In Python</h2>
<pre tabindex="0"><code>{html.escape(exhibit.python)}</code></pre>
{_made(widget)}
</main>""",
    )


def _made(widget: RecordWidget) -> str:
    """Return how the record was made, if it says so."""
    found = widget.record.provenance
    if found is None:
        return ""
    note = f" ({html.escape(found.note)})" if found.note else ""
    return (
        f"<footer><p>Recorded by <code>{html.escape(found.command)}</code> on "
        f"{html.escape(found.machine)}, {html.escape(found.date)}{note}.</p></footer>"
    )


def _index() -> str:
    cards = "\n".join(
        f'<li><h2><a href="{e.name}.html">{e.title}</a></h2><p>{html.escape(e.text)}</p></li>'
        for e in EXHIBITS
    )
    return document(
        "labkit: six pictures of decoding",
        PAGE_STYLE + CARDS,
        f"""<main>
<h1>Six pictures of decoding</h1>
<p><a href="{PLAYGROUND}"><strong>Playground</strong></a>: type a prompt of your own and watch a
small model decode it, in the page itself.</p>
<p>Each other page is a live widget over a record of what a real model did; nothing is loaded from
elsewhere, and no kernel runs.</p>
<ul class="cards">
{cards}
</ul>
</main>""",
    )


def take_pictures(site: Path, folder: Path, width: int = 1000) -> list[Path]:
    """Take a picture of every page's widget, in the light theme, into ``folder`` as PNG.

    Raises `LabkitError` where playwright (of the ``dev`` extra) or a Chromium is missing.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        raise LabkitError("Pictures need playwright: install labkit with its dev extra.") from None
    folder.mkdir(parents=True, exist_ok=True)
    found = find_chromium()
    paths = []
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": width, "height": 800})
            for exhibit in EXHIBITS:
                page.goto((site / f"{exhibit.name}.html").resolve().as_uri())
                _pose(page, exhibit)
                path = folder / f"{exhibit.name}.png"
                page.locator(".labkit").first.screenshot(path=path)
                paths.append(path)
            browser.close()
    except Error as error:
        raise LabkitError(f"No picture could be taken: {error.message.splitlines()[0]}") from None
    return paths


def _pose(page: Any, exhibit: Exhibit) -> None:
    """Set a widget to the state of its picture, and wait until it is drawn."""
    if exhibit.pose:
        page.evaluate(
            "pose => { const place = document.querySelector('[id^=labkit-]');"
            " for (const [name, value] of Object.entries(pose)) place.model.set(name, value);"
            " place.model.save_changes(); }",
            exhibit.pose,
        )
    page.wait_for_timeout(600)
