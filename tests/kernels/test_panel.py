"""The product that reads each weight once, and the small functions beside it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.kernels.heads import best, gelu
from labkit.kernels.panel import (
    BFLOAT16,
    FLOAT32,
    LANES,
    ROWS,
    aligned_zeros,
    multiply,
    pack,
    to_bfloat16,
)
from labkit.kernels.weights_once import exp


def product(x: np.ndarray, packed: np.ndarray) -> np.ndarray:
    """x (N, K) times the packed weight: (N, 16 * panels)."""
    columns = np.ascontiguousarray(x.T)
    y = np.full((len(x), len(packed) * LANES), np.nan, np.float32)
    for p, panel in enumerate(packed):
        multiply(columns, panel, y, p * LANES)
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
