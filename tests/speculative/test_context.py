"""Near the context limit: no pass looks beyond it, and the output stays vanilla's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from labkit.errors import LabkitError
from labkit.kernels.cuda import CudaEngine
from labkit.kernels.llama import LlamaWeights
from labkit.kernels.many_rows import ManyRows
from labkit.kernels.plain import PlainEngine
from labkit.kernels.weights_once import WeightsOnce
from labkit.sampling import Sampling
from labkit.speculative.batch import Batch, drafting_for
from labkit.speculative.decoder import METHODS
from labkit.speculative.drafters.draft_model import DraftModel
from labkit.speculative.drafters.mlp import MLPDrafter, TorchHeads
from labkit.speculative.drafters.prompt_lookup import MLPLookup, PromptLookup
from labkit.speculative.drafters.remembering import EagleHeads, tree_drafter
from labkit.speculative.eagle import Eagle, EagleConfig
from labkit.speculative.generate import generate
from labkit.speculative.speculator import Speculator, SpeculatorConfig
from labkit.training.answers import Writing, continue_all
from tests.kernels.shapes import SIZES, arrays, small_model

CONTEXT = 22
PROMPT = [5, 9, 5, 9, 5, 9, 5]
"""Repeats itself, so that lookup drafts, and a small model goes on repeating it."""

MANY = CONTEXT - len(PROMPT)


def blocks_of_q4_1(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights rounded to 16 evenly spaced values in each block of 32, as Q4_1 holds them."""
    rounded = {}
    for name, weight in weights.items():
        if weight.ndim == 2:
            blocks = weight.reshape(-1, 32)
            low = blocks.min(1, keepdims=True).astype(np.float16).astype(np.float32)
            step = ((blocks.max(1, keepdims=True) - low) / 15).astype(np.float16)
            step = step.astype(np.float32)
            levels = np.clip(np.round((blocks - low) / step), 0, 15)
            rounded[name] = (levels * step + low).reshape(weight.shape).astype(np.float32)
        else:
            rounded[name] = weight
    return rounded


def engine_of(kind: str, model: Any) -> Any:
    """An engine over a small model that raises where a pass looks beyond the context."""
    weights = arrays(model)
    makers: dict[str, Callable[[], Any]] = {
        "float32": lambda: WeightsOnce(LlamaWeights(model.config, weights)),
        "bfloat16": lambda: WeightsOnce(LlamaWeights(model.config, weights), "bfloat16"),
        "q4_1": lambda: WeightsOnce(LlamaWeights(model.config, blocks_of_q4_1(weights)), "q4_1"),
        "many rows": lambda: ManyRows(LlamaWeights(model.config, weights)),
        "CUDA's bookkeeping": lambda: CudaEngine(
            LlamaWeights(model.config, weights), torch.device("cpu"), torch.float32
        ),
        "plain": lambda: PlainEngine(model),
    }
    engine = makers[kind]()
    forward = engine.forward

    def watched(rows: Sequence[Any], cache: Any, *settings: Any, **more: Any) -> Any:
        for piece in rows:
            deepest = len(piece.tokens) - 1 if piece.depths is None else max(piece.depths)
            assert cache.lengths[piece.slot] + deepest < model.config.max_position_embeddings
        return forward(rows, cache, *settings, **more)

    engine.forward = watched
    return engine


CASES = [
    *((kind, "Llama", {}) for kind in ("float32", "bfloat16", "CUDA's bookkeeping", "plain")),
    ("q4_1", "Llama", {"intermediate_size": 96, "hidden_size": 64}),
    *(("float32", "Llama", SIZES[size]) for size in SIZES if size != "even, tied"),
    ("float32", "Qwen2", {}),
    ("plain", "GPT2", {}),
    ("plain", "GPTNeoX", {}),
]


def small(kind: str, context: int = CONTEXT, **settings: Any) -> Any:
    """A small random model with a short context."""
    limit = "n_positions" if kind == "GPT2" else "max_position_embeddings"
    return small_model(kind, **{**settings, limit: context})


