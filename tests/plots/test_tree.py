from __future__ import annotations

import pytest
from widgets.studies import make_study

from labkit.plots import plot_tree
from labkit.plots.decoding import rows_of


@pytest.mark.parametrize("tree", [None, [], [(0,), (0, 0), (1,)]])
def test_every_tree_has_its_picture(tree, recwarn):
    assert plot_tree(make_study(), tree).png().startswith(b"\x89PNG")
    assert [str(each.message) for each in recwarn] == []


def test_large_trees_are_drawn_without_words():
    study = make_study()
    few, many = plot_tree(study), plot_tree(study, study.best_tree(60))
    assert len(few.axes[0].texts) == len(study.best_tree())
    assert len(many.axes[0].texts) == 0


def test_leaves_stand_on_rows_of_their_own():
    tree = make_study().best_tree(20)
    rows = rows_of(tree)
    leaves = [path for path in tree if not any(p[:-1] == path for p in tree)]
    assert len({rows[leaf] for leaf in leaves}) == len(leaves)
