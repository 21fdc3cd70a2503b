"""Which number format a device can multiply in."""

from __future__ import annotations

import warnings

import torch

from labkit.kernels.panel import host_features
from labkit.training.recipe import Precision

FEATURES = ("avx512bf16", "amx-bf16", "bf16")
"""Instructions for products of bfloat16, by LLVM's names: two of x86-64, one of ARM."""


def at_hand(wanted: Precision, device: torch.device) -> Precision:
    """Return ``wanted``, or float32, with a warning, on a processor that only imitates bfloat16.

    There torch's products in bfloat16 took ninety times as long as in float32 (two AVX2 cores).
    """
    if wanted == "float32" or device.type != "cpu":
        return wanted
    features = host_features()
    if any(features.get(feature) for feature in FEATURES):
        return wanted
    warnings.warn(
        "This processor has no instructions for bfloat16: products are in float32.", stacklevel=2
    )
    return "float32"
