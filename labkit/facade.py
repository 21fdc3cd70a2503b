"""Public names of a package, imported when they are first used.

A package's ``__init__.py`` lists its public names by the module that defines them::

    __getattr__, __dir__, __all__ = public_names(__name__, {"labkit.paths": "cache_dir data_dir"})

So ``import labkit`` stays quick and loads no torch, and a function can move to another module
without any notebook noticing.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

HOMES: dict[str, dict[str, str]] = {}
"""For each package with a facade: the module that defines each of its public names."""


def public_names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` for ``package``.

    ``homes`` gives for each module its public names, separated by spaces. Under the package's own
    name it lists those of its modules that are public as a whole.
    """
    of_name = {name: module for module, names in homes.items() for name in names.split()}
    HOMES[package] = of_name
    public = sorted(of_name)

    def get(name: str) -> Any:
        if name not in of_name:
            raise AttributeError(f"{package} has no public name {name!r}")
        if of_name[name] == package:
            return importlib.import_module(f"{package}.{name}")
        value = getattr(importlib.import_module(of_name[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: public, public
