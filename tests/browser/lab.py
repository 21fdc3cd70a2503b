"""A JupyterLab of its own for browser tests: own port, token, folders and settings."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NO_NEWS = '{"fetchNews": "false", "checkForUpdates": false}'
"""JupyterLab would ask the network for news, and the reader whether it may."""

START_SECONDS = 180


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab that serves ``folder``."""

    address: str
    token: str
    folder: Path

    def page(self, notebook: str) -> str:
        """The address that opens a notebook by itself, without an earlier session's tabs."""
        return f"{self.address}/lab/tree/{notebook}?reset&token={self.token}"


@contextlib.contextmanager
def running_lab(notebooks: list[Path], folder: Path, base: str, theme: str) -> Iterator[Lab]:
    """JupyterLab over copies of ``notebooks``, whose kernels use the model called ``base``."""
    work, own = folder / "work", folder / "jupyter"
    work.mkdir(parents=True)
    for notebook in notebooks:
        shutil.copy(notebook, work)
        figures = notebook.parent / "figures"
        if figures.is_dir():
            shutil.copytree(figures, work / "figures", dirs_exist_ok=True)
    settings = own / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(NO_NEWS, encoding="utf-8")
    (settings / "themes.jupyterlab-settings").write_text(
        f'{{"theme": "JupyterLab {theme.capitalize()}"}}', encoding="utf-8"
    )
    port, token = free_port(), secrets.token_hex(16)
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        f"--ServerApp.root_dir={work}",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}",
        f"--LabApp.user_settings_dir={own / 'lab' / 'user-settings'}",
        f"--LabApp.workspaces_dir={own / 'lab' / 'workspaces'}",
    ]
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(own / "config"),
        "JUPYTER_RUNTIME_DIR": str(own / "runtime"),
        "LABKIT_BASE": base,
    }
    log = own / "log.txt"
    with log.open("w", encoding="utf-8") as out:
        server = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_it_answers(address, server, log)
        yield Lab(address, token, work)
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_it_answers(address: str, server: subprocess.Popen, log: Path) -> None:
    """Return once the server answers; fail with its log if it ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/api", timeout=10):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text(encoding='utf-8')[-3000:]}")
