"""The simulation: its arithmetic, its loop against the real one, and a 13B model on an A100."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import LabkitError
from labkit.records import LossLog, ServingLog, ServingRow, ValidationPoint
from labkit.serving import bench
from labkit.serving.bench import Level, Loads, bench_simulated, shipped_acceptance
from labkit.serving.costs import Costs, Curve, Measured, NodeTable
from labkit.serving.load import summarise
from labkit.serving.simulate import (
    BYTES_A_WEIGHT,
    LAUNCH_S,
    Check,
    GpuCosts,
    Job,
    chances_by_rank,
    check_prediction,
    gains,
    simulate,
)
from labkit.speculative.batch import Batch, Drafting
from labkit.speculative.generate import PREFILL_ROWS
from labkit.training.plan import GPUS
from tests.speculative.fakes import Planned, ToyEngine

ACCEPT = ((0.55, 0.15), (0.45, 0.1), (0.4, 0.1))
FLAT = Measured(Curve({1: 0.5}), Curve({1: 1.0}), Curve({1: 0.25}))


def vanilla(costs: Costs) -> NodeTable:
    return NodeTable(costs, ())


class Stubborn(NodeTable):
    """Drafts as much as it can at every load."""

    def nodes(self, batch: int, cached: int = 0) -> int:
        return len(self.chances)


def test_one_user_alone_by_hand() -> None:
    made = simulate(vanilla(FLAT), [Job(10, 4)] * 2, users=1)
    first, second = made.answers
    assert first.arrivals == (0.5, 1.5, 2.5, 3.5)
    assert second.sent == 3.5
    assert second.arrivals == (4.0, 5.0, 6.0, 7.0)
    assert made.seconds == 7.0
    assert (made.tokens_per_step, made.nodes_per_step) == (1.0, 0.0)


def test_certain_drafts_by_hand() -> None:
    made = simulate(NodeTable(FLAT, (1.0, 1.0)), [Job(10, 7)], 1)
    (answer,) = made.answers
    assert answer.arrivals == (0.5, 1.75, 3.0)
    assert answer.tokens == 7
    assert (made.tokens_per_step, made.nodes_per_step) == (3.0, 2.0)


def test_a_user_who_comes_later_waits_for_a_slot_and_for_the_chunk_before_his() -> None:
    made = simulate(vanilla(FLAT), [Job(10, 3)] * 3, users=3, slots=2, prefill_rows=15)
    a, b, c = made.answers
    assert a.arrivals == (0.5, 1.5, 3.0)
    assert b.arrivals == (2.0, 3.0, 4.5)
    assert c.arrivals == (3.5, 4.5, 5.5)


@given(
    jobs=st.lists(st.tuples(st.integers(1, 150), st.integers(1, 12)), min_size=1, max_size=8),
    slots=st.integers(1, 4),
    right=st.integers(0, 3),
)
@settings(max_examples=25, deadline=None)
def test_it_takes_the_steps_that_the_batch_itself_takes(
    jobs: list[tuple[int, int]], slots: int, right: int
) -> None:
    toy = ToyEngine()
    made = Drafting(lambda: Planned(toy, 3, lambda _: right))
    batch = Batch(toy, slots, 200, (), made)
    waiting = list(jobs)
    steps = []
    while waiting or batch.running:
        while waiting and batch.free:
            prompt, limit = waiting.pop(0)
            batch.join([1] * prompt, limit)
        steps.append(batch.step())
    costs = Measured(Curve({1: 1.0}), Curve({1: 1000.0}), Curve({1: 0.0}))
    table = Stubborn(costs, (1.0,) * right + (0.0,) * (3 - right))
    simulated = simulate(table, [Job(*job) for job in jobs], len(jobs), slots, PREFILL_ROWS)
    prompts = sum(step.prompt_rows > 0 for step in steps)
    answers = sum(step.batch > 0 for step in steps)
    assert simulated.seconds == pytest.approx(prompts + 1000 * answers)


def test_chances_are_products_along_paths_in_falling_order() -> None:
    chances = chances_by_rank(ACCEPT, 100)
    assert len(chances) == 2 + 4 + 8
    assert chances[:3] == pytest.approx([0.55, 0.55 * 0.45, 0.15])
    assert all(a >= b for a, b in pairwise(chances))
    assert chances_by_rank(ACCEPT, 3) == chances[:3]


def test_13b_on_an_a100_gains_most_alone_and_less_with_every_doubling_of_users() -> None:
    levels = [Level(users) for users in (1, 2, 4, 8, 16, 32, 64, 128)]
    for accept in (ACCEPT, [[0.5], [0.42], [0.4]]):
        log = bench_simulated("a100", 13e9, accept, Loads(levels)).log
        found = [gains(log.rows, "simulated")[level.users, "mlp"] for level in levels]
        assert found[0] > 1.3
        assert all(b < a + 0.01 for a, b in pairwise(found))
        assert found[-1] < found[0] - 0.3
        assert found[-1] > 0.95, "speculation that has become a loss turns itself down"
        drafted = [row.nodes_per_step for row in log.rows if row.method == "mlp"]
        assert drafted[-1] < drafted[0] / 2
        assert ServingLog.from_json(log.to_json()) == log


def test_drafting_on_regardless_becomes_a_loss() -> None:
    costs = GpuCosts.of("a100", 13e9, 256)
    jobs = [Job(128, 32)] * 256
    chances = tuple(chances_by_rank(ACCEPT, 12))
    plain, stubborn, clever = (
        summarise(simulate(table, jobs, 128), 128, "x").tokens_per_s
        for table in (vanilla(costs), Stubborn(costs, chances), NodeTable(costs, chances))
    )
    assert stubborn < 0.75 * plain
    assert clever > plain


def test_a_decoding_step_of_13b_takes_what_reading_its_weights_takes() -> None:
    costs = GpuCosts.of("a100", 13e9, 256)
    reading = 26e9 / (0.75 * 2039e9)
    assert costs.check_s(1, 0) == pytest.approx(reading + LAUNCH_S)
    assert costs.check_s(8, 0) == costs.check_s(1, 0)
    assert costs.check_s(1000, 0) == pytest.approx(2 * 13e9 * 1000 / (0.6 * 312e12) + LAUNCH_S)
    assert costs.check_s(1, 10_000) - costs.check_s(1, 0) == pytest.approx(
        10_000 * 4 * 40 * costs.width / (0.75 * 2039e9)
    )
    assert GpuCosts.of("a100", 13e9, 256, heads=5).draft_s(1, 8) > costs.draft_s(1, 8)
    assert costs.draft_s(1, 0) == 0
    assert costs.draft_s(1, 1) < costs.draft_s(1, 3) < 0.2 * costs.check_s(1, 0)


@pytest.mark.parametrize(
    ("gpu", "parameters", "width"),
    [
        ("a100", 13e9, "16 bits"),
        ("t4", 7e9, "8 bits"),
        ("t4", 13e9, "8 bits"),
        ("a100", 70e9, "8 bits"),
        ("a100", 120e9, "4 bits"),
        ("h200", 13e9, "16 bits"),
    ],
)
def test_weights_are_as_wide_as_the_memory_allows(gpu: str, parameters: float, width: str) -> None:
    costs = GpuCosts.of(gpu, parameters, 256)
    assert costs.weight == width
    assert costs.slots(256) >= 1
    used = parameters * BYTES_A_WEIGHT[costs.weight] + costs.slots(256) * 256 * costs.cache_bytes
    assert used < GPUS[gpu].memory


def test_a_faster_memory_answers_one_user_sooner() -> None:
    speeds = [
        bench_simulated(gpu, 7e9, ACCEPT, Loads([Level(1)])).log.rows[0].tpot_ms.mean
        for gpu in ("t4", "a100", "h100", "h200")
    ]
    assert speeds == sorted(speeds, reverse=True)


@pytest.mark.parametrize(
    ("gpu", "parameters", "said"),
    [
        ("b17", 13e9, "There is no GPU 'b17': give one of a100, h100, h200, l4, t4"),
        ("t4", 70e9, "does not fit one NVIDIA T4 16 GB even in 4 bits"),
        ("a100", 12, "A model of 12 parameters was asked for"),
        ("a100", float("nan"), "A model of nan parameters was asked for"),
    ],
)
def test_what_cannot_be_computed_is_refused(gpu: str, parameters: float, said: str) -> None:
    with pytest.raises(LabkitError, match=said):
        bench_simulated(gpu, parameters, ACCEPT, Loads([Level(1)]))


def test_shares_that_are_none_rates_and_empty_loads_are_refused() -> None:
    for accept in ([], [[1.2]], [[0.7, 0.4]], [[-0.1]]):
        with pytest.raises(LabkitError, match="a share between 0 and 1"):
            bench_simulated("a100", 13e9, accept, Loads([Level(1)]))
    with pytest.raises(LabkitError, match="give no rates"):
        bench_simulated("a100", 13e9, ACCEPT, Loads([Level(rate=2.0)]))
    for users, jobs, slots in ((0, [Job(1, 1)], None), (1, [], None), (1, [Job(1, 1)], 0)):
        with pytest.raises(LabkitError, match="at least 1"):
            simulate(vanilla(FLAT), jobs, users, slots=slots)


def test_the_same_seed_gives_the_same_log() -> None:
    def made(seed: int) -> list[ServingRow]:
        return list(bench_simulated("a100", 13e9, ACCEPT, Loads([Level(8)], seed=seed)).log.rows)

    assert made(1) == made(1)
    assert made(1) != made(2)


def test_mlp_shape_of_llamas() -> None:
    large, middle, small = (GpuCosts.of("a100", size, 256) for size in (13e9, 7e9, 1e8))
    assert (large.layers, middle.layers) == (40, 33)
    assert large.head_parameters == 4096 * (large.width + 32_000)
    assert small.head_parameters == small.width * (small.width + 32_000)
    assert small.width < 4096


def row(users: int, method: str, origin: str, tpot_s: float) -> ServingRow:
    made = simulate(
        vanilla(Measured(Curve({1: 0.0}), Curve({1: tpot_s}), Curve({1: 0.0}))), [Job(1, 5)], 1
    )
    return summarise(made, users, method, origin)


def test_predicted_and_measured_gains_stand_side_by_side_where_there_are_both() -> None:
    rows = [
        row(1, "vanilla", "measured", 0.03),
        row(1, "mlp", "measured", 0.02),
        row(1, "vanilla", "simulated", 0.02),
        row(1, "mlp", "simulated", 0.01),
        row(2, "vanilla", "measured", 0.03),
        row(2, "mlp", "measured", 0.03),
    ]
    (check,) = check_prediction(rows)
    assert (check.users, check.method) == (1, "mlp")
    assert (check.measured, check.predicted) == (pytest.approx(1.5), pytest.approx(2.0))
    assert check.error == pytest.approx(2.0 / 1.5 - 1)
    assert Check(1, "mlp", 2.0, 2.0).error == 0


def test_acceptance_comes_from_the_log_of_the_shipped_heads(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    with pytest.raises(LabkitError, match="No record of heads for 'mine'"):
        shipped_acceptance("mine")
    log = LossLog(name="mine", base="mine", heads=2)
    path = tmp_path / "heads" / "mine" / "losslog.json"
    log.save(path)
    with pytest.raises(LabkitError, match="has no validation"):
        shipped_acceptance("mine")
    points = tuple(
        ValidationPoint(phase=2, step=s, tokens=s, loss=(1.0, 1.0), accept=(0.1 * s, 0.2))
        for s in (1, 5)
    )
    log.model_copy(update={"validation": points}).save(path)
    assert shipped_acceptance("mine") == [0.5, 0.2]
    assert bench.heads_folder("mine") == path.parent
    heads = [{"top1": 0.3, "top4": 0.6}, {"top1": 0.25, "top4": 0.5}]
    (path.parent / "evaluation.json").write_text(json.dumps({"heads": heads}), encoding="utf-8")
    assert shipped_acceptance("mine") == [0.3, 0.25], "the benchmark's prompts come first"
    assert json.loads(path.read_text(encoding="utf-8"))["kind"] == "losslog"
