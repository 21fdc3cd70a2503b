"""The forward pass that reads each weight once: exact to the bit, and the model it says it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import LabkitError
from labkit.kernels.engine import Rows
from labkit.kernels.llama import LlamaWeights
from labkit.kernels.panel import BLOCK, Q4_1, Q8_0
from labkit.kernels.weights_once import WeightsOnce
from labkit.speculative.tree import Draft
from tests.kernels.shapes import SIZES, arrays, llama, small_model
from tests.kernels.test_panel import quantised

MODELS = {
    **{f"Llama, {name}": ("Llama", size) for name, size in SIZES.items()},
    "Llama, heads of 24": ("Llama", {"head_dim": 24}),
    "Llama, stretched rotary embedding": (
        "Llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0}},
    ),
    "Mistral without window": ("Mistral", {"sliding_window": None}),
    "Qwen2, biased q k v": ("Qwen2", {}),
    "Qwen3, norms on queries and keys": ("Qwen3", {"head_dim": 16}),
}


@pytest.fixture(scope="module", params=MODELS)
def pair(request: pytest.FixtureRequest) -> tuple[torch.nn.Module, WeightsOnce]:
    """transformers' model and the same weights on panels."""
    kind, sizes = MODELS[request.param]
    model = small_model(kind, **sizes)
    return model, WeightsOnce(llama(model))


@pytest.fixture(scope="module")
def engine() -> WeightsOnce:
    model = small_model("Llama", **SIZES["odd widths, heads of 16"])
    return WeightsOnce(llama(model))


