"""The table of draft nodes: the best number at each load, none where drafts would lose."""

from __future__ import annotations

import pytest

from labkit.serving.costs import Curve, Measured, NodeTable, budgets
from labkit.speculative.batch import Batch, Drafting
from tests.speculative.fakes import Planned, ToyEngine

CHANCES = tuple(0.4 * 0.7**rank for rank in range(12))


def machine(free_rows: int, per_row: float = 1.0) -> Measured:
    """``free_rows`` rows are processed in 10 ms, each more takes ``per_row`` ms."""
    check = {
        rows: 0.01 + 1e-3 * per_row * max(0, rows - free_rows) for rows in range(1, 4 * free_rows)
    }
    return Measured(Curve({1: 0.01, 64: 0.05}), Curve(check), Curve({1: 0.0005, 100: 0.002}))


def test_drafts_are_many_for_one_user_and_none_for_a_crowd() -> None:
    table = NodeTable(machine(free_rows=16), CHANCES)
    chosen = [table.nodes(batch) for batch in (1, 2, 4, 8, 16, 32)]
    assert chosen[0] == 12
    assert chosen[-1] == 0
    assert chosen == sorted(chosen, reverse=True)


def test_the_table_takes_the_number_that_promises_most() -> None:
    table = NodeTable(machine(free_rows=4, per_row=2.0), CHANCES)
    for batch in range(1, 40):
        rates = table.rates(batch)
        assert set(rates) == set(budgets(12))
        assert rates[table.nodes(batch)] == max(rates.values()) >= rates[0]
        assert f"draft {table.nodes(batch)} nodes a row" in table.describe(batch)


@pytest.mark.parametrize("batch", [1, 4, 32])
def test_drafts_that_are_never_right_are_never_made(batch: int) -> None:
    assert NodeTable(machine(free_rows=64), (0.0,) * 12).nodes(batch) == 0


def test_drafts_that_take_longer_than_they_save_are_not_made() -> None:
    costs = Measured(Curve({1: 0.01}), Curve({1: 0.01}), Curve({1: 0.02}))
    assert NodeTable(costs, (0.9, 0.8)).nodes(1) == 0
    assert NodeTable(costs, (0.99, 0.98, 0.97)).nodes(1) == 3


def test_a_drafter_that_seldom_finds_anything_is_charged_for_what_it_drafts_only() -> None:
    costs = machine(free_rows=1)
    full = NodeTable(costs, (0.1,)).rates(4)[1]
    seldom = NodeTable(costs, (0.1,), filled=0.2).rates(4)[1]
    assert seldom > full


def test_the_batch_drafts_as_much_as_the_table_says() -> None:
    toy = ToyEngine()
    made = Drafting(lambda: Planned(toy, 4, lambda _: 4))
    table = NodeTable(machine(free_rows=8, per_row=8.0), CHANCES[:4])
    batch = Batch(toy, 8, 60, (), made, table.nodes)
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


def test_equal_rates_are_settled_for_the_fewest_nodes() -> None:
    free = Measured(Curve({1: 1.0}), Curve({1: 1.0}), Curve({1: 0.0}))
    assert set(NodeTable(free, (0.0, 0.0)).rates(1).values()) == {1.0}
    assert NodeTable(free, (0.0, 0.0)).nodes(1) == 0
    assert NodeTable(free, (0.5, 0.0)).nodes(1) == 1
    assert budgets(0) == (0,)
    assert budgets(1) == (0, 1)
