"""Device and number format, seeded generators, and a clock that waits for the device."""

from __future__ import annotations

import operator
import os
import time
from typing import TYPE_CHECKING

from labkit.errors import LabkitError

if TYPE_CHECKING:
    import torch

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Number formats: short names, which are also accepted, and torch's own."""

FIRST_BFLOAT16 = (8, 0)
"""Compute capability of the first cards with fast bfloat16 (Ampere); a T4 has (7, 5)."""

FIRST_FLOAT16 = (5, 3)
"""Compute capability of the first cards with float16 arithmetic."""


def pick_device(name: str | None = None) -> torch.device:
    """Return the device ``name`` (cpu, cuda, cuda:1, mps), else ``LABKIT_DEVICE``, else the best.

    Raises `LabkitError` if the device is not available.
    """
    import torch

    name = name or os.environ.get("LABKIT_DEVICE") or available_devices()[0]
    try:
        device = torch.device(name)
    except RuntimeError:
        raise LabkitError(f"There is no kind of device {name!r}: give cpu, cuda or mps.") from None
    if device.type not in available_devices():
        here = ", ".join(available_devices())
        raise LabkitError(f"Device {name!r} is not available. Available: {here}.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise LabkitError(f"There is no {name!r}: this machine's {count} GPUs count from cuda:0.")
    return device


def available_devices() -> tuple[str, ...]:
    """Return the kinds of device that torch can use here, the best first."""
    import torch

    found = [("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())]
    return (*(name for name, there in found if there), "cpu")


def pick_dtype(name: str | None, device: torch.device) -> torch.dtype:
    """Return the number format ``name``, else the fastest that is safe on ``device``.

    On CUDA that is bfloat16 where the card has it, float16 on older cards (T4, V100), and float32
    on cards with neither; elsewhere float32. Raises `LabkitError` for an unknown name.
    """
    import torch

    if name is None and device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability >= FIRST_BFLOAT16:
            name = "bfloat16"
        elif capability >= FIRST_FLOAT16:
            name = "float16"
    name = DTYPES.get(name or "", name or "float32")
    if name not in DTYPES.values():
        raise LabkitError(f"There is no number format {name!r}: give float32, bfloat16 or float16.")
    return getattr(torch, name)


def torch_generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a seeded `torch.Generator` on ``device``; global state is left alone.

    Raises `LabkitError` for a seed that is no whole number of 64 bits.
    """
    import torch

    try:
        return torch.Generator(device=device).manual_seed(operator.index(seed))
    except (TypeError, ValueError, RuntimeError):
        raise LabkitError(f"The seed is {seed!r}: give a whole number below 2^63.") from None


def clock(device: torch.device | str = "cpu") -> float:
    """Return seconds on a steady clock, after all pending work on ``device`` is done."""
    kind = str(device).partition(":")[0]
    if kind != "cpu":
        import torch

        getattr(torch, kind).synchronize()
    return time.perf_counter()
