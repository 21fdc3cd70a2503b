"""Checks of the installation, the machine and the models, each with what would mend it.

Each function checks one thing and yields findings; none of them changes anything.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from labkit import devices, threads
from labkit.errors import LabkitError
from labkit.paths import cache_dir, data_dir, find_chromium

if TYPE_CHECKING:
    import torch

GIB = 1 << 30


State = Literal["ok", "note", "bad"]
"""``note`` is information; ``bad`` keeps the lab from working."""


@dataclass(frozen=True)
class Finding:
    """The result of one check: a state, what was found, and what would mend it."""

    subject: str
    state: State
    found: str
    mend: str = ""


def verdict(subject: str, right: bool, found: str, mend: str, fault: State = "note") -> Finding:
    """Return a finding in the state ``fault``, with what would mend it, unless all is ``right``."""
    return Finding(subject, "ok", found) if right else Finding(subject, fault, found, mend)


def examine(deep: bool = False, tests: bool = False) -> list[Finding]:
    """Return every finding about this machine.

    ``deep`` hashes each model file; ``tests`` also checks what the project's tests need.
    """
    return [
        *look_at_python(),
        *look_at_packages(),
        *look_at_device(),
        *look_at_fast_paths(),
        *look_at_threads(),
        *look_at_real(deep),
        *look_at_shipped(deep),
        *look_at_heads(),
        *look_at_disk(),
        *look_at_jupyter(),
        *look_at_test_tools(tests),
    ]


def healthy(findings: list[Finding]) -> bool:
    """Return whether nothing keeps the lab from working."""
    return all(finding.state != "bad" for finding in findings)


def as_text(findings: list[Finding]) -> str:
    """Return the findings as text: one line each, and below it what would mend it."""
    width = max(len(finding.subject) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:4}  {finding.subject:{width}}  {finding.found}")
        if finding.mend:
            lines.append(f"{'':{width + 8}}{finding.mend}")
    bad = sum(finding.state == "bad" for finding in findings)
    lines.append("Everything needed is there." if not bad else f"To mend: {bad} (marked bad).")
    return "\n".join(lines)


def as_json(findings: list[Finding]) -> dict[str, Any]:
    """Return the findings as one JSON object."""
    return {"healthy": healthy(findings), "findings": list(map(asdict, findings))}


def look_at_python() -> Iterator[Finding]:
    """Report Python's version and the machine."""
    machine = f"{platform.system()} {platform.machine()}, {threads.cores()} cores"
    yield Finding("python", "ok", f"{platform.python_version()} at {sys.prefix} ({machine})")


def look_at_packages() -> Iterator[Finding]:
    """Compare the installed versions with the pinned ones."""
    different, missing, found = [], [], {}
    for name, pinned in pinned_versions().items():
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if found[name].partition("+")[0] != pinned:  # +cpu and the like are builds of one version
            different.append(f"{name} {found[name]} (pinned: {pinned})")
    mend = "`make setup` installs the pinned versions"
    if missing or different:
        faults = f"missing: {', '.join(missing)}" if missing else ", ".join(different)
        yield Finding("packages", "bad" if missing else "note", faults, mend)
        return
    shown = ("torch", "transformers", "numba", "numpy", "anywidget")
    versions = ", ".join(f"{name} {found[name]}" for name in shown)
    yield Finding("packages", "ok", f"all {len(found)} as pinned: {versions}")


def pinned_versions() -> dict[str, str]:
    """Return the pinned version of each package that labkit always needs.

    Works on a checkout that is not installed, too: its pyproject.toml then holds the pins.
    """
    try:
        lines = importlib.metadata.requires("labkit") or []
    except importlib.metadata.PackageNotFoundError:
        project = Path(__file__).resolve().parent.parent / "pyproject.toml"
        if not project.is_file():
            return {}
        lines = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    pins = (re.fullmatch(r"([\w.-]+)==([\w.]+)", line) for line in lines)
    return {pin[1]: pin[2] for pin in pins if pin}


def look_at_device() -> Iterator[Finding]:
    """Report the default device and number format, and a card that torch cannot use."""
    import torch

    try:
        device = devices.pick_device()
        dtype = str(devices.pick_dtype(None, device)).removeprefix("torch.")
    except LabkitError as error:
        yield Finding("device", "bad", str(error), "unset LABKIT_DEVICE, or set it to another")
        return
    cards = nvidia_cards()
    name = cuda_card(device) if device.type == "cuda" else platform.processor()
    others = ", ".join(kind for kind in devices.available_devices() if kind != device.type)
    also = f"; also: {others}" if others else ""
    yield Finding("device", "ok", f"{device} {f'({name}) ' if name else ''}in {dtype}{also}")
    if cards and not torch.cuda.is_available():
        built = torch.version.cuda
        why = f"is built for CUDA {built}, which the driver lacks" if built else "is the CPU build"
        mend = "update the NVIDIA driver, or install" if built else "install"
        mend += " a torch that fits it, as pytorch.org says for that driver"
        yield Finding("card", "note", f"{cards[0]} cannot be used: torch {why}", mend)


