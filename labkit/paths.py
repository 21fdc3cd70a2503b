"""The folders of the lab's data and cache, and the browser on this machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import platformdirs

from labkit.errors import LabkitError


def data_dir() -> Path:
    """Return the lab's ``data`` folder: prompts, shipped weights, recorded records.

    A wheel carries it inside the package, a checkout next to it; the environment variable
    ``LABKIT_DATA`` names another one. Raises `LabkitError` if there is none.
    """
    named = os.environ.get("LABKIT_DATA")
    folder = Path(named) if named else carried("data")
    if not folder.is_dir():
        how = "which LABKIT_DATA names" if named else "set LABKIT_DATA, or install from a checkout"
        raise LabkitError(f"There is no data folder {folder} ({how}).")
    return folder


def plain_heads(base: str) -> Path:
    """Return the folder of a base model's plain heads, which the course takes apart.

    They have no context layer, and their log shows both phases of training. Where the heads that
    draft by default have one, the plain ones lie next to them, in ``data/heads/real-plain``.
    """
    heads, name = data_dir() / "heads", Path(base).name
    plain = heads / f"{name}-plain"
    return plain if plain.is_dir() else heads / name


def carried(name: str) -> Path:
    """Return a folder of the project: inside the package (a wheel) or next to it (a checkout)."""
    package = Path(__file__).resolve().parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def cache_dir() -> Path:
    """Return the folder for what is fetched or made once on this machine; it may not exist yet.

    ``LABKIT_CACHE`` if set, else the user's cache folder as the operating system has it.
    """
    return Path(os.environ.get("LABKIT_CACHE") or platformdirs.user_cache_dir("labkit", False))


def find_chromium() -> str | None:
    """Return ``LABKIT_CHROMIUM``, else a Chromium on the path, else the one playwright keeps.

    None where there is no Chromium. Call it outside of playwright's own context.
    """
    if named := os.environ.get("LABKIT_CHROMIUM"):
        return named
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if found := shutil.which(name):
            return found
    if importlib.util.find_spec("playwright") is None:
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if shutil.which(path) else None
