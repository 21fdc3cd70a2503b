"""The suffix automaton against a search through the whole text, and the tree drafted from it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import LabkitError
from labkit.speculative.drafters.prompt_lookup import DOUBT, START, PromptLookup, SuffixAutomaton
from labkit.speculative.tree import ROOT

NOTHING = torch.zeros(1)
texts = st.lists(st.integers(0, 2), max_size=40)


def occurrences(text: list[int], part: list[int]) -> int:
    return sum(text[at : at + len(part)] == part for at in range(len(text) - len(part) + 1))


def walked(text: SuffixAutomaton, part: list[int]) -> int | None:
    """The state that ``part`` leads to from the start, if it is a substring."""
    state = START
    for token in part:
        if token not in text.after[state]:
            return None
        state = text.after[state][token]
    return state


@given(texts, st.lists(st.integers(0, 3), min_size=1, max_size=5))
@settings(max_examples=200, deadline=None)
def test_every_substring_is_counted_as_a_search_counts_it(text, part):
    automaton = SuffixAutomaton()
    for token in text:
        automaton.read(token)
    state = walked(automaton, part)
    assert (automaton.count[state] if state is not None else 0) == occurrences(text, part)
    assert len(automaton.length) <= max(2 * len(text), 1)
    assert sum(map(len, automaton.after)) <= max(3 * len(text), 1)


@given(texts)
@settings(max_examples=200, deadline=None)
def test_the_match_is_the_longest_suffix_that_occurred_before_at_every_length_of_text(text):
    automaton = SuffixAutomaton()
    for end, token in enumerate(text, start=1):
        automaton.read(token)
        before = text[:end]
        longest = next(
            size for size in range(end - 1, -1, -1) if occurrences(before, before[end - size :]) > 1
        )
        assert automaton.length[automaton.match] == longest
        followed = {
            before[at + longest]
            for at in range(end - longest)
            if before[at : at + longest] == before[end - longest :]
        }
        assert longest == 0 or set(automaton.after[automaton.match]) == followed


@given(texts, st.lists(st.integers(1, 5), max_size=8), st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_drafts_do_not_depend_on_how_the_text_was_read(text, steps, nodes):
    text = [*text, 1]
    piecewise, at_once = PromptLookup(nodes), PromptLookup(nodes)
    end = max(1, len(text) - sum(steps))
    piecewise.begin(text[:end])
    for step in steps:
        piecewise.draft(text[:end], NOTHING)
        end = min(end + step, len(text))
    at_once.begin(text)
    draft = piecewise.draft(text, NOTHING)
    assert draft == at_once.draft(text, NOTHING)
    assert len(draft) <= nodes
    for node in range(len(draft)):
        spelled = [text[-1], *(draft.tokens[above] for above in draft.path(node))]
        assert occurrences(text, spelled[-2:]) > 0
        assert 0 < draft.q[node] < 1


def test_the_tree_follows_a_match_and_prefers_what_followed_more_often():
    lookup = PromptLookup(4)
    text = [1, 2, 7, 1, 2, 8, 1, 2, 8, 1, 2]
    lookup.begin(text)
    draft = lookup.draft(text, NOTHING)
    assert lookup.match(text) == 5  # 8 1 2 8 1 2 overlaps itself
    assert draft.tokens[0] == 8
    assert draft.parents[0] == ROOT
    assert draft.q[0] == pytest.approx(5 / (5 + DOUBT))


def test_a_new_generation_forgets_the_old_one():
    first, second = [1, 2, 3, 4, 1, 2], [5, 1, 2]
    lookup = PromptLookup(2)
    lookup.begin(first)
    assert lookup.draft(first, NOTHING).tokens == (3, 4)
    lookup.begin(second)
    assert lookup.draft(second, NOTHING).tokens == ()


def test_no_node_is_refused():
    with pytest.raises(LabkitError, match="at least 1 node"):
        PromptLookup(0)
