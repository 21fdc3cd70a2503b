"""The pass of fixed shapes: its bookkeeping anywhere, its graphs where there is a GPU."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import LabkitError
from labkit.kernels.cuda import BLOCK, IDLE, ROOM, WIDTHS, CudaEngine, arrange
from labkit.kernels.engine import Cache, Rows, Stacked, stack
from labkit.speculative.generate import generate
from labkit.speculative.tree import Draft
from tests.kernels.shapes import SIZES, llama, small_model
from tests.kernels.test_weights_once import trees
from tests.speculative.fakes import Dice, ToyEngine

MODELS = {
    **{f"Llama, {name}": ("Llama", size) for name, size in SIZES.items()},
    "Qwen2": ("Qwen2", {}),
    "Qwen3": ("Qwen3", {"head_dim": 16}),
}
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU with CUDA"),
    ),
]


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture(scope="module", params=MODELS)
def pair(
    request: pytest.FixtureRequest, device: torch.device
) -> tuple[torch.nn.Module, CudaEngine]:
    kind, sizes = MODELS[request.param]
    model = small_model(kind, **sizes)
    return model, CudaEngine(llama(model), device, torch.float32)


def close(got: torch.Tensor, expected: torch.Tensor) -> None:
    scale = expected.abs().max()
    torch.testing.assert_close(got.cpu() / scale, expected / scale, rtol=0, atol=1e-3)


@torch.no_grad()
def whole_text(model: torch.nn.Module, tokens: list[int]) -> torch.Tensor:
    return model(torch.tensor([tokens])).logits[0]


def stacked(rows: list[Rows], lengths: np.ndarray) -> Stacked:
    """The rows of a pass over slots that hold ``lengths`` tokens."""
    cache = Cache(512, len(lengths))
    cache.lengths[:] = lengths
    return stack(ToyEngine(vocabulary=100), rows, cache)


@given(
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_padding_is_seen_by_nobody_and_written_where_it_harms_nobody(
    counts: list[int], data: st.DataObject
) -> None:
    slots = data.draw(st.permutations(range(6)))[: len(counts)]
    lengths = np.array(data.draw(st.lists(st.integers(0, 300), min_size=6, max_size=6)))
    room = 2 * BLOCK
    rows = [Rows(range(1, count + 1), slot) for count, slot in zip(counts, slots, strict=True)]
    given_, true = arrange(stacked(rows, lengths), spare=6, room=room)
    groups, width, end = given_.shape
    assert groups >= len(counts)
    assert width in WIDTHS
    assert end % BLOCK == 0
    mask = given_.mask[:, 0].numpy()
    assert mask.any(-1).all(), "a token that sees nothing would be no number"
    for g, (count, slot) in enumerate(zip(counts, slots, strict=True)):
        places = given_.places[g].numpy()
        assert places.tolist() == list(range(lengths[slot], lengths[slot] + width))
        assert places[-1] < room
        for i in range(count):
            assert np.flatnonzero(mask[g, i]).tolist() == list(range(lengths[slot] + i + 1))
        assert given_.tokens[g, :count].tolist() == list(range(1, count + 1))
        assert given_.positions[g, :count].tolist() == places[:count].tolist()
    assert (given_.slots[len(counts) :] == 6).all()
    picked = given_.tokens.flatten()[true]
    assert picked.tolist() == [token for count in counts for token in range(1, count + 1)]


@given(draft=trees(), length=st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_trees_mask_is_moved_behind_what_the_cache_holds(draft: Draft, length: int) -> None:
    given_, _ = arrange(stacked([draft.rows(1)], np.array([length])), spare=0, room=2 * BLOCK)
    many = len(draft) + 1
    mask = given_.mask[0, 0, :many].numpy()
    assert mask[:, :length].all()
    assert (mask[:, length : length + many] == draft.visible()).all()
    assert not mask[:, length + many :].any()
    assert given_.positions[0, :many].tolist() == [length + d for d in (0, *draft.depths)]


def test_pass_wider_than_any_recorded_one_is_refused() -> None:
    with pytest.raises(LabkitError, match="64"):
        arrange(stacked([Rows(range(65))], np.zeros(1, np.int64)), 0, 512)


def test_logits_are_transformers_own(pair: tuple[torch.nn.Module, CudaEngine]) -> None:
    model, engine = pair
    tokens = np.random.default_rng(0).integers(engine.vocabulary, size=30).tolist()
    cache = engine.new_cache(40)
    found = []
    for low, high in ((0, 9), (9, 10), (10, 30)):
        out = engine.forward([Rows(tokens[low:high])], cache)
        assert out.hidden.shape == (high - low, engine.width)
        found.append(out.logits.clone())
        cache.commit(range(high - low))
    close(torch.cat(found), whole_text(model, tokens))


def test_states_of_other_layers_stand_before_the_last_ones(
    pair: tuple[torch.nn.Module, CudaEngine],
) -> None:
    model, engine = pair
    before = engine.forward([Rows([3, 4, 5])], engine.new_cache(8)).hidden.clone()
    out = engine.forward([Rows([3, 4, 5])], engine.new_cache(8), layers=(1,))
    with torch.no_grad():
        ids = torch.tensor([[3, 4, 5]], device=next(model.parameters()).device)
        states = model.model(ids, output_hidden_states=True).hidden_states
    first, last = out.hidden.split(engine.width, dim=1)
    close(first, states[1][0])
    assert torch.equal(last, before)


def test_tree_is_checked_and_its_path_kept(pair: tuple[torch.nn.Module, CudaEngine]) -> None:
    model, engine = pair
    tokens = [5, 6, 7, 8, 9]
    draft = Draft((1, 2, 3, 4, 1), (-1, -1, 1, 2, 0), (None,) * 5, ("",) * 5)
    cache = engine.new_cache(40)
    engine.forward([Rows(tokens[:-1])], cache)
    cache.commit(range(4))
    logits = engine.forward([draft.rows(9)], cache).logits.clone()
    close(logits[[0, 2, 3, 4]], whole_text(model, [*tokens, 2, 3, 4])[4:])
    close(logits[[0, 1, 5]], whole_text(model, [*tokens, 1, 1])[4:])
    cache.commit([0, 2, 3])
    after = engine.forward([Rows([8])], cache).logits
    close(after, whole_text(model, [*tokens, 2, 3, 8])[-1:])


def test_slots_are_apart_and_can_be_cut_and_copied(
    pair: tuple[torch.nn.Module, CudaEngine],
) -> None:
    model, engine = pair
    cache = engine.new_cache(40, slots=4)
    texts = {3: [1, 2, 3, 4, 5], 0: [6, 7], 1: [8]}
    out = engine.forward([Rows(text, slot) for slot, text in texts.items()], cache, "last")
    close(out.logits, torch.stack([whole_text(model, text)[-1] for text in texts.values()]))
    assert len(out.hidden) == 8
    for slot, text in texts.items():
        cache.commit(range(len(text)), slot)
    cache.truncate(3, 3)
    cache.copy_slot(3, 2)
    engine.forward([Rows([9], 3)], cache)
    cache.commit([0], 3)
    assert cache.lengths.tolist() == [2, 1, 3, 4]
    texts = {3: [1, 2, 3, 9], 2: [1, 2, 3], 0: [6, 7]}
    got = engine.forward([Rows([10], slot) for slot in texts], cache).logits
    close(got, torch.stack([whole_text(model, [*text, 10])[-1] for text in texts.values()]))


def test_greedy_output_with_drafts_is_that_without(
    pair: tuple[torch.nn.Module, CudaEngine],
) -> None:
    _, engine = pair
    vanilla = generate(engine, [1, 2, 3], 30)
    drafted = generate(engine, [1, 2, 3], 30, Dice(engine.vocabulary, (3, 2), (False, False)))
    assert drafted.tokens == vanilla.tokens or drafted.narrow or vanilla.narrow


def test_cache_that_nobody_uses_is_used_again_with_its_graphs(
    pair: tuple[torch.nn.Module, CudaEngine],
) -> None:
    model, engine = pair
    first, second = engine.new_cache(30), engine.new_cache(30)
    assert first.buffers is not second.buffers
    engine.forward([Rows([3, 4, 5])], first)
    first.commit(range(3))
    buffers = first.buffers
    del first
    gc.collect()
    third = engine.new_cache(40)
    assert third.buffers is buffers
    assert third.lengths[0] == 0
    close(engine.forward([Rows([7])], third).logits, whole_text(model, [7]))
    if engine.recording:
        assert buffers.graphs


def test_only_a_few_unused_caches_are_kept() -> None:
    model = small_model("Llama")
    engine = CudaEngine(llama(model), torch.device("cpu"), torch.float32)
    for capacity in range(10, 10 + ROOM * (IDLE + 3), ROOM):
        engine.new_cache(capacity)
    gc.collect()
    assert len(engine._idle) == IDLE


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU with CUDA")
def test_replayed_pass_gives_what_the_pass_gives_unrecorded() -> None:
    model = small_model("Llama")
    engines = [CudaEngine(llama(model), torch.device("cuda")) for _ in range(2)]
    engines[1].recording = False
    outs = []
    for engine in engines:
        cache = engine.new_cache(40)
        for tokens in ([1, 2, 3], [4], [5], [6, 7, 8]):
            out = engine.forward([Rows(tokens)], cache)
            cache.commit(range(len(tokens)))
        outs.append(out.logits.clone())
    torch.testing.assert_close(outs[0], outs[1], rtol=0.02, atol=0.02)
