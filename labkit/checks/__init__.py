"""One check per exercise: a table of the common mistakes, each known by what it gives."""

from __future__ import annotations

from dataclasses import dataclass

from labkit.facade import public_names

__getattr__, __dir__, _NAMES = public_names(
    __name__,
    {
        "labkit.checks": "approximate heads risk training trees verification",
        "labkit.checks.approximate": "prefix_nodes shared_ngrams",
        "labkit.checks.measures": "chain_steps decoding_limit head_targets learning_rate"
        " model_weights paired_gains published_size ridge room_for_drafts soft_labels"
        " time_per_token",
    },
)
__all__ = [*_NAMES, "NOT_WRITTEN", "Finding"]  # noqa: PLE0604


@dataclass(frozen=True)
class Finding:
    """A check's result: whether the answer is right, and one sentence why."""

    right: bool
    text: str

    def about(self, what: str) -> Finding:
        """Return the finding; a wrong one says first ``what`` it is about."""
        return self if self.right else Finding(False, f"{what}: {self.text}")

    def __repr__(self) -> str:
        return f"{'Right' if self.right else 'Not yet'}: {self.text}"


NOT_WRITTEN = Finding(
    False,
    "this returns nothing so far; put your code in place of the `...` or of the line "
    "`raise NotImplementedError()`.",
)
"""The result for an exercise that is not begun."""
