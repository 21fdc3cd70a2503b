"""The site, built once for all tests of it, where every way into a network is shut."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from docs.stage import ROOT

NO_NETWORK = """
import socket

def refuse(*given, **named):
    raise OSError("there is no network in this test")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
"""


@dataclass(frozen=True)
class Site:
    """A built site, and what building it said."""

    folder: Path
    status: int
    said: str

    def text(self, page: str) -> str:
        return (self.folder / page).read_text(encoding="utf-8")


@functools.cache
def built() -> Site:
    """Build the site without running notebooks, which the tests of the course do."""
    place = Path(tempfile.mkdtemp(prefix="labkit-site-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    (place / "sitecustomize.py").write_text(NO_NETWORK, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "docs.build", "--out", str(place / "site"), "--no-execute"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(place), "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    return Site(place / "site", done.returncode, done.stdout + done.stderr)
