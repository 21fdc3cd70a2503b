"""The page that a student gets back: each test's sentence, and the cells with their outputs.

All text is escaped and pictures are PNG: no markup, script or link of a submission gets onto the
page, and it needs no network.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Any

from labkit.grading.gradebook import Grade
from labkit.grading.judge import Outcome
from labkit.grading.notebook import GradedCell

LONGEST = 20_000
"""Characters of one output that the page shows."""

STYLE = """
:root { color-scheme: light dark; --line: #8886; --right: #0072b2; --wrong: #d55e00; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; }
tr { border-bottom: 1px solid var(--line); }
pre { overflow-x: auto; border-left: 3px solid var(--line); padding: .4rem .8rem; margin: .3rem 0; }
pre.out { border-left-style: dotted; }
.right { color: var(--right); } .wrong { color: var(--wrong); }
img { max-width: 100%; background: white; }
"""


def page(grade: Grade, tests: Sequence[GradedCell]) -> str:
    """Return the page as HTML."""
    title = escape(f"{grade.assignment}: {grade.student}")
    points = {test.name: test.points for test in tests}
    rows = "".join(
        f"<tr><td><a href='#{_id(one.test)}'>{escape(one.test)}</a></td>"
        f"<td class='{_class(one)}'>{points.get(one.test, 0) if one.passed else 0:g} of "
        f"{points.get(one.test, 0):g}</td><td>{escape(one.says)}</td></tr>"
        for one in grade.outcomes
    )
    outcomes = {one.test: one for one in grade.outcomes}
    texts = {test.name: test.visible for test in tests}
    cells = "".join(
        _test(cell["test"], texts, outcomes) if "test" in cell else _cell(cell)
        for cell in grade.cells
    )
    return (
        f"<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'><title>{title}"
        f"</title><style>{STYLE}</style></head><body><h1>{title}</h1>"
        f"<p><b>{grade.score:g} of {grade.max_score:g} points</b> by the tests; "
        f"{escape(grade.status)}: {escape(grade.comment)}.</p>"
        "<table><thead><tr><th>exercise</th><th>points</th><th>what the test says</th></tr>"
        f"</thead><tbody>{rows}</tbody></table><h2>Your code</h2>{cells}</body></html>\n"
    )


def _test(name: str, texts: dict[str, str], outcomes: dict[str, Outcome]) -> str:
    outcome = outcomes.get(name, Outcome(name, False, ""))
    return (
        f"<h3 id='{_id(name)}'>{escape(name)}</h3><pre>{escape(texts.get(name, ''))}</pre>"
        f"<p class='{_class(outcome)}'>{escape(outcome.says)}</p>"
    )


def _cell(cell: dict[str, Any]) -> str:
    outputs = "".join(map(_output, cell["outputs"]))
    notes = [f"left out: {cell['left_out']}"] if cell.get("left_out") else []
    notes += ["the rest of the output was dropped"] if cell.get("cut") else []
    note = f"<p class='wrong'>{escape('; '.join(notes))}</p>" if notes else ""
    return f"<pre>{escape(cell['text'])}</pre>{outputs}{note}"


def _output(output: dict[str, Any]) -> str:
    kind = output.get("output_type")
    if kind == "stream":
        return _text(output["text"])
    if kind == "error":
        return _text("\n".join(map(str, output.get("traceback") or [])) or str(output.get("ename")))
    data = output.get("data", {})
    picture = data.get("image/png")
    if isinstance(picture, str) and re.fullmatch(r"[A-Za-z0-9+/=\s]+", picture):
        return f"<img alt='a figure' src='data:image/png;base64,{''.join(picture.split())}'>"
    return _text(str(data.get("text/plain", "")))


def _text(text: str) -> str:
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
    shown = plain[:LONGEST] + (" ..." if len(plain) > LONGEST else "")
    return f"<pre class='out'>{escape(shown)}</pre>" if shown.strip() else ""


def _id(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)


def _class(outcome: Outcome) -> str:
    return "right" if outcome.passed else "wrong"
