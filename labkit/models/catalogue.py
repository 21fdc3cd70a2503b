"""Models by name: shipped, fetched, in a folder or on a hub."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from labkit.errors import LabkitError
from labkit.models.language_model import LanguageModel
from labkit.models.smollm2 import check_real
from labkit.models.store import check_folder
from labkit.models.weights import check_weights
from labkit.paths import data_dir

HUB_FILES = ["*.json", "*.jinja", "*.safetensors", "*.txt", "*.model"]
"""The files that are fetched from a hub: never pickled weights, never code."""


def load(name: str = "real", device: str | None = None, dtype: str | None = None) -> LanguageModel:
    """Load the model ``name``: real, a shipped one (tiny), a folder, or one on a hub.

    ``device`` (cpu, cuda, mps) and ``dtype`` (float32, bfloat16, float16) are chosen by
    `labkit.devices` where they are None. Raises `LabkitError` where there is no such model, or
    its files are damaged.
    """
    return LanguageModel(name, model_folder(name), device, dtype)


def shipped_names() -> tuple[str, ...]:
    """Return the names of the models in ``data/models``."""
    return tuple(sorted(path.parent.name for path in data_dir().glob("models/*/config.json")))


def model_folder(name: str, deep: bool = False) -> Path:
    """Return the checked folder of the model ``name`` (``deep``: hash every file); see `load`."""
    if name == "real":
        return check_real(deep)
    if name in shipped_names():
        folder = data_dir() / "models" / name
        check_folder(folder, f"`git checkout -- {folder}` brings it back", deep)
        return folder
    if name and Path(name).is_dir():
        folder = Path(name).resolve()
        check_folder(folder, "make or fetch that folder again", deep)
        return folder
    return _from_hub(name)


def _from_hub(name: str) -> Path:
    """Return the folder of a model on a hub, from the hub's own cache if it is complete there."""
    known = ", ".join(("real", *shipped_names()))
    if not re.fullmatch(r"[\w.-]{1,96}(/[\w.-]{1,96})?", name):
        raise LabkitError(f"There is no model {name!r}: give {known}, a folder, or a hub's name.")
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import disable_progress_bars

    def snapshot(local: bool) -> Path:
        return Path(
            huggingface_hub.snapshot_download(
                name, allow_patterns=HUB_FILES, local_files_only=local
            )
        )

    disable_progress_bars()
    with contextlib.suppress(OSError, HFValidationError, LabkitError):
        folder = snapshot(local=True)
        check_weights(folder)  # other programs cache the config and the tokenizer alone
        return folder
    try:
        return snapshot(local=False)
    except Exception as error:
        raise LabkitError(
            f"There is no model {name!r} here, and the hub gave none ({type(error).__name__}): "
            f"give {known}, a folder, or a name that the hub knows."
        ) from None
