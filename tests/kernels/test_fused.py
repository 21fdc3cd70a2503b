"""Triton's layer: run by Triton's interpreter on a CPU, or on the card where there is one."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from labkit.kernels import cuda
from labkit.kernels.cuda import CudaEngine
from labkit.speculative.calibrate import Operators
from tests.kernels.layers import DEVICE, SHAPES, Shape, passed
from tests.kernels.shapes import llama, small_model

triton = pytest.importorskip("triton", reason="Triton is not made for this system")
from labkit.kernels import fused  # noqa: E402

KINDS = {
    torch.float32: 1e-5,
    torch.float16: 3e-3,
    **({torch.bfloat16: 2e-2} if DEVICE.type == "cuda" else {}),
}
"""How far results may lie apart. Triton's interpreter has no products in bfloat16."""


@pytest.mark.parametrize("dtype", KINDS, ids=str)
@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_the_kernels_compute_the_plain_layer(name: str, dtype: torch.dtype) -> None:
    plain, few = passed(SHAPES[name], dtype), passed(SHAPES[name], dtype)
    pairs = [(fused.layer_pass(*few), cuda.layer_pass(*plain))]
    pairs += zip(few[4:6], plain[4:6], strict=True)  # keys and values
    for got, expected in pairs:
        scale = expected.abs().max()
        torch.testing.assert_close(got / scale, expected / scale, rtol=0, atol=KINDS[dtype])


@torch.no_grad()
def test_a_layer_is_five_kernels_and_nothing_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[str] = []

    class Launches:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            return lambda *_, **__: launched.append(self.name)

    kernels = [name for name in vars(fused) if name.endswith("_kernel")]
    for name in kernels:
        monkeypatch.setattr(fused, name, Launches(name))
    given = passed(SHAPES["a tree"])
    with Operators() as operators:
        fused.layer_pass(*given)
    assert len(launched) == 5
    assert set(launched) == set(kernels)
    assert operators.count == 5, "room for five results is all that torch itself is asked for"


@torch.no_grad()
def test_a_row_is_the_same_to_the_bit_alone_and_among_others() -> None:
    x, layer, given, turn, keys, values, sizes = passed(Shape(many=18, width=300))
    before = keys.clone(), values.clone()
    given.mask.zero_()
    given.mask[..., given.places] = -torch.inf  # so that no row sees another
    given.mask[..., 0] = 0
    together = fused.layer_pass(x, layer, given, turn, keys, values, sizes)
    alone = given._replace(places=given.places[:, 5:6], mask=given.mask[:, :, 5:6])
    turned = tuple(part[:, 5:6] for part in turn)
    row = fused.layer_pass(x[:, 5:6].contiguous(), layer, alone, turned, *before, sizes)
    assert torch.equal(row, together[:, 5:6])


@torch.no_grad()
def test_an_engine_runs_few_rows_through_the_kernels_and_many_through_the_plain_layer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = CudaEngine(llama(small_model("Qwen3", head_dim=16)), DEVICE, torch.float32)
    assert engine.difference(fused.layer_pass) < 1e-4
    plain = [cuda.layer_pass] * len(engine.layers)
    ran: list[object] = []

    def watched(layer_pass):
        def run(*given):
            ran.append(layer_pass)
            return layer_pass(*given)

        return run

    engine.__dict__["fused"] = fused
    monkeypatch.setattr(cuda, "layer_pass", watched(cuda.layer_pass))
    monkeypatch.setattr(fused, "layer_pass", watched(few := fused.layer_pass))
    monkeypatch.setattr(fused, "ROWS", 4)
    for rows, expected in ((4, [few] * len(plain)), (8, plain)):
        shape = SHAPES["one token"]
        given = passed(Shape(many=rows))[2]
        keys = torch.zeros(len(plain), 1, engine.kv_heads, shape.end, engine.size, device=DEVICE)
        mask = given.mask[:, :, :rows] == 0
        positions = torch.arange(rows, device=DEVICE)[None]
        given = given._replace(positions=positions, places=positions, mask=mask)
        engine.compute(given, keys, keys.clone(), ())
        assert ran == expected
        ran.clear()


def card(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> CudaEngine:
    """An engine that takes itself to be on a card of that compute capability."""
    engine = CudaEngine(llama(small_model("Llama")), torch.device("cpu"), torch.float32)
    engine.device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    return engine


def test_an_older_card_and_a_processor_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CudaEngine, "difference", lambda *_: 0.0)
    assert card(monkeypatch, (7, 5)).fused is None
    assert CudaEngine(llama(small_model("Llama")), torch.device("cpu")).fused is None
    assert card(monkeypatch, (8, 0)).fused is fused
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "labkit.kernels.fused")
    monkeypatch.delattr("labkit.kernels.fused")
    assert card(monkeypatch, (8, 0)).fused is None, "Windows has no Triton"


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (RuntimeError("Failed to find C compiler.\nAnd more."), "Failed to find C compiler."),
        (AssertionError(), "AssertionError"),
        (0.5, "its result is 50% off"),
        (math.nan, "its result is nan% off"),
    ],
)
def test_kernels_that_fail_or_differ_are_not_used_and_a_sentence_says_so(
    found: Exception | float, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def difference(*_: object) -> float:
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(CudaEngine, "difference", difference)
    engine = card(monkeypatch, (9, 0))
    with pytest.warns(UserWarning, match=f"not used, which is slower: {reason}$"):
        assert engine.fused is None
    assert engine.fused is None, "the sentence comes once"


@torch.no_grad()
def test_a_wrong_kernel_is_noticed() -> None:
    engine = CudaEngine(llama(small_model("Llama")), DEVICE, torch.float32)

    def wrong(x, layer, given, turn, keys, values, sizes):
        return fused.layer_pass(x, layer, given, turn[::-1], keys, values, sizes)

    assert engine.difference(wrong) > cuda.ROUNDING

    def broken(x, *given):
        return cuda.layer_pass(x, *given) * math.nan

    assert math.isnan(engine.difference(broken))


@pytest.mark.parametrize("capability", [80, 90])
def test_every_kernel_compiles_for_cards_that_are_not_here(capability: int) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.kernels.layers", str(capability)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    kernels = ["qkv_kernel", "attention_kernel", "residual_kernel", "gate_up_kernel"]
    assert done.stdout.split() == kernels
