"""What a model and a cache do not hold is refused, and the kernels stay inside their tables."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from labkit.errors import LabkitError
from labkit.kernels.cuda import CudaEngine
from labkit.kernels.engine import Rows
from labkit.kernels.many_rows import ManyRows
from labkit.kernels.plain import PlainEngine
from labkit.kernels.weights_once import WeightsOnce
from labkit.speculative.drafters.mlp import MLPDrafter, TorchHeads
from labkit.speculative.generate import generate
from labkit.speculative.speculator import Speculator, SpeculatorConfig
from tests.kernels.shapes import llama, small_model

CONTEXT = 24
ENGINES = {
    "weights once": lambda model: WeightsOnce(llama(model)),
    "many rows": lambda model: ManyRows(llama(model)),
    "cuda": lambda model: CudaEngine(llama(model), torch.device("cpu"), torch.float32),
    "plain": PlainEngine,
    "plain, GPT-2": PlainEngine,
}


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Any:
    gpt2 = request.param.endswith("GPT-2")
    limit = {"n_positions" if gpt2 else "max_position_embeddings": CONTEXT}
    return ENGINES[request.param](small_model("GPT2" if gpt2 else "Llama", **limit))


def test_context_is_the_number_of_positions_that_the_model_has(engine: Any) -> None:
    assert engine.context == CONTEXT
    cache = engine.new_cache(CONTEXT)
    out = engine.forward([Rows([1] * CONTEXT)], cache)
    assert torch.isfinite(out.logits).all()


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([Rows([1] * 5)], "no position 24: its context is 24 tokens"),
        ([Rows([1], depths=[-21])], "no position -1"),
        ([Rows([1] * 12)], "has no room for 12 more"),
        ([Rows([100])], "no token 100"),
        ([Rows([-1])], "no token -1"),
        ([Rows([1], slot=2)], "2 slots, and no slot 2"),
        ([Rows([1], slot=-1)], "2 slots, and no slot -1"),
        ([Rows([1]), Rows([1])], "each slot once"),
        ([Rows([1]), Rows([], slot=1)], "at least one token"),
        ([], "at least one token"),
    ],
)  # fmt: skip
def test_rows_outside_the_model_or_the_cache_are_refused(
    engine: Any, rows: list[Rows], says: str
) -> None:
    cache = engine.new_cache(CONTEXT + 6, slots=2)
    engine.forward([Rows([1] * 20)], cache)
    cache.commit(range(20))
    with pytest.raises(LabkitError, match=says):
        engine.forward(rows, cache)


@pytest.mark.parametrize("path", [[0, 4], [-1]])
def test_rows_outside_the_cache_cannot_be_committed(engine: Any, path: list[int]) -> None:
    cache = engine.new_cache(10)
    engine.forward([Rows([1] * 6)], cache)
    cache.commit(range(6))
    with pytest.raises(LabkitError, match="no such rows"):
        cache.commit(path)
    assert cache.lengths[0] == 6


def test_heads_that_read_different_layers_share_one_engine() -> None:
    model = small_model("Llama", num_hidden_layers=4)
    engine = WeightsOnce(llama(model))
    table = torch.from_numpy(engine.embedding)
    drafters = []
    for layers in ((), (1,), (1, 3)):
        config = SpeculatorConfig(
            base="small", vocab_size=96, emb_dim=64, inner_dim=48, n_predict=2, layers=layers
        )
        heads = TorchHeads(Speculator(config, table), np.arange(96))
        drafters.append(MLPDrafter(heads, max_nodes=6))
    vanilla = generate(engine, [1, 2, 3], 20)
    apart = [generate(WeightsOnce(llama(model)), [1, 2, 3], 20, d) for d in drafters]
    for drafter, alone in zip(drafters, apart, strict=True):
        shared = generate(engine, [1, 2, 3], 20, drafter)
        assert shared.tokens == vanilla.tokens
        assert [step.draft for step in shared.steps] == [step.draft for step in alone.steps]


CHECKED = """
import numpy as np
import pytest
from labkit.kernels import panel
from tests.kernels.shapes import SIZES, arrays, llama, small_model
from labkit.kernels.weights_once import WeightsOnce
from labkit.kernels.engine import Rows
from labkit.speculative.tree import Draft

with pytest.raises(IndexError):  # bounds are checked here
    panel.njit(**{**panel.JIT, "cache": False})(lambda x: x[3])(np.zeros(3))
for sizes in SIZES.values():
    model = small_model("Llama", max_position_embeddings=24, **sizes)
    engine = WeightsOnce(llama(model))
    cache = engine.new_cache(24, 3)
    draft = Draft((1, 2, 3), (-1, -1, 0), (None,) * 3, ("",) * 3)
    engine.forward([Rows([5] * 17, 2), draft.rows(4, 1)], cache, layers=(1,))
    cache.commit(range(17), 2)
    cache.commit([0, 2], 1)
    cache.copy_slot(2, 0)
    engine.forward([draft.rows(4, 2), Rows([6] * 7, 0)], cache, "last")
    cache.commit([0, 1, 3], 2)
    cache.commit(range(7), 0)
"""


def test_kernels_stay_inside_their_tables_where_bounds_are_checked(tmp_path: Path) -> None:
    checked = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", CHECKED],
        check=False,
        cwd=root,
        env={**os.environ, **checked},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
