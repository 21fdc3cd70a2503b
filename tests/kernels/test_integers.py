"""Integer dot products: the sums that they say, the same for any rows, on every kind of machine."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llvmlite import binding, ir

from labkit.kernels.integers import (
    ROWS,
    Dot,
    emit_rows,
    multiply_integers,
    pack_integers,
    quantise,
)
from labkit.kernels.panel import BLOCK, LANES, Q4_1, Q8_0, Emit
from tests.kernels.test_panel import quantised, random


def product(x: np.ndarray, packed: np.ndarray) -> np.ndarray:
    """x (N, K), quantised, times the packed weight: (N, 16 * panels)."""
    rows = quantise(np.ascontiguousarray(x))
    y = np.full((len(x), len(packed) * LANES), np.nan, np.float32)
    for p, panel in enumerate(packed):
        multiply_integers(rows, panel, y, p * LANES)
    return y


def rounded(x: np.ndarray) -> np.ndarray:
    """x (N, K) as 8 bits and a scale for each block of 32, by NumPy."""
    blocks = x.reshape(len(x), -1, BLOCK)
    most = np.abs(blocks).max(-1, keepdims=True).astype(np.float32)
    each = np.where(most > 0, np.float32(127) / np.where(most > 0, most, 1), 0)
    return (np.rint(blocks * each.astype(np.float32)) * (most / 127)).reshape(x.shape)


@given(
    kind=st.sampled_from([Q4_1, Q8_0]),
    rows=st.integers(1, 2 * ROWS + 1),
    blocks=st.integers(1, 4),
    outputs=st.integers(1, 40),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_product_is_that_of_the_rounded_activations_and_the_same_for_any_rows(
    kind: int, rows: int, blocks: int, outputs: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weight = quantised(rng, outputs, blocks, kind)
    packed = pack_integers(weight)
    assert packed is not None
    x = random(rng, rows, BLOCK * blocks)
    together = product(x, packed)
    expected = rounded(x).astype(float) @ weight.astype(float).T
    size = np.abs(rounded(x)).astype(float) @ np.abs(weight).astype(float).T
    assert (np.abs(together[:, :outputs] - expected) <= 1e-5 * size.max()).all()
    for i in range(rows):
        np.testing.assert_array_equal(together[i : i + 1], product(x[i : i + 1], packed))


@pytest.mark.parametrize("largest", [15, 127])
def test_largest_numbers_do_not_overflow(largest: int) -> None:
    weight = np.full((16, 64), largest, np.float32)  # steps of Q4_1 go to 15, those of Q8_0 to 127
    weight[:, ::2] = 0 if largest == 15 else -largest
    packed, x = pack_integers(weight), np.full((5, 64), -1.0, np.float32)
    x[:, ::2] = -1.0 if largest == 15 else 1.0
    assert packed is not None
    expected = -largest * (32 if largest == 15 else 64)
    np.testing.assert_allclose(product(x, packed), expected, rtol=1e-6)


def test_row_of_zeros_gives_zeros() -> None:
    packed = pack_integers(quantised(np.random.default_rng(0), 16, 2, Q4_1))
    assert packed is not None
    assert not product(np.zeros((2, 64), np.float32), packed).any()


def test_a_weight_that_was_never_quantised_is_not_packed_as_if_it_were() -> None:
    assert pack_integers(random(np.random.default_rng(0), 16, 64)) is None


@pytest.mark.parametrize("kind", [Q4_1, Q8_0])
@pytest.mark.parametrize(
    ("dot", "triple", "cpu", "instruction"),
    [
        ("vpdpbusd", "x86_64-unknown-linux-gnu", "znver4", "vpdpbusd"),
        ("vpdpbusd", "x86_64-unknown-linux-gnu", "alderlake", "vpdpbusd"),
        ("pmaddubsw", "x86_64-unknown-linux-gnu", "haswell", "vpmaddubsw"),
        ("sdot", "aarch64-unknown-linux-gnu", "apple-m1", "sdot"),
        ("plain", "aarch64-unknown-linux-gnu", "cortex-a53", "mla"),
        ("plain", "x86_64-unknown-linux-gnu", "haswell", "vpm"),
    ],
)
def test_code_for_other_machines_uses_their_instruction(
    dot: Dot, triple: str, cpu: str, instruction: str, kind: int
) -> None:
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    module = ir.Module()
    i64 = ir.IntType(64)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [i64] * 6), "rows")
    builder = ir.IRBuilder(function.append_basic_block())
    emit_rows(Emit(builder), dot, kind, 2, *function.args)
    builder.ret_void()
    target = binding.Target.from_triple(triple)
    code = target.create_target_machine(cpu=cpu, opt=3).emit_assembly(
        binding.parse_assembly(str(module))
    )
    assert re.search(instruction, code)
