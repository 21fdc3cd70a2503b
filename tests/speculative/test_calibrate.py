"""Calibration: medians of turns taken, kept where they mean something, used where they are kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd import DeviceType

from labkit import threads
from labkit.errors import LabkitError
from labkit.kernels.bandwidth import PIECE, Probe, read_through
from labkit.kernels.cuda import CudaEngine
from labkit.kernels.engine import TorchProbe
from labkit.speculative import calibrate as module
from labkit.speculative.calibrate import (
    PROMPTS,
    TOKENS,
    UNCALIBRATED_NODES,
    calibrate,
    count_launches,
    default_nodes,
    keep,
    kept,
    kept_at,
    own_texts,
    passes_over,
    summary,
    time_all,
)
from labkit.speculative.decoder import Decoder
from labkit.speculative.drafters.mlp import TorchHeads
from labkit.speculative.theory import Prediction
from tests.kernels.shapes import llama, small_model
from tests.speculative.fakes import ToyEngine
from tests.speculative.test_mlp import DRAFT_IDS, HEADS, speculator

BASE: Any = SimpleNamespace(name="toy", context=300, eos_ids=frozenset())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(threads, "contention", lambda: 0.0)
    return tmp_path


def planted(repeats: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Passes of 10 ms that cost 1% more for each further token, on a machine that halves its speed.

    The halving comes after two of the repeats, and hits the reading of memory as well.
    """
    pace = np.array([1.0, 1.0, 2.0, 2.0, 2.0])[:repeats, None]
    costs = np.array([1 + 0.01 * (n - 1) for n in TOKENS])
    speeds = 1.25e5 / pace[:, 0]  # 1,000 bytes take 8 ms
    return 0.01 * pace * costs, np.empty((repeats, 0)), speeds


def test_ratios_are_of_passes_of_the_same_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "time_all", lambda *_: planted())
    found = calibrate(BASE, ToyEngine(), repeats=5)
    assert found.verify_cost == pytest.approx({n: 1 + 0.01 * (n - 1) for n in TOKENS})
    assert found.token_ms == pytest.approx(20)
    assert found.limit_ratio == pytest.approx(1.25)
    assert found.bandwidth_gb_s == pytest.approx(6.25e-5)
    assert not found.contended
    assert found.tree is None


def test_passes_and_heads_take_turns_and_leave_the_cache_as_it_was() -> None:
    engine = ToyEngine(vocabulary=40)
    heads = TorchHeads(speculator(), DRAFT_IDS)
    passes, of_each_head, speeds = time_all(engine, heads, cached=20, repeats=3)
    assert passes.shape == (3, len(TOKENS))
    assert of_each_head.shape == (3, HEADS)
    assert speeds.tolist() == [1e9] * 3
    assert (passes > 0).all()
    assert (of_each_head > 0).all()
    assert engine.passes == [20, *TOKENS * 4]


def test_calibration_of_cudas_path_counts_what_every_layer_launches() -> None:
    def engine(layers: int) -> CudaEngine:
        model = small_model("Llama", num_hidden_layers=layers)
        made = CudaEngine(llama(model), torch.device("cpu"), torch.float32)
        made.bandwidth_probe = lambda: TorchProbe(made.device, 100)
        return made

    found = calibrate(BASE, engine(2), repeats=1)
    two, three = (
        count_launches(passes_over((1,), engine(layers), 20)[0], torch.device("cpu"))
        for layers in (2, 3)
    )
    assert found.launches == two
    each = three - two
    assert 10 < each < 60
    assert two > 2 * each, "embedding, last norm and head come on top"


def test_kernels_are_counted_by_the_profiler_and_copies_are_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = [("gemm", DeviceType.CUDA), ("Memcpy HtoD", DeviceType.CUDA), ("launch", DeviceType.CPU)]
    events = [SimpleNamespace(name=name, device_type=where) for name, where in seen]

    @contextmanager
    def profiler(activities: list[object]) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(events=lambda: events)

    monkeypatch.setattr(module, "profile", profiler)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    runs: list[int] = []
    assert count_launches(lambda: runs.append(1), torch.device("cuda")) == 1
    assert len(runs) == 2, "the first run compiles"


