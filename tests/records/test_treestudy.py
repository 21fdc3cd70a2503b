from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.records import RecordError, TreeStudy, VerifyCost

SMALL = {
    "name": "mlp",
    "base": "tiny",
    "accept": ((0.6, 0.2), (0.5, 0.3)),
    "places": 100,
    "verify": (VerifyCost(nodes=0, ratio=1.0), VerifyCost(nodes=6, ratio=1.5)),
    "draft_head": (0.1, 0.1),
    "token_s": 0.02,
}
ALL = [(0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1)]


@st.composite
def studies(draw: st.DrawFn) -> TreeStudy:
    """Two heads of two ranks, with any acceptance and any costs."""
    share = st.floats(0, 0.5)
    cost = st.floats(0, 1)
    return TreeStudy(
        **SMALL
        | {
            "accept": draw(st.tuples(*[st.tuples(share, share)] * 2)),
            "verify": (
                VerifyCost(nodes=0, ratio=1.0),
                VerifyCost(nodes=2, ratio=1 + draw(cost)),
                VerifyCost(nodes=6, ratio=1 + draw(cost)),
            ),
            "draft_head": draw(st.tuples(cost, cost)),
            "draft_node": draw(st.floats(0, 0.1)),
        }
    )


def is_tree(paths) -> bool:
    return all(len(path) == 1 or path[:-1] in paths for path in paths)


@given(studies())
def test_no_tree_is_faster_than_the_best_of_its_size(study: TreeStudy):
    best = study.best_trees()
    assert len(best) == len(ALL) + 1
    for size in range(len(ALL) + 1):
        assert is_tree(best[size])
        assert len(set(best[size])) == size
        for paths in itertools.combinations(ALL, size):
            if is_tree(paths):
                assert study.speedup(paths) <= study.speedup(best[size]) + 1e-9
    assert study.speedup(study.best_tree()) == max(map(study.speedup, best))


@given(studies())
def test_study_survives_being_written_and_read(study: TreeStudy):
    assert TreeStudy.from_json(study.to_json()) == study


def test_tokens_per_step_is_one_plus_every_path():
    study = TreeStudy(**SMALL)
    assert study.tokens_per_step([]) == 1
    assert study.tokens_per_step([(0,), (0, 1)]) == pytest.approx(1 + 0.6 + 0.18)


def test_cost_adds_the_heads_run_the_nodes_and_the_check():
    study = TreeStudy(**SMALL | {"draft_node": 0.01})
    assert study.cost([]) == 1
    assert study.cost([(0,), (1,)]) == pytest.approx(0.1 + 0.02 + 1 + 0.5 * 2 / 6)
    assert study.cost(ALL) == pytest.approx(0.2 + 0.06 + 1.5)


def test_a_check_that_was_not_measured_has_no_cost():
    with pytest.raises(RecordError, match="of 7 nodes was not measured, only of up to 6"):
        TreeStudy(**SMALL).verify_cost(7)


def test_a_tree_of_impossible_size_is_refused():
    with pytest.raises(RecordError, match="0 to 6 nodes here, not 7"):
        TreeStudy(**SMALL).best_tree(7)
    assert TreeStudy(**SMALL).best_tree(0) == ()


def test_the_best_tree_is_no_draft_where_drafting_costs_more_than_it_gains():
    assert TreeStudy(**SMALL | {"draft_head": (9.0, 9.0)}).best_tree() == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"accept": ((0.8, 0.3), (0.5,))}, "head 1 has acceptances that sum to 1.100"),
        ({"accept": ((0.5,), ())}, "head 2 has acceptances that sum to 0.000"),
        ({"draft_head": (0.1,)}, "1 drafting costs for 2 heads"),
        ({"verify": ({"nodes": 0, "ratio": 1}, {"nodes": 0, "ratio": 1})}, "not rising from 0"),
        ({"verify": ({"nodes": 1, "ratio": 1}, {"nodes": 2, "ratio": 1})}, "not rising from 0"),
    ],
)
def test_what_was_not_measured_so_is_refused_in_one_sentence(change, words):
    with pytest.raises(ValueError, match=words):
        TreeStudy(**SMALL | change)
