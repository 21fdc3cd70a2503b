"""Links from notebooks to the glossary: ``python -m docs.terms`` adds those that are missing.

Each notebook links a glossary term where its Markdown first uses it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labkit.course.run import course

GLOSSARY = Path(__file__).with_name("glossary.md")
LINK = "../docs/glossary.md"
KEPT = re.compile(
    r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$\n]+\$|!?\[[^\]]*\]\([^)]*\)|<a .*?</a>"
    r"|<summary>.*?</summary>|^#+ .*?$|^\* [A-Z]\. .*?(?=^\* |\Z)",
    re.DOTALL | re.MULTILINE,
)
"""Parts of a cell that hold no link of ours: code, formulas, links, headings, literature."""


def terms() -> dict[str, str]:
    """Return each term of the glossary, in small letters, with its anchor."""
    names = re.findall(r"^### (.+)$", GLOSSARY.read_text(encoding="utf-8"), re.MULTILINE)
    return {name.lower(): re.sub(r"[^\w-]", "", name.lower().replace(" ", "-")) for name in names}


def first_use(text: str, term: str) -> re.Match[str] | None:
    """Return the first use of a term in Markdown, outside of code, links and headings.

    >>> first_use("`head` and a [head](x), then heads", "head")[0]
    'heads'
    """
    hidden = KEPT.sub(lambda match: "\0" * len(match[0]), text)
    return re.search(rf"(?<![\w-]){re.escape(term)}s?(?![\w-])", hidden, re.IGNORECASE)


def unlinked(notebook: Any) -> Iterator[tuple[Any, re.Match[str], str]]:
    """Yield each term that a notebook uses and never links: the cell, the place, the anchor."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    whole = "\n".join("".join(cell["source"]) for cell in cells)
    for term, anchor in sorted(terms().items(), key=lambda item: -len(item[0])):
        if f"{LINK}#{anchor})" in whole:
            continue
        uses = ((cell, first_use("".join(cell["source"]), term)) for cell in cells)
        found = next(((cell, use) for cell, use in uses if use), None)
        if found:
            yield *found, anchor


def link(path: Path) -> int:
    """Link every unlinked term of a notebook; return how many there were."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    count = 0
    while missing := next(unlinked(notebook), None):
        cell, use, anchor = missing
        text, (start, end) = "".join(cell["source"]), use.span()
        text = f"{text[:start]}[{text[start:end]}]({LINK}#{anchor}){text[end:]}"
        cell["source"] = text.splitlines(keepends=True)
        count += 1
    if count:
        made = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        path.write_text(made, encoding="utf-8", newline="\n")
    return count


def main() -> None:
    """Link the whole course."""
    for path in course():
        print(path.name, link(path))


if __name__ == "__main__":
    main()
