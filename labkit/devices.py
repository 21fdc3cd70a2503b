"""Where to compute and in what numbers; generators by seed; a clock that waits for the device."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import numpy as np

from labkit.errors import LabkitError

if TYPE_CHECKING:
    import torch

DTYPES = {
    "float32": "float32",
    "fp32": "float32",
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
    "float16": "float16",
    "fp16": "float16",
}
"""The names a person may give a number format, and torch's own."""


def pick_device(name: str | None = None) -> torch.device:
    """The device called ``name`` (cpu, cuda, cuda:1, mps), else ``LABKIT_DEVICE``, else the best.

    Raises `LabkitError` where there is no such device here.
    """
    import torch

    name = name or os.environ.get("LABKIT_DEVICE") or best_device()
    try:
        device = torch.device(name)
    except RuntimeError:
        raise LabkitError(f"There is no kind of device {name!r}: give cpu, cuda or mps.") from None
    if device.type not in available_devices():
        here = ", ".join(available_devices())
        raise LabkitError(f"The device {name!r} is not to be had here: give one of {here}.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise LabkitError(f"There is no {name!r}: this machine's {count} GPUs count from cuda:0.")
    return device


def available_devices() -> tuple[str, ...]:
    """The kinds of device that torch can use here, the best first."""
    import torch

    found = [("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())]
    return (*(name for name, there in found if there), "cpu")


def best_device() -> str:
    """The kind of device that is used where nobody says which."""
    return available_devices()[0]


def pick_dtype(name: str | None, device: torch.device) -> torch.dtype:
    """The number format called ``name``, else bfloat16 under CUDA and float32 elsewhere."""
    import torch

    name = name or ("bfloat16" if device.type == "cuda" else "float32")
    if name not in DTYPES:
        raise LabkitError(f"There is no number format {name!r}: give float32, bfloat16 or float16.")
    return getattr(torch, DTYPES[name])


def torch_generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of torch's on ``device``, seeded; nothing global is touched."""
    import torch

    return torch.Generator(device=device).manual_seed(seed)


def numpy_generator(seed: int) -> np.random.Generator:
    """A generator of numpy's, seeded; nothing global is touched.

    >>> bool(numpy_generator(1).random() == numpy_generator(1).random())
    True
    """
    return np.random.default_rng(seed)


def clock(device: torch.device | str = "cpu") -> float:
    """Seconds on a steady clock, once everything asked of ``device`` so far is done."""
    kind = str(device).partition(":")[0]
    if kind != "cpu":
        import torch

        getattr(torch, kind).synchronize()
    return time.perf_counter()
