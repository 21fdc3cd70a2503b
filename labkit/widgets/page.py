"""Widgets in a plain page: no kernel, no server, nothing loaded from elsewhere."""

from __future__ import annotations

import html
import json
import uuid
from collections.abc import Iterable
from typing import Any

from anywidget import AnyWidget

from labkit.widgets.base import HERE, RecordWidget

STYLE = (HERE / "shared" / "page.css").read_text(encoding="utf-8")
"""The look of a page around widgets, light or dark as the reader's system is."""


def inline(value: object) -> str:
    """Return JSON for the inside of a script element: no text in it can close the element."""
    return json.dumps(value).replace("<", "\\u003c")


def inside(code: str) -> str:
    """Return JavaScript for the inside of a script element, a widget's module as ``WIDGET``."""
    return code.replace("export default ", "const WIDGET = ", 1).replace("</script", "<\\/script")


def traits_of(widget: AnyWidget) -> dict[str, Any]:
    """Return the traits that a widget shares with its view, by name."""
    hidden = {"_esm", "_css", "_anywidget_id", "layout", "comm"}
    return {
        name: value
        for name, value in widget.get_state().items()
        if name not in hidden and not name.startswith(("_model", "_view", "_dom"))
    }


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
    return document(heading, STYLE, f"<main>\n<h1>{heading}</h1>\n{inner}\n</main>")


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
