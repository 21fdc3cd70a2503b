"""Widgets in a plain page: no kernel, no server, nothing loaded from elsewhere."""

from __future__ import annotations

import html
import json
import uuid
from collections.abc import Iterable
from typing import Any

from anywidget import AnyWidget

from labkit.widgets.base import HERE, RecordWidget


def _inline(value: object) -> str:
    """Return JSON for the inside of a script element: no text in it can close the element."""
    return json.dumps(value).replace("<", "\\u003c")


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
    module = f"{widget._esm}\n{model}".replace("export default ", "const WIDGET = ", 1)
    module = module.replace("</script", "<\\/script")
    return f"""<div id="{place}"></div>
<style>{widget._css}</style>
<script type="module">
{module}
const place = document.getElementById("{place}");
place.widget = WIDGET;
place.model = new PageModel({_inline(traits_of(widget))});
WIDGET.render({{ model: place.model, el: place }});
</script>"""


def page(widgets: Iterable[RecordWidget], title: str) -> str:
    """Return a whole HTML page with these widgets, in the reader's own theme."""
    inner = "\n".join(f"<div class='place'>{fragment(widget)}</div>" for widget in widgets)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 0 auto; max-width: 1160px; padding: 20px; font: 16px/1.5 system-ui, sans-serif;
  background: #fbfbfc; color: #1a1f26; }}
.place {{ margin: 0 0 24px; }}
@media (prefers-color-scheme: dark) {{ body {{ background: #0e1116; color: #e8ebef; }} }}
</style>
</head>
<body>
<main>
<h1>{html.escape(title)}</h1>
{inner}
</main>
</body>
</html>"""
