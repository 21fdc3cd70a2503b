"""Prompt lookup's index against looking through the whole text, and its branch beside the heads."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import LabkitError
from labkit.speculative.drafters.prompt_lookup import PromptLookup

NOTHING = torch.zeros(1)


def look_through(tokens: list[int], longest: int, shortest: int) -> tuple[int, int]:
    """The longest suffix that stood earlier, and where its latest earlier occurrence ends."""
    for length in range(min(longest, len(tokens)), shortest - 1, -1):
        suffix = tokens[len(tokens) - length :]
        for end in range(len(tokens) - 1, length - 1, -1):
            if tokens[end - length : end] == suffix:
                return length, end
    return 0, 0


@given(
    text=st.lists(st.integers(0, 2), min_size=1, max_size=60),
    steps=st.lists(st.integers(1, 5), max_size=12),
    longest=st.integers(1, 5),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_index_finds_what_looking_through_the_text_finds(
    text: list[int], steps: list[int], longest: int, data: st.DataObject
) -> None:
    shortest = data.draw(st.integers(1, longest))
    lookup = PromptLookup(max_nodes=4, longest=longest, shortest=shortest)
    end = max(1, len(text) - sum(steps))
    lookup.begin(text[: end - 1] or text[:1])
    for step in [0, *steps]:
        end = min(end + step, len(text))
        length, place = look_through(text[:end], longest, shortest)
        assert lookup.match(text[:end]) == (length, place)
        draft = lookup.draft(text[:end], NOTHING)
        assert list(draft.tokens) == (text[place : min(place + 4, end)] if length else [])
        assert draft.parents == tuple(range(-1, len(draft) - 1))


def test_new_generation_forgets_the_old_one() -> None:
    lookup = PromptLookup()
    lookup.begin([1, 2, 3, 1, 2])
    assert lookup.draft([1, 2, 3, 1, 2], NOTHING).tokens == (3, 1, 2)
    lookup.begin([5, 1, 2])
    assert not len(lookup.draft([5, 1, 2], NOTHING))


def test_latest_occurrence_wins() -> None:
    lookup = PromptLookup(max_nodes=1)
    text = [1, 2, 7, 1, 2, 8, 1, 2]
    lookup.begin(text)
    assert lookup.draft(text, NOTHING).tokens == (8,)


@pytest.mark.parametrize("settings", [(0, 4, 2), (8, 1, 2), (8, 4, 0)])
def test_settings_that_can_find_nothing_are_refused(settings: tuple[int, int, int]) -> None:
    with pytest.raises(LabkitError, match="shortest <= longest"):
        PromptLookup(*settings)
