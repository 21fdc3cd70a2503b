"""The product that reads each weight once, and the small functions beside it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from labkit.kernels import compiled
from labkit.kernels.heads import best, gelu
from labkit.kernels.panel import (
    BFLOAT16,
    BLOCK,
    BLOCK_BYTES,
    FLOAT32,
    LANES,
    Q4_1,
    Q8_0,
    ROWS,
    aligned_zeros,
    grouped,
    multiply,
    pack,
    pack_as_quantised,
    to_bfloat16,
)
from labkit.kernels.weights_once import exp


@njit
def compute(x, panel, y, column):
    """`multiply`, which is for compiled code, called from here."""
    multiply(x, panel, y, column)


def product(x: np.ndarray, packed: np.ndarray) -> np.ndarray:
    """x (N, K) times the packed weight: (N, 16 * panels)."""
    left = grouped(np.ascontiguousarray(x))
    y = np.full((len(x), len(packed) * LANES), np.nan, np.float32)
    for p, each in enumerate(packed):
        compute(left, each, y, p * LANES)
    return y


def widened(values: np.ndarray) -> np.ndarray:
    """bfloat16, given as uint16, in float32."""
    return (values.astype(np.uint32) << 16).view(np.float32)


def random(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


@given(
    rows=st.integers(1, 40),
    inner=st.integers(1, 70),
    outputs=st.integers(1, 50),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_product_is_numpys(rows: int, inner: int, outputs: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, weight = random(rng, rows, inner), random(rng, outputs, inner)
    y = product(x, pack(weight))
    expected = x.astype(float) @ weight.astype(float).T
    np.testing.assert_allclose(y[:, :outputs], expected, rtol=0, atol=1e-5 * inner**0.5)
    assert not y[:, outputs:].any()


@pytest.mark.parametrize("storage", [FLOAT32, BFLOAT16])
@pytest.mark.parametrize("rows", sorted({1, 2, ROWS - 1, ROWS, ROWS + 1, 2 * ROWS, 32}))
def test_row_has_the_same_bits_whatever_rows_stand_beside_it(rows: int, storage: int) -> None:
    rng = np.random.default_rng(rows)
    x, packed = random(rng, rows, 77), pack(random(rng, 40, 77), storage)
    together = product(x, packed)
    for i in range(rows):
        np.testing.assert_array_equal(together[i : i + 1], product(x[i : i + 1], packed))


def test_bfloat16_weights_give_the_sums_of_their_float32_values() -> None:
    rng = np.random.default_rng(1)
    x, weight = random(rng, 5, 33), random(rng, 20, 33)
    rounded = widened(to_bfloat16(weight))
    np.testing.assert_array_equal(product(x, pack(weight, BFLOAT16)), product(x, pack(rounded)))
    assert np.abs(rounded - weight).max() > 0


def quantised(
    rng: np.random.Generator, outputs: int, blocks: int, kind: int, scale: float = 1.0
) -> np.ndarray:
    """A weight (outputs, 32 * blocks) of random blocks, each with the least and the most step."""
    lowest, highest = {Q4_1: (0, 15), Q8_0: (-127, 127)}[kind]
    q = rng.integers(lowest, highest + 1, (outputs, blocks, BLOCK)).astype(np.float32)
    q[..., rng.integers(BLOCK // 2)], q[..., rng.integers(BLOCK // 2, BLOCK)] = lowest, highest
    drawn = scale * random(rng, 2, outputs, blocks, 1)
    d, m = drawn.astype(np.float16).astype(np.float32)
    weight = np.abs(d) * q + m if kind == Q4_1 else np.abs(d) * q
    return weight.reshape(outputs, -1)


@given(
    kind=st.sampled_from([Q4_1, Q8_0]),
    rows=st.integers(1, 2 * ROWS + 1),
    blocks=st.integers(1, 4),
    outputs=st.integers(1, 40),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_quantised_blocks_give_the_bits_of_their_float32_values(
    kind: int, rows: int, blocks: int, outputs: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weight = quantised(rng, outputs, blocks, kind)
    packed = pack_as_quantised(weight)
    assert packed is not None
    assert packed.shape[1:] == (blocks, BLOCK_BYTES[kind])
    x = random(rng, rows, BLOCK * blocks)
    np.testing.assert_array_equal(product(x, packed), product(x, pack(weight)))


def test_a_block_of_one_value_or_of_zeros_is_kept() -> None:
    weight = np.zeros((16, 64), np.float32)
    weight[:, 32:] = 0.25
    packed = pack_as_quantised(weight)
    assert packed is not None
    x = random(np.random.default_rng(0), 3, 64)
    np.testing.assert_array_equal(product(x, packed), product(x, pack(weight)))


@pytest.mark.parametrize("inputs", [64, 33])
def test_a_weight_that_was_never_quantised_is_not_packed_as_if_it_were(inputs: int) -> None:
    assert pack_as_quantised(random(np.random.default_rng(0), 16, inputs)) is None


def test_bfloat16_rounds_to_the_nearest_and_ties_to_even() -> None:
    import torch

    values = np.concatenate(
        [
            random(np.random.default_rng(2), 1000),
            np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 0.0, -0.0, 65504.0], np.float32),
        ]
    )
    expected = torch.from_numpy(values).bfloat16().float().numpy()
    np.testing.assert_array_equal(widened(to_bfloat16(values)), expected)


def test_a_change_in_any_kernel_changes_the_folder_of_compiled_code(tmp_path) -> None:
    (tmp_path / "one.py").write_text("a = 1")
    (tmp_path / "two.py").write_text("b = 2")
    before = list(compiled.folders(tmp_path))
    assert list(compiled.folders(tmp_path)) == before
    (tmp_path / "two.py").write_text("b = 3")
    assert not set(compiled.folders(tmp_path)) & set(before)


def test_kernels_are_compiled_anew_where_no_folder_can_be_written(tmp_path, monkeypatch) -> None:
    config = compiled.config
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(config, "CACHE_DIR", "")
    assert compiled.choose_folder(tmp_path)
    assert Path(config.CACHE_DIR).parent == tmp_path / "__pycache__"
    no_folder = tmp_path / "file"
    no_folder.write_text("")
    monkeypatch.setattr(config, "CACHE_DIR", "")
    assert compiled.choose_folder(no_folder)
    assert Path(config.CACHE_DIR).parent == tmp_path / "cache"
    monkeypatch.setenv("LABKIT_CACHE", str(no_folder))
    monkeypatch.setattr(config, "CACHE_DIR", "")
    assert not compiled.choose_folder(no_folder)
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "mine"))
    assert compiled.choose_folder(no_folder)
    assert str(tmp_path / "mine") == config.CACHE_DIR


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_aligned_zeros_start_at_a_cache_line(dtype: type) -> None:
    for count in range(1, 40):
        made = aligned_zeros(count, 3, dtype=dtype)
        assert made.ctypes.data % 64 == 0
        assert made.shape == (count, 3)
        assert not made.any()


def test_exp_is_within_three_units_in_the_last_place() -> None:
    places = np.linspace(-86, 88, 4001).astype(np.float32)
    exact = np.exp(places.astype(np.float64))
    units = np.spacing(exact.astype(np.float32)).astype(np.float64)
    got = np.array([exp(x) for x in places], np.float64)
    assert np.abs((got - exact) / units).max() <= 3


def test_exp_of_what_is_hidden_is_as_good_as_nothing() -> None:
    assert 0 <= exp(np.float32(-np.inf)) < 1e-37
    assert exp(np.float32(0)) == 1


def test_gelu_is_x_times_the_normal_share_below_it() -> None:
    places = np.linspace(-9, 9, 2001).astype(np.float32)
    exact = [float(x) * 0.5 * (1 + math.erf(float(x) / math.sqrt(2))) for x in places]
    np.testing.assert_allclose([gelu(x) for x in places], exact, rtol=0, atol=2e-6)


@given(
    size=st.integers(5, 200),
    many=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_best_tokens_are_the_largest_logits_with_their_log_probabilities(
    size: int, many: int, seed: int
) -> None:
    logits = 4 * random(np.random.default_rng(seed), size)
    ids, logprobs = np.empty(many, np.int64), np.empty(many, np.float32)
    best(logits, many, ids, logprobs)
    order = np.argsort(-logits, kind="stable")[:many]
    np.testing.assert_array_equal(ids, order)
    wide = logits.astype(float)
    exact = wide - np.log(np.exp(wide - wide.max()).sum()) - wide.max()
    np.testing.assert_allclose(logprobs, exact[order], atol=2e-5)
