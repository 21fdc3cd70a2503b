"""Expected tokens, costs and the best tree, against simulation and against numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest

from labkit.errors import LabkitError
from labkit.speculative.drafters.mlp import TorchHeads
from labkit.speculative.theory import (
    Acceptance,
    Roofline,
    best_tree,
    chain_speedup,
    chain_tokens,
    rank_acceptance,
    tree_study,
)
from tests.speculative.test_mlp import DRAFT_IDS, HEADS, VOCABULARY, WIDTH, speculator

COSTS = {1: 1.0, 2: 1.0, 4: 1.1, 8: 1.2, 16: 1.6, 32: 3.0}


@pytest.mark.parametrize("acceptance", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("drafted", [0, 1, 5])
def test_chain_commits_what_a_simulation_commits(acceptance: float, drafted: int) -> None:
    rng = np.random.default_rng(0)
    right = rng.random((20_000, drafted)) < acceptance
    committed = 1 + np.cumprod(right, axis=1).sum(1)
    error = 4 * committed.std() / len(committed) ** 0.5
    assert chain_tokens(acceptance, drafted) == pytest.approx(committed.mean(), abs=error + 1e-12)


def test_chain_without_cost_is_worth_its_tokens_and_one_without_use_costs_what_it_costs() -> None:
    assert chain_speedup(0.7, 3, 0.0, 1.0) == chain_tokens(0.7, 3)
    assert chain_speedup(0.0, 3, 0.1, 1.2) == pytest.approx(1 / 1.5)


@pytest.mark.parametrize(("acceptance", "drafted"), [(-0.1, 3), (1.1, 3), (0.5, -1)])
def test_impossible_chain_is_refused(acceptance: float, drafted: int) -> None:
    with pytest.raises(LabkitError, match="lies in 0"):
        chain_tokens(acceptance, drafted)


def test_tree_study_of_one_choice_a_head_is_the_chain() -> None:
    acceptance = Acceptance(((0.6,), (0.6,), (0.6,)), 100)
    study = tree_study("mlp", "toy", acceptance, COSTS, [0.001, 0.001, 0.001], token_s=0.02)
    chain = [(0,), (0, 0), (0, 0, 0)]
    assert study.tokens_per_step(chain) == pytest.approx(chain_tokens(0.6, 3))
    assert study.cost(chain) == pytest.approx(1.1 + 3 * 0.05)
    assert study.speedup(chain) == pytest.approx(chain_speedup(0.6, 3, 0.05, 1.1))


def test_costs_are_by_drafted_nodes_and_never_fall() -> None:
    noisy = {1: 1.0, 2: 1.08, 4: 1.02, 8: 1.3}
    study = tree_study("mlp", "toy", Acceptance(((0.5,),), 9), noisy, [0.0], token_s=0.02)
    assert [(point.nodes, point.ratio) for point in study.verify] == [
        (0, 1.0),
        (1, 1.08),
        (3, 1.08),
        (7, 1.3),
    ]


def test_best_tree_grows_as_checking_gets_cheaper_and_vanishes_where_nothing_is_right() -> None:
    good = Acceptance(((0.5, 0.2, 0.1), (0.45, 0.2, 0.1), (0.4, 0.2, 0.1)), 100)

    def best(costs: dict[int, float], acceptance: Acceptance = good):
        study = tree_study("mlp", "toy", acceptance, costs, [0.001] * 3, token_s=0.02)
        return best_tree(study)

    flat = dict.fromkeys(COSTS, 1.0)
    steep = {n: 1 + 0.2 * (n - 1) for n in COSTS}
    assert best(flat).nodes > best(COSTS).nodes > best(steep).nodes > 0
    assert best(flat).speedup > best(COSTS).speedup > best(steep).speedup > 1
    found = best(COSTS)
    assert found.speedup == pytest.approx(found.tokens_per_step / found.cost)
    nothing = best(COSTS, Acceptance(((0.0,), (0.0,), (0.0,)), 100))
    assert (nothing.nodes, nothing.depth, nothing.speedup) == (0, 0, 1.0)


@pytest.mark.parametrize("hierarchical", [True, False], ids=["hierarchical", "medusa"])
def test_acceptance_by_rank_counts_where_each_choice_was_right(hierarchical: bool) -> None:
    rng = np.random.default_rng(1)
    heads = TorchHeads(speculator(hierarchical), DRAFT_IDS)
    texts = [
        (rng.normal(size=(n, WIDTH)).astype(np.float32), rng.choice(DRAFT_IDS, size=n + HEADS))
        for n in (7, 12)
    ]
    found = rank_acceptance(heads, texts, ranks=4)
    assert found.places == 19
    counts = np.zeros((HEADS, 4))
    for hidden, tokens in texts:
        for place in range(len(hidden)):
            start = state = heads.start(hidden[place])
            for head in range(HEADS):
                source = state if hierarchical else start
                given = tokens[[place + head]]
                state, _, ids, _ = heads.step(head, source, given, 4)
                counts[head] += ids[0] == tokens[place + head + 1]
    np.testing.assert_allclose(found.shares, counts / 19)
    assert counts.sum() > 0


def test_text_too_short_to_judge_is_refused() -> None:
    heads = TorchHeads(speculator(), DRAFT_IDS)
    text = (np.zeros((2, WIDTH), np.float32), np.zeros(2, np.int64))
    with pytest.raises(LabkitError, match="too short"):
        rank_acceptance(heads, [text])


def test_roofline_is_flat_until_its_ridge_and_then_rises() -> None:
    roof = Roofline(pass_bytes=5.4e8, parameters=1.35e8, bandwidth=3.6e10, speed=2.16e11)
    assert roof.seconds(1) == roof.seconds(int(roof.ridge)) == pytest.approx(0.015)
    assert roof.seconds(2 * round(roof.ridge)) == pytest.approx(0.03)
    half = Roofline(2.7e8, 1.35e8, 3.6e10, 2.16e11)
    assert half.ridge == pytest.approx(roof.ridge / 2), "fewer bytes, sooner bound by arithmetic"


def test_heads_that_know_the_text_have_rank_one_everywhere() -> None:
    heads = TorchHeads(speculator(), np.arange(VOCABULARY))
    z = np.random.default_rng(2).normal(size=(1, WIDTH)).astype(np.float32)
    tokens, state = [5], heads.start(z[0])
    for head in range(HEADS):
        state, _, ids, _ = heads.step(head, state, np.array(tokens[-1:]), 1)
        tokens.append(int(ids[0, 0]))
    found = rank_acceptance(heads, [(z, np.array(tokens))], ranks=3)
    assert found.shares == ((1.0, 0.0, 0.0),) * HEADS
