"""What the course's notebooks share: which model they use, and predictions kept to be compared."""

import os

from labkit.course.kept import compare, predict, predictions
from labkit.course.shown import table

__all__ = ["base_name", "compare", "predict", "predictions", "table"]


def base_name() -> str:
    """The name of the model that the course runs on: ``LABKIT_BASE`` if it is set, else ``real``.

    What it may be: see `labkit.load`.
    """
    return os.environ.get("LABKIT_BASE") or "real"
