"""labkit: how language models decode, to be watched step by step.

The names below are imported when they are first used, so that ``import labkit`` is quick and asks
for no torch.
"""

import importlib
from typing import Any

from labkit.errors import LabkitError
from labkit.threads import settle_waiting

settle_waiting()  # before anything loads torch, which reads these settings once

_HOMES = {
    "Decoder": "labkit.speculative.decoder",
    "Sampling": "labkit.sampling",
    "base_name": "labkit.course",
    "compare": "labkit.course",
    "predict": "labkit.course",
    "predictions": "labkit.course",
    "LanguageModel": "labkit.models",
    "load": "labkit.models",
    "read_questions": "labkit.questions",
    "LossLog": "labkit.records",
    "RiskTable": "labkit.records",
    "ServingLog": "labkit.records",
    "Trace": "labkit.records",
}
"""Where each public name lives."""

__all__ = ["LabkitError", *sorted(_HOMES)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    """Import a public name, or one of labkit's own modules, when it is first asked for."""
    if name in _HOMES:
        found = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = found
        return found
    raise AttributeError(f"labkit has no public name {name!r}")


def __dir__() -> list[str]:
    """The public names."""
    return __all__
