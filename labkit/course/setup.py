"""Installation into a Python that has some packages already, such as Colab's.

``pip install --no-deps`` of labkit's wheel, then ``python -m labkit.course.setup``: what is missing
is installed, and what is there, torch above all, is kept in the version it has.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterable


def missing(requirements: Iterable[str]) -> list[str]:
    """Return those requirements whose package is not installed, in any version; extras left out.

    >>> missing(["click==1.0", "no-such-package==2.0", "pytest==9.0; extra == 'dev'"])
    ['no-such-package==2.0']
    """
    wanted = [line for line in requirements if "extra ==" not in line]
    return [line for line in wanted if not _installed(re.split(r"[^\w.-]", line)[0])]


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def main() -> None:
    """Install what labkit needs and this Python lacks."""
    lacking = missing(importlib.metadata.requires("labkit") or ())
    if lacking:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *lacking], check=True)
    print("Installed:", ", ".join(lacking) or "nothing; all was there")


if __name__ == "__main__":
    main()
