"""How quickly two widgets answer in headless Chromium: ``python -m tests.browser.speed``.

RiskMatrix at 256 x 256 changes its weighting, TokenStepper moves through 500 steps. A time is from
the event to the moment after the frame that shows it was drawn, so it includes waiting for that
frame, up to a sixtieth of a second.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest has it

from widgets.made import risk_table
from widgets.traces import make_trace

from labkit.paths import find_chromium
from labkit.records import RiskTable, Sample
from labkit.widgets import RiskMatrix, TokenStepper
from labkit.widgets.base import RecordWidget
from labkit.widgets.base import page as page_of

PAINTED = """
async (act) => {
  const model = document.querySelector('[id^=labkit-]').model;
  const began = performance.now();
  act(model);
  const busy = performance.now() - began;
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return [busy, performance.now() - began];
}
"""
"""Milliseconds that the page was busy answering, and until the answer was painted."""

WEIGHTINGS = ("counts", "model", "unique", "uniform")


def large_table(size: int = 256) -> RiskTable:
    """A table of ``size`` hypotheses and as many samples, all different."""
    small = risk_table()
    texts = tuple(
        Sample(text=f"{number} {words}", count=1, logprob=-0.05 * number - 3.0, tokens=9)
        for number, words in enumerate(
            small.hypotheses[n % len(small.hypotheses)].text for n in range(size)
        )
    )
    loss = tuple(tuple(abs(i - j) / size for j in range(size)) for i in range(size))
    risk = tuple(sum(row) / size for row in loss)
    update = {
        "hypotheses": texts,
        "evidence": texts,
        "loss": loss,
        "weights": (1 / size,) * size,
        "risk": risk,
        "best": risk.index(min(risk)),
    }
    return RiskTable.model_validate({**small.model_dump(), **update})


def opened(page: Page, widget: RecordWidget, folder: Path) -> None:
    """Show one widget, drawn."""
    file = folder / "page.html"
    file.write_text(page_of([widget], "Speed"), encoding="utf-8")
    page.goto(file.as_uri())
    page.wait_for_selector(".labkit")
    page.wait_for_timeout(1500)


def measured(page: Page, acts: Sequence[str]) -> list[tuple[float, float]]:
    """Milliseconds (busy, painted) of each act, a statement about ``model``."""
    return [page.evaluate(f"({PAINTED})((model) => {{ {act} }})") for act in acts]


def told(name: str, times: list[tuple[float, float]]) -> dict[str, object]:
    """The spread of some times, as JSON has it."""
    busy, painted = (sorted(part) for part in zip(*times, strict=True))
    return {
        "what": name,
        "times": len(times),
        "busy_ms": {"median": statistics.median(busy), "max": busy[-1]},
        "painted_ms": {
            "median": statistics.median(painted),
            "p99": painted[int(0.99 * (len(painted) - 1))],
            "max": painted[-1],
        },
        "painted_over_50_ms": sum(time > 50 for time in painted),
    }


def main() -> None:
    """Print one JSON object for each widget."""
    path = find_chromium()
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        opened(page, RiskMatrix(large_table()), Path(folder))
        acts = [
            f"model.set('weighting', '{name}'); model.save_changes()" for name in WEIGHTINGS * 5
        ]
        print(json.dumps(told("RiskMatrix 256 x 256, weighting", measured(page, acts)[2:])))
        for name, trace in (
            ("chain", make_trace(steps=500)),
            ("tree", make_trace(steps=500, widths=(3, 2, 1))),
        ):
            opened(page, TokenStepper(trace), Path(folder))
            acts = [f"model.set('step', {step}); model.save_changes()" for step in range(1, 500)]
            print(json.dumps(told(f"TokenStepper, {name}, 500 steps", measured(page, acts))))
        browser.close()


if __name__ == "__main__":
    main()