def drafter_of(method: str, engine: Any, other: Any) -> Any:
    """A drafter of every method; its heads are as random as the base model."""
    vocabulary, width = engine.vocabulary, engine.width
    ids = np.arange(vocabulary)
    torch.manual_seed(3)
    table = torch.randn(vocabulary, width)

    def heads(hierarchical: bool) -> TorchHeads:
        config = SpeculatorConfig(
            base="small", vocab_size=vocabulary, emb_dim=width, inner_dim=16, n_predict=4,
            hierarchical=hierarchical,
        )  # fmt: skip
        return TorchHeads(Speculator(config, table), ids)

    def eagle() -> Any:
        config = EagleConfig(
            base="small", vocab_size=vocabulary, emb_dim=width, inner_dim=16, n_predict=4, heads=2
        )
        return tree_drafter(EagleHeads(Eagle(config, table), ids), 7)

    return {
        "vanilla": lambda: None,
        "mlp": lambda: MLPDrafter(heads(True), 7),
        "mlp_lookup": lambda: MLPLookup(MLPDrafter(heads(True), 5), PromptLookup(5)),
        "medusa": lambda: MLPDrafter(heads(False), 7),
        "eagle": eagle,
        "prompt_lookup": lambda: PromptLookup(8),
        "draft_model": lambda: DraftModel(other, vocabulary, 5, 0.0),
    }[method]()


@pytest.mark.parametrize(("kind", "shape", "settings"), CASES)
def test_output_is_vanillas_at_every_distance_from_the_context_limit(kind, shape, settings):
    model = small(shape, **settings)
    engine = engine_of(kind, model)
    whole = generate(engine, PROMPT, MANY).tokens
    for method in METHODS:
        other = engine_of("plain" if kind == "plain" else kind, model)
        drafter = drafter_of(method, engine, other)
        for place in range(MANY):
            prompt = [*PROMPT, *whole[:place]]
            made = generate(engine, prompt, MANY - place, drafter)
            assert made.tokens == whole[place:], (method, place)


@pytest.mark.parametrize("method", METHODS)
def test_served_answers_reach_the_context_limit_together(method):
    engine = engine_of("float32", small("Llama"))
    other = engine_of("float32", small("Llama", context=CONTEXT - 6))
    whole = generate(engine, PROMPT, MANY).tokens
    batch = Batch(
        engine, 3, CONTEXT, drafting=drafting_for(lambda: drafter_of(method, engine, other))
    )
    rows = [batch.join([*PROMPT, *whole[:place]], MANY - place) for place in (0, 4, MANY - 2)]
    while batch.running:
        batch.step()
    for row, place in zip(rows, (0, 4, MANY - 2), strict=True):
        assert row.output == whole[place:]


@pytest.mark.parametrize("method", METHODS)
def test_samples_reach_the_context_limit(method):
    engine = engine_of("float32", small("Llama"))
    other = engine_of("float32", small("Llama"))
    drafting = drafting_for(lambda: drafter_of(method, engine, other))
    batch = Batch(engine, 3, CONTEXT, (), drafting, shared=PROMPT)
    rows = batch.run([PROMPT] * 5, MANY, Sampling(temperature=1.0), range(5))
    assert [len(row.output) for row in rows] == [MANY] * 5


@pytest.mark.parametrize("kind", ["float32", "many rows", "CUDA's bookkeeping"])
def test_answers_reach_the_context_limit(kind):
    engine = engine_of(kind, small("Llama"))
    rows = continue_all(engine, [PROMPT, PROMPT[2:]], Writing(MANY))
    assert [len(row.output) for row in rows] == [MANY] * 2


def test_more_than_the_context_holds_is_refused_in_every_loop():
    engine = engine_of("float32", small("Llama"))
    loops: list[Callable[[int], Any]] = [
        lambda many: generate(engine, PROMPT, many),
        lambda many: Batch(engine, 2, 100).join(PROMPT, many),
        lambda many: Batch(engine, 2, 100).run([PROMPT], many, Sampling(temperature=1.0)),
        lambda many: continue_all(engine, [PROMPT], Writing(many)),
    ]
    for loop in loops:
        loop(MANY)
        with pytest.raises(LabkitError, match="beyond the model's context of 22"):
            loop(MANY + 1)


@pytest.mark.parametrize("context", [4, 9, CONTEXT - 3])
def test_a_draft_model_may_have_a_shorter_context_than_its_base(context):
    engine = engine_of("float32", small("Llama"))
    whole = generate(engine, PROMPT, MANY).tokens
    drafter = DraftModel(engine_of("float32", small("Llama", context=context)), 96, 5, 0.0)
    assert generate(engine, PROMPT, MANY, drafter).tokens == whole


def test_transformers_loop_with_drafts_ends_at_the_context_limit():
    from labkit.speculative.custom import speculate

    model = small("GPT2")
    how: dict[str, Any] = {"max_new_tokens": MANY, "do_sample": False, "eos_token_id": None}
    expected = model.generate(torch.tensor([PROMPT]), **how)
    got = model.generate(torch.tensor([PROMPT]), custom_generate=speculate, **how)
    assert torch.equal(got, expected)