def test_states_are_those_before_each_token_of_the_answer() -> None:
    engine = ToyEngine()
    base: Any = SimpleNamespace(**vars(BASE), encode=lambda text: [ord(c) % 11 for c in text])
    texts = own_texts(base, engine)
    assert len(texts) == len(PROMPTS)
    for prompt, (states, answer) in zip(PROMPTS, texts, strict=True):
        ids = base.encode(prompt)
        assert answer.tolist() == engine.greedy(ids, len(answer))
        for place in range(len(answer)):
            expected = engine.hidden_after([*ids, *answer[:place].tolist()])
            np.testing.assert_array_equal(states[place], expected.numpy())


def measured(
    nodes: int | None, contention: float = 0.0, name: str = "toy", speedup: float = 1.7
) -> module.Calibration:
    tree = None
    if nodes is not None:
        tree = Prediction(nodes=nodes, depth=3, tokens_per_step=2.0, cost=1.2, speedup=speedup)
    return module.Calibration(
        version=2,
        base=name,
        path="weights once",
        device="cpu",
        threads=2,
        waiting="as OpenMP likes",
        contention=contention,
        repeats=3,
        cached_tokens=200,
        token_ms=16.0,
        verify_cost={1: 1.0, 2: 1.01},
        bytes_per_pass=538_000_000,
        bandwidth_gb_s=35.0,
        limit_ratio=1.04,
        tree=tree,
    )


def nodes_by_default(base: str = "toy", path: str = "weights once") -> int:
    """What a model without heads would draft by default on an engine of this name."""

    def none() -> Any:
        raise LabkitError("no heads")

    engine = ToyEngine()
    engine.name = path
    return default_nodes(SimpleNamespace(name=base), engine, none)


def test_kept_calibration_decides_how_many_nodes_are_drafted() -> None:
    assert nodes_by_default() == UNCALIBRATED_NODES
    assert keep(measured(17)) == kept_at("toy", "weights once")
    assert kept("toy", "weights once") == measured(17)
    assert nodes_by_default() == 17
    assert nodes_by_default(path="weights once, bfloat16") == UNCALIBRATED_NODES
    assert nodes_by_default("other") == UNCALIBRATED_NODES


def test_nothing_is_drafted_where_no_tree_pays_and_a_model_without_heads_favours_none() -> None:
    keep(measured(0, speedup=1.0))
    assert nodes_by_default() == 0
    keep(measured(4, speedup=1.01))
    assert nodes_by_default() == 0
    keep(measured(None))
    assert nodes_by_default() == UNCALIBRATED_NODES


