"""Shared parts of the course's notebooks: the model they use, predictions, tables."""

from labkit.facade import public_names

__getattr__, __dir__, __all__ = public_names(
    __name__,
    {
        "labkit.course.kept": "compare predict predictions table",
        "labkit.course.live": "train_live",
        "labkit.course.run": "base_name",
        "labkit.paths": "plain_heads",
    },
)
