"""Candidate trees: what sees what, where each node stands, and joining two of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import LabkitError
from labkit.speculative.tree import ROOT, Draft, chain, join


@st.composite
def drafts(draw: st.DrawFn, most: int = 20, vocabulary: int = 4) -> Draft:
    """A random tree whose siblings are different tokens."""
    tokens: list[int] = []
    parents: list[int] = []
    for node in range(draw(st.integers(0, most))):
        parent = draw(st.integers(ROOT, node - 1))
        token = draw(st.integers(0, vocabulary - 1))
        if (parent, token) in set(zip(parents, tokens, strict=True)):
            continue
        if parent < len(tokens):
            tokens.append(token)
            parents.append(parent)
    many = len(tokens)
    return Draft(tuple(tokens), tuple(parents), (0.5,) * many, ("example",) * many)


def spelled(draft: Draft) -> set[tuple[int, ...]]:
    """Every node as the text from the root to it."""
    return {tuple(draft.tokens[i] for i in draft.path(node)) for node in range(len(draft))}


@given(drafts())
def test_node_sees_the_root_its_path_and_itself(draft: Draft) -> None:
    visible = draft.visible()
    assert visible.shape == (len(draft) + 1, len(draft) + 1)
    assert visible[0].tolist() == [1] + [0] * len(draft)
    for node in range(len(draft)):
        seen = {0, *(i + 1 for i in draft.path(node))}
        assert set(np.flatnonzero(visible[node + 1])) == seen


@given(drafts())
def test_depth_is_the_length_of_the_path(draft: Draft) -> None:
    assert draft.depths == [len(draft.path(node)) for node in range(len(draft))]
    assert draft.path(ROOT) == []


@given(drafts())
def test_path_goes_from_a_child_of_the_root_to_the_node(draft: Draft) -> None:
    for node in range(len(draft)):
        path = draft.path(node)
        assert path[-1] == node
        assert [draft.parents[i] for i in path] == [ROOT, *path[:-1]]


@given(drafts())
def test_children_and_parents_agree(draft: Draft) -> None:
    for parent in range(ROOT, len(draft)):
        for child in draft.children(parent):
            assert draft.parents[child] == parent
    assert sum(len(draft.children(parent)) for parent in range(ROOT, len(draft))) == len(draft)


@given(drafts(), st.integers(0, 9))
def test_rows_are_the_root_and_then_the_nodes(draft: Draft, slot: int) -> None:
    rows = draft.rows(99, slot)
    assert list(rows.tokens) == [99, *draft.tokens]
    assert list(rows.depths) == [0, *draft.depths]
    assert rows.slot == slot
    assert (rows.visible.sum(1) == np.array(rows.depths) + 1).all()


@given(st.lists(st.integers(0, 9), max_size=8))
def test_chain_sees_as_any_chain_does(tokens: list[int]) -> None:
    draft = chain(tokens, "example")
    assert (draft.visible() == np.tril(np.ones((len(tokens) + 1,) * 2))).all()
    assert draft.depths == list(range(1, len(tokens) + 1))


@given(drafts(), drafts())
def test_join_spells_what_either_spells_and_nothing_twice(first: Draft, second: Draft) -> None:
    joined = join(first, second)
    assert spelled(joined) == spelled(first) | spelled(second)
    assert len(joined) == len(spelled(joined))


@given(drafts(), drafts())
def test_join_leaves_the_first_drafts_nodes_where_they_were(first: Draft, second: Draft) -> None:
    joined = join(first, second)
    many = len(first)
    assert joined.tokens[:many] == first.tokens
    assert joined.parents[:many] == first.parents
    assert joined.q[:many] == first.q


@given(drafts())
def test_join_with_nothing_or_with_itself_changes_nothing(draft: Draft) -> None:
    for other in (Draft(), draft):
        joined = join(draft, other)
        assert (joined.tokens, joined.parents) == (draft.tokens, draft.parents)
    assert spelled(join(Draft(), draft)) == spelled(draft)


@pytest.mark.parametrize("parents", [(0,), (-2,), (-1, 2, 0), (1, -1)])
def test_draft_whose_parents_do_not_come_first_is_refused(parents: tuple[int, ...]) -> None:
    many = len(parents)
    with pytest.raises(LabkitError, match="parents come first"):
        Draft((1,) * many, parents, (None,) * many, ("",) * many)


def test_draft_with_a_field_too_short_is_refused() -> None:
    with pytest.raises(LabkitError, match="for each token"):
        Draft((1, 2), (-1, -1), (None,), ("a", "b"))


def test_a_drawn_tree_that_is_cut_keeps_whole_families_and_their_distributions() -> None:
    ids = torch.arange(9)
    outlooks = {node: (ids, torch.full((9,), float(node))) for node in (ROOT, 1, 3)}
    draft = Draft((5, 6, 7, 8, 1), (ROOT, ROOT, 1, 1, 3), (0.1,) * 5, ("head",) * 5, outlooks)
    cut = draft.no_deeper(2)
    assert (cut.tokens, cut.parents) == ((5, 6, 7, 8), (ROOT, ROOT, 1, 1))
    assert all(cut.outlooks[node][1][0] == node for node in cut.outlooks)
    part = draft.best_part(3)
    assert part.tokens == (5, 6, 7)
    assert sorted(draft.no_deeper(0).outlooks) == [ROOT]