def test_engine_with_small_weights_is_calibrated_before_its_first_draft(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[int] = []

    def quick(base: Any, engine: Any, heads: Any, repeats: int) -> module.Calibration:
        made.append(repeats)
        return measured(0, speedup=1.0).model_copy(update={"path": engine.name})

    monkeypatch.setattr(module, "calibrate", quick)
    engine = ToyEngine()
    engine.name = "weights once, q4_1"
    for _ in range(2):
        assert default_nodes(SimpleNamespace(name="toy"), engine, lambda: None) == 0
    assert made == [module.QUICK]


def test_machines_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    keep(measured(17))
    monkeypatch.setattr(threads, "cores", lambda: 99)
    assert nodes_by_default() == UNCALIBRATED_NODES


def test_calibration_of_a_busy_machine_is_not_kept_and_says_so() -> None:
    busy = measured(9, contention=0.4)
    assert keep(busy) is None
    assert kept("toy", "weights once") is None
    assert "40%" in summary(busy)
    assert "not kept" not in summary(measured(9))


def test_damaged_calibration_is_as_good_as_none() -> None:
    path = keep(measured(9))
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    assert nodes_by_default() == UNCALIBRATED_NODES


def test_models_in_folders_are_kept_apart_from_each_other() -> None:
    first, second = kept_at("/models/a", "weights once"), kept_at("/models/b", "weights once")
    assert first != second
    assert first.parent == second.parent


def test_whole_calibration_of_a_toy(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Probe(4 * PIECE)
    monkeypatch.setattr(decoder.engine, "bandwidth_probe", lambda: small)
    monkeypatch.setattr(module, "PROMPTS", module.PROMPTS[:1])
    found = calibrate(decoder.base, decoder.engine, decoder.heads, repeats=2)
    assert list(found.verify_cost) == list(TOKENS)
    assert found.verify_cost[1] == 1
    assert min(found.verify_cost.values()) > 0
    assert found.cached_tokens == 128 - 32
    assert len(found.head_ms) == len(found.acceptance) == 3
    assert found.places > 0
    assert found.tree is not None
    assert found.limit_ratio > 0
    assert found.launches == 0, "numba compiles a whole pass, so none is an operator of torch"
    text = summary(found)
    assert "tree favoured" in text
    assert "tokens a step" in text
    assert module.Calibration.model_validate_json(found.model_dump_json()) == found


def test_drafted_trees_are_as_large_as_the_calibration_favours(
    toy_folder: Path, toy_heads: Path
) -> None:
    decoder = Decoder(str(toy_folder), toy_heads)
    assert decoder.max_nodes == UNCALIBRATED_NODES
    keep(measured(5, name=str(toy_folder)))
    decoder = Decoder(str(toy_folder), toy_heads)
    assert decoder.max_nodes == 5
    assert decoder.drafter("mlp").max_nodes == 5
    assert Decoder(str(toy_folder), toy_heads, max_nodes=3).max_nodes == 3


@pytest.mark.parametrize("method", ["mlp", "mlp_lookup", "prompt_lookup", "eagle"])
def test_decoder_whose_trees_do_not_pay_drafts_nothing(
    toy_folder: Path, toy_heads: Path, method: str
) -> None:
    keep(measured(3, name=str(toy_folder), speedup=0.9))
    decoder = Decoder(str(toy_folder), toy_heads)
    made = decoder.generate("abc", 8, method)
    assert made.tokens == decoder.generate("abc", 8).tokens
    assert len(made.steps) == 7
    assert not any(len(step.draft) for step in made.steps)
    assert "No tree of drafts pays" in decoder.record(made, "abc", method).note
    assert not decoder.record(made, "abc", "vanilla").note


def test_parts_of_a_pass_are_timed_apart(decoder: Decoder) -> None:
    found = module.time_parts(decoder.engine, repeats=1)
    assert set(found) >= {"attention", "feed-forward", "vocabulary head"}
    assert all(one > 0 and many > 0 for one, many in found.values())
    with pytest.raises(LabkitError, match="'toy' cannot time"):
        module.time_parts(ToyEngine())


def test_difference_of_storages_is_nothing_for_the_same_and_something_for_another() -> None:
    engine, text = ToyEngine(vocabulary=9), [1, 2, 3, 4, 5, 6, 7, 8] * 12
    same = module.difference(engine, ToyEngine(vocabulary=9), text)
    assert (same.tokens, same.logit_error, same.equal_tokens) == (95, 0, 1)
    assert same.perplexity == same.reference_perplexity > 1
    other = module.difference(engine, ToyEngine(vocabulary=9, seed=1), text)
    assert other.logit_error > 0.5
    assert other.equal_tokens < 0.5
    with pytest.raises(LabkitError, match="too short"):
        module.difference(engine, engine, [1])


def test_probe_reads_every_number() -> None:
    numbers = np.arange(2 * PIECE, dtype=np.float32) % 7
    assert read_through(numbers) == pytest.approx(float(numbers.astype(float).sum()), rel=1e-5)
    assert 1e6 < Probe(4 * PIECE)() < 1e13
    assert 1e6 < TorchProbe(ToyEngine.device, 4 * PIECE)() < 1e13


@pytest.mark.parametrize(
    ("context", "repeats", "says"), [(32, 3, "too short"), (300, 0, "at least 1")]
)
def test_what_cannot_be_measured_is_refused(context: int, repeats: int, says: str) -> None:
    base: Any = SimpleNamespace(name="toy", context=context)
    with pytest.raises(LabkitError, match=says):
        calibrate(base, ToyEngine(), repeats=repeats)
