from __future__ import annotations

import json

import pytest
import traitlets

from labkit.widgets import TreeLab
from widgets.node import evaluate, run_tests
from widgets.studies import make_study

STUDIES = [
    make_study(),
    make_study(heads=3, ranks=4, seed=1, most=16),
    make_study(heads=1, ranks=2, seed=2),
]


def test_view_functions_under_node():
    run_tests("tree_lab")


@pytest.mark.parametrize("study", STUDIES)
def test_python_and_page_predict_the_same(study):
    seen = evaluate(
        "tree_lab/widget.js",
        "m.bestTrees(data).map((tree) => "
        "[tree, m.tokensPerStep(data, tree), m.stepCost(data, tree), m.speedup(data, tree)])",
        json.loads(study.to_json()),
    )
    trees = study.best_trees()
    assert len(seen) == len(trees)
    for tree, (paths, tokens, cost, speedup) in zip(trees, seen, strict=True):
        assert [tuple(path) for path in paths] == list(tree)
        assert tokens == pytest.approx(study.tokens_per_step(tree))
        assert cost == pytest.approx(study.cost(tree))
        assert speedup == pytest.approx(study.speedup(tree))


def test_it_starts_with_the_fastest_tree():
    study = make_study()
    lab = TreeLab(study)
    assert [tuple(path) for path in lab.nodes] == list(study.best_tree())
    assert lab.speedup == pytest.approx(max(study.speedup(t) for t in study.best_trees()))


def test_a_tree_set_from_python_is_put_in_order():
    lab = TreeLab(make_study(), nodes=[[1], [0, 1], [0]])
    assert lab.nodes == [[0], [1], [0, 1]]
    assert lab.tokens_per_step == pytest.approx(lab.record.tokens_per_step([(0,), (1,), (0, 1)]))


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([[0, 0]], "has \\[0, 0\\] but not its parent \\[0\\]"),
        ([[9]], "\\[9\\] is no path"),
        ([[-1]], "is no path"),
        ([[]], "is no path"),
        ([[0], [0, 0], [0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0, 0]], "is no path"),
        (
            [[0, rank] for rank in range(6)]
            + [[0]]
            + [[r, s] for r in range(6) for s in range(6)]
            + [[0, s, t] for s in range(6) for t in range(6)],
            "at most 64 nodes",
        ),
    ],
)
def test_what_is_no_tree_is_refused_in_one_sentence(nodes, words):
    lab = TreeLab(make_study())
    with pytest.raises(traitlets.TraitError, match=words):
        lab.nodes = nodes


def test_selected_is_a_node_of_the_tree():
    lab = TreeLab(make_study(), selected=3)
    assert lab.selected == 3
    with pytest.raises(traitlets.TraitError, match="selected lies between"):
        lab.selected = 99
    lab.nodes = [[0]]
    assert lab.selected == -1


def test_another_study_starts_with_its_own_fastest_tree():
    lab = TreeLab(make_study(), nodes=[])
    study = make_study(heads=2, seed=5)
    lab.record = study
    assert [tuple(path) for path in lab.nodes] == list(study.best_tree())


def test_table_has_a_row_a_node():
    lab = TreeLab(make_study(), nodes=[[0], [0, 1]])
    assert [row[:3] for row in lab.table()[1]] == [("1", 1, 1), ("1·2", 2, 2)]
    assert "2 nodes" in lab.summary()
