"""How Sphinx writes the site. The pages that it reads are put together by `docs.stage`."""

from __future__ import annotations

import importlib
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.nodes import make_refnode

import labkit
from docs.rendering import as_rest, mathml
from docs.stage import dotted, modules

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
nb_code_prompt_show = "Show {type}"
myst_enable_extensions = ["attrs_inline", "colon_fence", "dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header", "ref.python"]  # a name may stand for two things

# The rooms, from their docstrings.
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "no-value": True, "ignore-module-all": True}
autodoc_typehints = "signature"
maximum_signature_line_length = 84
python_use_unqualified_type_names = True
viewcode_line_numbers = True

# The look. Furo loads neither fonts nor scripts from elsewhere.
html_theme = "furo"
html_title = "labkit"
html_static_path = ["static"]
html_css_files = ["site.css"]
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


def _by_last_names(app: Sphinx, env: Any, node: Any, content: Any) -> Any:
    """Link `Draft.rows` or `engine_for` from anywhere, where just one thing is called that."""
    target = node.get("reftarget", "").removesuffix("()")
    if node.get("refdomain") != "py" or not target:
        return None
    home = labkit._HOMES.get(target.removeprefix("labkit."))  # a public name that lives elsewhere
    objects = env.get_domain("py").objects
    ends = f".{target.rsplit('.', 1)[-1]}" if home else f".{target}"
    found = [
        name
        for name, thing in objects.items()
        if name.endswith(ends) and not thing.aliased and (not home or name.startswith(home))
    ]
    if len(found) != 1:
        return None
    thing = objects[found[0]]
    return make_refnode(
        app.builder, node["refdoc"], thing.docname, thing.node_id, content, found[0]
    )
