"""Shared parts of the course's notebooks: the model they use, predictions, tables."""

from labkit.facade import public_names

__getattr__, __dir__, __all__ = public_names(
    __name__,
    {
        "labkit.course.base": "base_name",
        "labkit.course.kept": "compare predict predictions",
        "labkit.course.live": "train_live",
        "labkit.course.shown": "table",
        "labkit.paths": "plain_heads",
    },
)