def cuda_card(device: torch.device) -> str:
    """Return the card's name, memory, compute capability, and torch's CUDA build."""
    import torch

    card = torch.cuda.get_device_properties(device)
    memory, capability = card.total_memory / GIB, f"{card.major}.{card.minor}"
    return f"{card.name}, {memory:.0f} GiB, capability {capability}, CUDA {torch.version.cuda}"


def nvidia_cards() -> list[str]:
    """Return name and driver version of each NVIDIA card that the driver's own tool lists."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    asked = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = [line.strip() for line in done.stdout.splitlines() if "," in line]
    return [line.replace(",", ", driver", 1) for line in lines] if not done.returncode else []


def look_at_fast_paths() -> Iterator[Finding]:
    """Report which forward pass Llama-shaped models use here, and why."""
    from transformers import LlamaConfig

    from labkit import kernels

    try:
        device = devices.pick_device()
    except LabkitError:  # reported by `look_at_device`
        return
    choice = kernels.choose(LlamaConfig(), device, devices.pick_dtype(None, device))
    found = f"{choice.path.replace('_', ' ')} ({choice.why})"
    mend = "speculation works there, and gains less"
    yield verdict("fast path", choice.path != "plain", found, mend)


def look_at_threads() -> Iterator[Finding]:
    """Report how threads wait, and whether other processes use this machine's cores now."""
    import torch

    taken = threads.contention()
    free, busy = (
        taken <= threads.CONTENDED,
        f"other processes take {taken:.0%} of the processor now",
    )
    load = "the processor is free" if free else busy
    found = f"{torch.get_num_threads()} for torch, waiting with {threads.waiting()}; {load}"
    yield verdict("threads", free, found, "timings mean little until they end")


def look_at_real(deep: bool) -> Iterator[Finding]:
    """Check that the real model is in the cache, undamaged."""
    from labkit.models import check_real

    try:
        found = f"{check_real(deep)}{', every byte as fetched' if deep else ''}"
        yield Finding("model real", "ok", found)
    except LabkitError as error:
        yield Finding("model real", "bad", str(error))


def look_at_shipped(deep: bool) -> Iterator[Finding]:
    """Check that the shipped models are there, undamaged."""
    from labkit.models import check_weights, model_folder, shipped_names

    try:
        names = shipped_names()
        folders = [model_folder(name, deep) for name in names]
        for folder in folders:
            check_weights(folder)
    except LabkitError as error:
        yield Finding("models shipped", "bad", str(error))
        return
    there = "tiny" in names
    found = f"{', '.join(names)} in {folders[0].parent}" if there else "there is no 'tiny'"
    yield verdict("models shipped", there, found, "get the whole repository", "bad")


def look_at_heads() -> Iterator[Finding]:
    """Check the shipped heads of both models."""
    from labkit.models import check_weights

    try:
        folders = sorted(path.parent for path in data_dir().glob("heads/*/config.json"))
        for folder in folders:
            check_weights(folder)
    except LabkitError as error:
        yield Finding("heads", "bad", str(error), "`git checkout -- data/heads` brings them back")
        return
    names = [folder.name for folder in folders]
    missing = [base for base in ("real", "tiny") if base not in names]
    found = f"none for {' and '.join(missing)}" if missing else f"for {', '.join(names)}"
    mend = "`labkit train all` trains some by a recipe of data/recipes"
    yield verdict("heads", not missing, found, mend)


def look_at_disk() -> Iterator[Finding]:
    """Check the free space for the cache."""
    folder = cache_dir()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    mend = "1 GiB is needed to fetch 'real'; or set LABKIT_CACHE"
    yield verdict("disk", free >= GIB, f"{free / GIB:.1f} GiB free for {folder}", mend)


def look_at_jupyter() -> Iterator[Finding]:
    """Check that JupyterLab can show the notebooks with their widgets."""
    needed = ("jupyterlab", "ipykernel", "ipywidgets", "anywidget")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        yield Finding("jupyter", "bad", f"missing: {', '.join(missing)}", "`make setup`")
        return
    version = importlib.metadata.version("jupyterlab")
    yield Finding("jupyter", "ok", f"JupyterLab {version}; `make lab` opens the first notebook")


def look_at_test_tools(needed: bool) -> Iterator[Finding]:
    """Check for Chromium and Node, which only the project's own tests need."""
    found = {"Chromium": find_chromium(), "Node": shutil.which("node")}
    missing = [name for name, path in found.items() if not path]
    ways = {
        "Chromium": "`python -m playwright install chromium` (on Debian: `apt install chromium`)",
        "Node": "node from nodejs.org (on Debian: `apt install nodejs`)",
    }
    mend = f"`make test` alone needs it: install {' and '.join(ways[name] for name in missing)}"
    there = ", ".join(path for path in found.values() if path)
    text = f"{' and '.join(missing)} not found" if missing else there
    yield verdict("test tools", not missing, text, mend, "bad" if needed else "note")
