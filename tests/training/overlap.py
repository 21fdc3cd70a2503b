"""Prompts to evaluate on that share words with prompts to train on."""

from __future__ import annotations

from collections.abc import Iterable


def overlapping(training: Iterable[str], evaluation: Iterable[str], words: int = 8) -> list[str]:
    """Return the evaluation prompts that share ``words`` words in a row with a training prompt.

    A shorter evaluation prompt counts when a training prompt holds all of it. Letters' case and
    spacing make no difference.
    """
    evaluation = list(evaluation)
    wanted = {text: _grams(text, words) for text in evaluation}
    lengths = {len(gram) for grams in wanted.values() for gram in grams}
    seen = {gram for text in training for length in lengths for gram in _grams(text, length)}
    return [text for text in evaluation if wanted[text] & seen]


def _grams(text: str, length: int) -> set[tuple[str, ...]]:
    """Return all runs of ``length`` words, or the whole text where it has fewer."""
    found = text.lower().split()
    return {tuple(found[i : i + length]) for i in range(max(1, len(found) - length + 1))}