def tokens_of(engine: WeightsOnce, count: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(engine.vocabulary, size=count).tolist()


def one_at_a_time(engine: WeightsOnce, tokens: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (T, V) and hidden states (T, D), each token in a pass of its own."""
    cache = engine.new_cache(len(tokens))
    outs = []
    for token in tokens:
        out = engine.forward([Rows([token])], cache)
        outs.append((out.logits[0].clone(), out.hidden[0].clone()))
        cache.commit([0])
    logits, hidden = zip(*outs, strict=True)
    return torch.stack(logits), torch.stack(hidden)


def in_chunks(engine: WeightsOnce, tokens: list[int], sizes: list[int]) -> torch.Tensor:
    """Logits (T, V), the tokens looked at in pieces of these sizes, again and again."""
    cache = engine.new_cache(len(tokens))
    rows, start, turn = [], 0, 0
    while start < len(tokens):
        piece = tokens[start : start + sizes[turn % len(sizes)]]
        rows.append(engine.forward([Rows(piece)], cache).logits.clone())
        cache.commit(range(len(piece)))
        start, turn = start + len(piece), turn + 1
    return torch.cat(rows)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return np.array_equal(a.numpy().view(np.uint32), b.numpy().view(np.uint32))


def test_logits_are_transformers_own(pair: tuple[Any, WeightsOnce]) -> None:
    model, engine = pair
    tokens = tokens_of(engine, 40, seed=1)
    with torch.no_grad():
        expected = model(torch.tensor([tokens])).logits[0]
        hidden = model.model(torch.tensor([tokens])).last_hidden_state[0]
    out = engine.forward([Rows(tokens)], engine.new_cache(40))
    scale = expected.abs().max()
    torch.testing.assert_close(out.logits / scale, expected / scale, rtol=0, atol=2e-5)
    torch.testing.assert_close(out.hidden, hidden, rtol=1e-4, atol=1e-4)
    assert torch.equal(out.logits.argmax(-1), expected.argmax(-1))


def test_logits_have_the_same_bits_for_1_to_32_rows(pair: tuple[Any, WeightsOnce]) -> None:
    _, engine = pair
    tokens = tokens_of(engine, 40, seed=2)
    alone, _ = one_at_a_time(engine, tokens)
    for rows in range(1, 33):
        assert same_bits(in_chunks(engine, tokens, [rows]), alone), f"{rows} rows"


def test_states_of_other_layers_are_transformers_own(pair: tuple[Any, WeightsOnce]) -> None:
    model, engine = pair
    tokens = tokens_of(engine, 11, seed=5)
    out = engine.forward([Rows(tokens)], engine.new_cache(11), layers=(1,))
    with torch.no_grad():
        states = model.model(torch.tensor([tokens]), output_hidden_states=True).hidden_states
    first, last = out.hidden.split(engine.width, dim=1)
    torch.testing.assert_close(first, states[1][0], rtol=1e-4, atol=1e-4)
    alone = engine.forward([Rows(tokens)], engine.new_cache(11))
    assert same_bits(last.contiguous(), alone.hidden)
    assert same_bits(out.logits, alone.logits)
    cache, rows = engine.new_cache(11), []
    for token in tokens:
        rows.append(engine.forward([Rows([token])], cache, layers=(1,)).hidden.clone())
        cache.commit([0])
    assert same_bits(torch.cat(rows), out.hidden), "and they too are the same for any rows"


@given(sizes=st.lists(st.integers(1, 19), min_size=1, max_size=5), seed=st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_logits_have_the_same_bits_in_any_chunking(
    engine: WeightsOnce, sizes: list[int], seed: int
) -> None:
    tokens = tokens_of(engine, 30, seed)
    assert same_bits(in_chunks(engine, tokens, sizes), in_chunks(engine, tokens, [1]))


@st.composite
def trees(draw: st.DrawFn, vocabulary: int = 50, most: int = 31) -> Draft:
    """A random candidate tree, wide ones and deep ones."""
    count = draw(st.integers(1, most))
    parents = [draw(st.integers(max(-1, i - draw(st.integers(1, 6))), i - 1)) for i in range(count)]
    tokens = draw(st.lists(st.integers(0, vocabulary - 1), min_size=count, max_size=count))
    return Draft(tuple(tokens), tuple(parents), (None,) * count, ("example",) * count)


@given(draft=trees(), prefix=st.integers(1, 40), seed=st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_node_of_any_tree_has_the_bits_that_its_path_has_in_a_chain(
    engine: WeightsOnce, draft: Draft, prefix: int, seed: int
) -> None:
    tokens = tokens_of(engine, prefix, seed)
    cache = engine.new_cache(prefix + 33)
    if prefix > 1:
        engine.forward([Rows(tokens[:-1])], cache)
        cache.commit(range(prefix - 1))
    got = engine.forward([draft.rows(tokens[-1])], cache)
    logits, hidden = got.logits.clone(), got.hidden.clone()
    leaves = set(range(len(draft))) - set(draft.parents)
    for leaf in leaves:
        path = draft.path(leaf)
        chain = [*tokens, *(draft.tokens[node] for node in path)]
        expected, states = one_at_a_time(engine, chain)
        rows = [0, *(node + 1 for node in path)]
        assert same_bits(logits[rows], expected[prefix - 1 :])
        assert same_bits(hidden[rows], states[prefix - 1 :])


@given(draft=trees(), data=st.data(), prefix=st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_committed_path_leaves_the_cache_as_if_nothing_else_had_been_drafted(
    engine: WeightsOnce, draft: Draft, data: st.DataObject, prefix: int
) -> None:
    tokens = tokens_of(engine, prefix, seed=prefix)
    cache = engine.new_cache(prefix + 40)
    engine.forward([Rows(tokens[:-1] or tokens)], cache)
    cache.commit(range(prefix - 1))
    engine.forward([draft.rows(tokens[-1])], cache)
    path = draft.path(data.draw(st.integers(-1, len(draft) - 1)))
    cache.commit([0, *(node + 1 for node in path)])
    text = [*tokens, *(draft.tokens[node] for node in path)]
    assert cache.lengths[0] == len(text)
    got = engine.forward([Rows([1, 2, 3])], cache).logits.clone()
    expected, _ = one_at_a_time(engine, [*text, 1, 2, 3])
    assert same_bits(got, expected[-3:])


def test_truncated_cache_is_that_of_the_shorter_text(engine: WeightsOnce) -> None:
    tokens = tokens_of(engine, 37, seed=3)
    cache = engine.new_cache(50)
    engine.forward([Rows(tokens)], cache)
    cache.commit(range(37))
    cache.truncate(18)
    cache.truncate(40)  # there is nothing there to forget
    assert cache.lengths[0] == 18
    got = engine.forward([Rows([4, 5])], cache).logits.clone()
    assert same_bits(got, one_at_a_time(engine, [*tokens[:18], 4, 5])[0][-2:])


def test_cache_refuses_more_tokens_than_it_has_room_for(engine: WeightsOnce) -> None:
    cache = engine.new_cache(10, slots=2)
    engine.forward([Rows(tokens_of(engine, 8, 0), 1)], cache)
    cache.commit(range(8), 1)
    engine.forward([Rows([1, 2], 1)], cache)
    with pytest.raises(LabkitError, match="holds 8 of at most 10 tokens"):
        engine.forward([Rows([1, 2, 3], 1)], cache)


def test_copied_slot_goes_its_own_way(engine: WeightsOnce) -> None:
    tokens = tokens_of(engine, 21, seed=4)
    cache = engine.new_cache(40, slots=3)
    engine.forward([Rows(tokens, slot=2)], cache)
    cache.commit(range(21), slot=2)
    cache.copy_slot(2, 0)
    for slot, token in ((2, 7), (0, 8)):
        engine.forward([Rows([token], slot)], cache)
        cache.commit([0], slot)
    for slot, token in ((2, 7), (0, 8)):
        got = engine.forward([Rows([9], slot)], cache).logits.clone()
        assert same_bits(got, one_at_a_time(engine, [*tokens, token, 9])[0][-1:])
    assert cache.lengths.tolist() == [22, 0, 22]


def test_sequences_of_different_lengths_do_not_feel_each_other(
    pair: tuple[Any, WeightsOnce],
) -> None:
    _, engine = pair
    texts = {0: tokens_of(engine, 3, 5), 3: tokens_of(engine, 25, 6), 1: tokens_of(engine, 12, 7)}
    cache = engine.new_cache(40, slots=4)
    for slot, text in texts.items():
        engine.forward([Rows(text[:-1], slot)], cache)
        cache.commit(range(len(text) - 1), slot)
    draft = Draft((1, 2, 3), (-1, -1, 0), (None,) * 3, ("",) * 3)
    pieces = [draft.rows(texts[3][-1], 3), Rows([texts[0][-1]], 0), Rows([texts[1][-1], 4], 1)]
    logits = engine.forward(pieces, cache).logits.clone()
    last = engine.forward(pieces, cache, "last").logits.clone()
    assert same_bits(logits[2], one_at_a_time(engine, [*texts[3], 2])[0][-1])
    assert same_bits(logits[3], one_at_a_time(engine, [*texts[3], 1, 3])[0][-1])
    assert same_bits(logits[4], one_at_a_time(engine, texts[0])[0][-1])
    assert same_bits(logits[5:], one_at_a_time(engine, [*texts[1], 4])[0][-2:])
    assert same_bits(last, logits[[3, 4, 6]])


@pytest.mark.parametrize("tied", [True, False])
def test_bfloat16_storage_is_the_model_whose_linear_weights_are_rounded(tied: bool) -> None:
    model = small_model("Llama", tie_word_embeddings=tied)
    engine = WeightsOnce(llama(model), "bfloat16")
    rounded = small_model("Llama", tie_word_embeddings=False)
    rounded.load_state_dict(model.state_dict())
    for name, weight in rounded.named_parameters():
        if weight.ndim == 2 and "embed" not in name:
            weight.copy_(weight.bfloat16().float())
    tokens = tokens_of(engine, 20, seed=8)
    expected = rounded(torch.tensor([tokens])).logits[0]
    got = engine.forward([Rows(tokens)], engine.new_cache(20)).logits
    scale = expected.abs().max()
    torch.testing.assert_close(got / scale, expected / scale, rtol=0, atol=2e-5)
    assert (got - model(torch.tensor([tokens])).logits[0]).abs().max() > 1e-3 * scale
    assert same_bits(in_chunks(engine, tokens, [7]), in_chunks(engine, tokens, [1]))
    float32 = WeightsOnce(llama(model))
    assert engine.bytes_per_pass == float32.bytes_per_pass / 2
    assert engine.name != float32.name


def test_q4_1_storage_gives_the_bits_of_float32_from_a_fifth_of_the_bytes() -> None:
    """Where the layers were quantised in Q4_1 and the tied table in Q8_0, as llama.cpp does."""
    rng = np.random.default_rng(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "tie_word_embeddings": True}
    model = small_model("Llama", **sizes)
    weights = arrays(model)
    for name, weight in weights.items():
        if weight.ndim == 2:
            kind = Q8_0 if "embed" in name else Q4_1
            outputs, inputs = weight.shape
            weights[name] = quantised(rng, outputs, inputs // BLOCK, kind, scale=0.01)
    plain = WeightsOnce(LlamaWeights(model.config, weights))
    engine = WeightsOnce(LlamaWeights(model.config, weights), "q4_1")
    tokens = tokens_of(engine, 20, seed=8)
    assert same_bits(in_chunks(engine, tokens, [7]), in_chunks(plain, tokens, [20]))
    assert engine.bytes_per_pass < 0.27 * plain.bytes_per_pass
    assert engine.name != plain.name


def test_result_does_not_depend_on_the_number_of_threads(engine: WeightsOnce) -> None:
    import numba

    tokens = tokens_of(engine, 20, seed=9)
    all_of_them = in_chunks(engine, tokens, [8])
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        assert same_bits(in_chunks(engine, tokens, [8]), all_of_them)
    finally:
        numba.set_num_threads(before)
