"""One check per exercise: it knows the common mistakes by what they give, and names them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What a check says of an answer: whether it is right, and one sentence why."""

    right: bool
    text: str

    def __repr__(self) -> str:
        return f"{'Right' if self.right else 'Not yet'}: {self.text}"


NOT_WRITTEN = Finding(
    False,
    "this returns nothing so far; put your code in place of the `...` or of the line "
    "`raise NotImplementedError()`.",
)
"""Of an exercise that nobody has begun."""
