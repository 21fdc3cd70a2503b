"""Answers written side by side are those that the base model writes alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from labkit.kernels.cuda import CudaEngine
from labkit.kernels.engine import Engine
from labkit.kernels.plain import PlainEngine
from labkit.kernels.weights_once import WeightsOnce
from labkit.training.answers import Writing, continue_all
from tests.kernels.shapes import llama, small_model

LENGTHS = (3, 150, 70, 1, 64, 130, 20)


@pytest.fixture(scope="module")
def model():
    return small_model("Llama", max_position_embeddings=400)


@pytest.fixture(params=["weights once", "plain", "CUDA's bookkeeping"])
def engine(request, model) -> Engine:
    makers = {
        "weights once": lambda: WeightsOnce(llama(model)),
        "plain": lambda: PlainEngine(model),
        "CUDA's bookkeeping": lambda: CudaEngine(llama(model), torch.device("cpu"), torch.float32),
    }
    return makers[request.param]()


def prompts_of(engine: Engine, shared: int) -> list[list[int]]:
    """Prompts of all `LENGTHS`, the first ``shared`` tokens the same in all."""
    rng = np.random.default_rng(shared)
    same = rng.integers(engine.vocabulary, size=shared).tolist()
    return [same + rng.integers(engine.vocabulary, size=size).tolist() for size in LENGTHS]


@pytest.mark.parametrize("shared", [0, 5, 90])
def test_rows_do_not_disturb_one_another_and_long_prompts_are_read_in_pieces(model, engine, shared):
    prompts = prompts_of(engine, shared)
    for row in continue_all(engine, prompts, Writing(9), {7}, slots=3):
        prompt, answer, found = row.prompt, row.output, torch.cat(row.states)
        assert answer == continue_all(engine, [prompt], Writing(9), {7})[0].output
        with torch.no_grad():
            out = model(torch.tensor([[*prompt, *answer]]), output_hidden_states=True)
        expected = out.logits[0, len(prompt) - 1 : -1].argmax(-1).tolist()
        assert answer == expected
        last = out.hidden_states[-1][0, len(prompt) - 1 : -1]
        torch.testing.assert_close(found, last, atol=1e-3, rtol=1e-3)
