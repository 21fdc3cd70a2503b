"""The folder in which numba keeps compiled kernels, so that a later process starts at once."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numba import config, get_num_threads

from labkit.paths import cache_dir


def folders(kernels: Path) -> Iterator[Path]:
    """Yield cache folders for the kernels in ``kernels``: next to them, then the user's.

    Their names change with any source. numba notices a change in the file of a function, but not
    in the functions that it calls: code compiled for the old ones would be run with the new ones'
    arguments, and crash.
    """
    sources = b"".join(path.read_bytes() for path in sorted(kernels.glob("*.py")))
    name = f"numba-{hashlib.sha256(sources).hexdigest()[:16]}"
    yield kernels / "__pycache__" / name
    yield cache_dir() / name


def writable(folder: Path) -> bool:
    """Return whether files can be written in ``folder``, which is made if it can be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def choose_folder(kernels: Path) -> bool:
    """Set numba's cache folder unless the user did; return whether there is one.

    Without a writable folder kernels are compiled anew in each process.
    """
    settings: Any = config
    if not settings.CACHE_DIR:
        settings.CACHE_DIR = str(next(filter(writable, folders(kernels)), ""))
    return bool(settings.CACHE_DIR) and writable(Path(settings.CACHE_DIR))


CACHED = choose_folder(Path(__file__).parent)
"""Whether compiled code is kept; decided once, before the first kernel is compiled."""

# Starts numba's threads. A function that was compiled where the parallel functions that it calls
# came from the cache does not start them when it is itself read from the cache, and would crash.
# That happens where two processes compile at the same time.
get_num_threads()
