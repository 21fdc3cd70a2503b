"""How formulas and docstrings are turned into what Sphinx writes: no script, no second markup."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from xml.etree import ElementTree

from latex2mathml.converter import convert_to_element

_KEPT = re.compile(r"``.+?``|`[^`]+`_?|(?<![\w*])\*\*?[^\s*](?:[^*]*[^\s*])?\*\*?(?![\w*])")
_SPECIAL = re.compile(r"(?<!\\)[*|`]|(?<=\w)_(?!\w)")
_WORDS = (
    (re.compile(r"\\arg\s*\\(min|max)"), r"\\arg\1"),
    (re.compile(r"\\(begin|end)\{aligned\}"), r"\\\1{split}"),
    (re.compile(r"\\(?:operatorname\*?|mathop)\{"), r"\\mathrm{"),
)
"""What LaTeX knows by another name than the converter."""


_SPACES = {"negativethinmathspace": "-0.167em", "negativemediummathspace": "-0.222em"}
_UNDER = {"msub": "munder", "msup": "mover", "msubsup": "munderover"}
_LARGE = {"min", "max", "sup", "inf", "lim", "arg\N{THIN SPACE}min", "arg\N{THIN SPACE}max"}
"""What takes its index below itself where a formula stands alone."""


def mathml(formula: str, block: bool) -> str:
    """A LaTeX formula as MathML, which browsers draw by themselves.

    Raises `ValueError` where the formula holds a command that the converter does not know.

    >>> mathml("x^2", block=False)
    '<math display="inline"><mrow><msup><mi>x</mi><mn>2</mn></msup></mrow></math>'
    """
    for word, known in _WORDS:
        formula = word.sub(known, formula)
    tree = convert_to_element(formula, display="block" if block else "inline")
    del tree.attrib["xmlns"]  # in HTML the tag's name says it
    for part in tree.iter():
        part.text = html.unescape(part.text or "")
    for part in tree.iter():
        if part.text.startswith("\\"):
            raise ValueError(f"The formula {formula!r} holds {part.text}, which is not known here.")
        if part.get("width") in _SPACES:
            part.set("width", _SPACES[part.get("width")])
        if part.tag in _UNDER and len(part) and part[0].text in _LARGE:
            part.tag = _UNDER[part.tag]
            part[0].set("movablelimits", "true")  # within a line they go beside it again
    return ElementTree.tostring(tree, encoding="unicode")


def as_rest(lines: list[str]) -> Iterator[str]:
    """A docstring's lines as reStructuredText: a lone * or | stands for itself.

    Examples in doctest's form are left as they are.

    >>> list(as_rest(["h* is the best of *all*, see `decide`.", ">>> 2 ** 3"]))
    ['h\\\\* is the best of *all*, see `decide`.', '>>> 2 ** 3']
    """
    example = False
    for line in lines:
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        yield line if example else _escaped(line)


def _escaped(line: str) -> str:
    bullet = re.match(r"\s*\* ", line)
    at = bullet.end() if bullet else 0
    parts = [line[:at]]
    for kept in _KEPT.finditer(line, at):
        parts += [_SPECIAL.sub(r"\\\g<0>", line[at : kept.start()]), kept[0]]
        at = kept.end()
    return "".join([*parts, _SPECIAL.sub(r"\\\g<0>", line[at:])])
