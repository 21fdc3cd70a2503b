"""The model that the course runs on."""

import os


def base_name() -> str:
    """Return the course's base model: ``LABKIT_BASE`` if it is set, else ``real``.

    `labkit.load` lists what it may be.
    """
    return os.environ.get("LABKIT_BASE") or "real"
