"""The switch: it takes the best bet, turns down as the batch fills, and shows why."""

from __future__ import annotations

import numpy as np
import pytest

from labkit.serving.batch import Batch, Step
from labkit.serving.costs import Curve, Measured, best_nodes, budgets, tokens_per_second
from labkit.serving.drafting import OneByOne
from labkit.serving.switch import PROBE, Switch, first_guess
from tests.speculative.fakes import Planned, ToyEngine


def machine(free_rows: int, per_row: float = 1.0) -> Measured:
    """``free_rows`` rows are looked at in 10 ms, each more takes ``per_row`` ms."""
    check = {
        rows: 0.01 + 1e-3 * per_row * max(0, rows - free_rows) for rows in range(1, 4 * free_rows)
    }
    return Measured(Curve({1: 0.01, 64: 0.05}), Curve(check), Curve({1: 0.0005, 100: 0.002}))


def step(batch: int, nodes: int, taken: tuple[int, ...], **seconds: float) -> Step:
    times = {"prefill_s": 0.0, "draft_s": 0.001, "check_s": 0.01, "rest_s": 0.0} | seconds
    return Step(
        batch=batch,
        nodes=nodes,
        drafted=batch * nodes,
        committed=batch + sum(taken),
        taken=taken,
        **times,
    )


def test_drafts_are_many_for_one_user_and_none_for_a_crowd() -> None:
    switch = Switch(12, machine(free_rows=16))
    chosen = [switch.nodes(batch) for batch in (1, 2, 4, 8, 16, 32)]
    assert chosen[0] == 12
    assert chosen[-1] == 0
    assert chosen == sorted(chosen, reverse=True)


def test_drafts_that_are_never_right_are_given_up_and_those_that_are_come_back() -> None:
    switch = Switch(4, machine(free_rows=4, per_row=2.0))
    assert switch.nodes(1) > 0
    for _ in range(100):
        nodes = switch.nodes(1)
        switch.learn(step(1, nodes, (0, 0, 0, 0)))
    assert switch.nodes(1) == 0
    assert switch.decisions[-1].after == 0
    for _ in range(20 * PROBE):
        nodes = switch.nodes(1)
        taken = tuple(int(rank < nodes and rank < 3) for rank in range(4))
        switch.learn(step(1, nodes, taken))
    assert switch.nodes(1) >= 2
    assert switch.decisions[-1].after > switch.decisions[-1].before


def test_a_cost_that_was_measured_too_high_is_found_out() -> None:
    """One row took 14 ms while another process ran, and takes 10: only trying it shows that."""
    costs = machine(free_rows=1)
    costs.check = Curve({1: 0.0139, 2: 0.014, 3: 0.018})
    switch = Switch(2, costs)
    chosen = []
    for number in range(12 * PROBE):
        nodes = switch.nodes(1)
        chosen.append(nodes)
        right = int(nodes > 0 and number % 10 < 3)
        switch.learn(step(1, nodes, (right, 0), check_s=0.01 + 0.004 * nodes, draft_s=0.0005))
    assert chosen[PROBE // 2] == 1
    assert chosen.count(0) > 4 * PROBE
    assert chosen[-PROBE:].count(0) >= PROBE - 2


def test_a_decision_says_what_each_choice_promised() -> None:
    switch = Switch(4, machine(free_rows=4))
    switch.nodes(1)
    for _ in range(150):
        switch.learn(step(1, 4, (0, 0, 0, 0)))
        switch.nodes(1)
    decision = switch.decisions[0]
    assert decision.rates[decision.after] > decision.rates[decision.before]
    assert set(decision.rates) == set(budgets(4))
    assert f"{decision.after} nodes a row promise" in str(decision)


def test_costs_follow_what_steps_take() -> None:
    switch = Switch(4, machine(free_rows=16))
    before = switch.costs.check(5)
    for _ in range(60):
        switch.learn(step(1, 4, (1, 0, 0, 0), check_s=0.03, draft_s=0.004))
    assert switch.costs.check(5) == pytest.approx(0.03, rel=0.05)
    assert switch.costs.check(5) > before
    assert switch.costs.draft(4) == pytest.approx(0.004, rel=0.05)


def test_ranks_that_were_not_drafted_keep_what_was_known_of_them() -> None:
    switch = Switch(4, machine(free_rows=16))
    for _ in range(300):
        switch.learn(step(2, 4, (2, 1, 0, 0)))
    known = switch.chances
    assert known == pytest.approx([1, 0.5, 0, 0], abs=0.02)
    for _ in range(300):
        switch.learn(step(2, 2, (0, 0, 0, 0)))
    assert switch.chances[:2] == pytest.approx([0, 0], abs=0.02)
    assert switch.chances[2:] == pytest.approx(known[2:])


def test_a_drafter_that_seldom_finds_anything_is_charged_for_what_it_drafts_only() -> None:
    costs = machine(free_rows=1)
    full = tokens_per_second(costs, 4, [0.1], (1,))[1]
    seldom = tokens_per_second(costs, 4, [0.1], (1,), filled=0.2)[1]
    assert seldom > full
    switch = Switch(2, costs)
    for _ in range(400):
        switch.learn(Step(batch=4, nodes=2, drafted=1, taken=(1, 0), draft_s=0.001, check_s=0.01))
    assert switch.rates(4)[2] == pytest.approx(
        tokens_per_second(costs, 4, switch.chances.tolist(), (2,), filled=1 / 8)[2], rel=0.01
    )


def test_the_batch_drafts_as_much_as_the_switch_says() -> None:
    toy = ToyEngine()
    made = OneByOne(lambda: Planned(toy, 4, lambda _: 4))
    switch = Switch(4, machine(free_rows=8, per_row=8.0))
    batch = Batch(toy, 8, 60, (), made, switch)
    batch.join([1], 30)
    alone = batch.step()
    for row in range(7):
        batch.join([row], 30)
    crowd = batch.step()
    assert alone.nodes == 4
    assert crowd.batch == 8
    assert crowd.nodes == 0
    assert crowd.drafted == 0


def test_a_curve_never_falls_and_goes_on_beyond_its_end() -> None:
    curve = Curve({1: 1.0, 2: 0.5, 4: 2.0})
    assert [curve(size) for size in (0, 1, 2, 3, 4, 6)] == [1.0, 1.0, 1.0, 1.5, 2.0, 3.0]
    assert Curve({3: 1.0})(100) == 1.0


@pytest.mark.parametrize("size", [1, 3, 4, 9])
def test_a_curve_learns_where_it_was_measured(size: int) -> None:
    curve = Curve({1: 1.0, 4: 1.0, 8: 1.0})
    for _ in range(200):
        curve.learn(size, 3.0)
    assert curve(size) == pytest.approx(3.0, rel=0.02)


def test_one_disturbed_step_moves_a_curve_little() -> None:
    curve = Curve({1: 1.0, 4: 1.0})
    curve.learn(1, 100.0)
    assert curve(1) < 1.2


def test_equal_bets_are_settled_for_the_fewest_nodes() -> None:
    assert best_nodes({0: 1.0, 2: 1.0, 4: 0.5}) == 0
    assert budgets(0) == (0,)
    assert budgets(1) == (0, 1)
    assert np.all(np.diff(first_guess(5)) < 0)
