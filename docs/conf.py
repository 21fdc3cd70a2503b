"""How Sphinx writes the site. The pages that it reads are put together by `docs.stage`."""

from __future__ import annotations

import importlib
import importlib.resources
import itertools
import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.nodes import make_refnode

from docs.rendering import as_rest, mathml
from docs.stage import dotted, modules
from labkit.facade import HOMES

project = "labkit"
author = "the authors of labkit"
copyright = author
version = release = "0.1.0"
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "index"
exclude_patterns = ["files/**"]  # what pages link to for download
default_role = "py:obj"
toc_object_entries_show_parents = "hide"

# The course. Notebooks come executed or not; Sphinx itself never runs them.
nb_execution_mode = "off"
nb_ipywidgets_js: dict[str, Any] = {}  # would be fetched from elsewhere
myst_enable_extensions = ["attrs_inline", "colon_fence", "dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header", "ref.python"]  # a name may stand for two things

# The rooms, from their docstrings.
autodoc_member_order = "bysource"
autodoc_default_options = {
    "members": True,
    "ignore-module-all": True,
    "exclude-members": "model_config",  # pydantic's own
}
autodoc_typehints = "signature"
maximum_signature_line_length = 84
python_use_unqualified_type_names = True
LONGEST_VALUE = 60  # characters of a constant's value
viewcode_line_numbers = True
viewcode_follow_imported_members = False  # an alias of a type would lead to Python's own source

# The look. Furo loads neither fonts nor scripts from elsewhere.
html_theme = "furo"
html_title = "labkit"
MATHS_FONT = importlib.resources.files("ziamath") / "fonts" / "STIXTwoMath-Regular.ttf"
html_static_path = ["static", str(MATHS_FONT)]  # not every system has a font for formulas
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_show_search_summary = False  # would be fetched, which a browser refuses to a plain folder
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False
html_math_renderer = "mathml"
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b62b8", "color-brand-content": "#0b62b8"},
    "dark_css_variables": {"color-brand-primary": "#6cb2f5", "color-brand-content": "#6cb2f5"},
    "footer_icons": [],
}

_log = logging.getLogger(__name__)


def setup(app: Sphinx) -> None:
    """Sphinx asks for this."""
    for path in modules():  # now: autodoc rewrites annotations that later modules would stumble on
        importlib.import_module(dotted(path))
    app.add_html_math_renderer("mathml", (_inline_formula, None), (_block_formula, None))
    app.connect("autodoc-process-docstring", _plain_docstring)
    app.connect("autodoc-skip-member", _leave_out_borrowed)
    app.connect("object-description-transform", _without_long_values)
    app.connect("missing-reference", _by_last_names)


def _inline_formula(writer: Any, node: nodes.math) -> None:
    _write_formula(writer, node, block=False)


def _block_formula(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(writer.starttag(node, "div", CLASS="math"))
    _write_formula(writer, node, block=True, after="</div>\n")


def _write_formula(writer: Any, node: Any, block: bool, after: str = "") -> None:
    try:
        writer.body.append(mathml(node.astext(), block) + after)
    except ValueError as error:
        _log.warning("%s", error, location=node)
    raise nodes.SkipNode


def _plain_docstring(
    _app: Sphinx, _what: str, _name: str, _obj: Any, _opt: Any, lines: list
) -> None:
    lines[:] = as_rest(lines)


def _leave_out_borrowed(_app: Sphinx, what: str, _name: str, thing: Any, *_: Any) -> bool | None:
    """Leave out what another library put into a class of ours."""
    home = getattr(thing, "__module__", None)
    ours = what != "class" or not callable(thing) or not home or home.startswith("labkit")
    return None if ours else True


def _without_long_values(_app: Sphinx, _domain: str, _kind: str, content: Any) -> None:
    """Leave out a constant's value where it is more than a glance takes in."""
    for signature in content.parent.children:
        for note in [*signature.findall(addnodes.desc_annotation)]:
            if re.match(r"\s*=", note.astext()) and len(note.astext()) > LONGEST_VALUE:
                note.parent.remove(note)


def _by_last_names(app: Sphinx, env: Any, node: Any, content: Any) -> Any:
    """Link `Draft.rows` or `engine_for` from anywhere, to the nearest thing that is called that."""
    target = node.get("reftarget", "").removesuffix("()")
    if node.get("refdomain") != "py" or not target:
        return None
    objects = env.get_domain("py").objects
    last = target.rpartition(".")[2]
    home = HOMES["labkit"].get(last, "")  # of a public name, which may live below the room it names
    if target in (last, f"labkit.{last}", f"{home}.{last}") and home:
        found = [name for name in objects if name.startswith(home) and name.endswith(f".{last}")]
    else:
        found = [name for name in objects if name.endswith(f".{target}")]
    found = [name for name in found if not objects[name].aliased]
    if not found:
        return None
    best = max(found, key=lambda name: _in_common(name, node.get("py:module") or ""))
    thing = objects[best]
    return make_refnode(app.builder, node["refdoc"], thing.docname, thing.node_id, content, best)


def _in_common(name: str, module: str) -> int:
    """How many names two dotted ones share at their beginning."""
    pairs = zip(name.split("."), module.split("."), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
