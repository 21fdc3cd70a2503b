"""transformers' own forward pass as an engine: trees, roll-back and greedy output for any model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import LabkitError
from labkit.kernels.engine import Rows, check_layers
from labkit.kernels.plain import PlainEngine
from labkit.kernels.weights_once import WeightsOnce
from labkit.speculative.generate import generate
from labkit.speculative.tree import Draft
from tests.kernels.shapes import llama, small_model
from tests.kernels.test_weights_once import trees
from tests.speculative.fakes import Dice

MODELS = {
    "Llama": ("Llama", {}),
    "Qwen2": ("Qwen2", {}),
    "Qwen2, one layer with a window": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    ),
    "Mistral": ("Mistral", {"sliding_window": None}),
    "Mistral, window of 6": ("Mistral", {"sliding_window": 6}),
    "GPT-NeoX": ("GPTNeoX", {}),
    "GPT-2": ("GPT2", {}),
}


@pytest.fixture(scope="module", params=MODELS)
def engine(request: pytest.FixtureRequest) -> PlainEngine:
    kind, settings_ = MODELS[request.param]
    return PlainEngine(small_model(kind, **settings_))


def whole_text(engine: PlainEngine, tokens: list[int]) -> torch.Tensor:
    """Logits (T, V) of the model by itself, without a cache."""
    with torch.no_grad():
        return engine.module(torch.tensor([tokens])).logits[0]


def close(got: torch.Tensor, expected: torch.Tensor) -> None:
    scale = expected.abs().max()
    torch.testing.assert_close(got / scale, expected / scale, rtol=0, atol=3e-5)


def tokens_of(engine: PlainEngine, count: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(engine.vocabulary, size=count).tolist()


def test_pieces_give_what_the_whole_text_gives(engine: PlainEngine) -> None:
    tokens = tokens_of(engine, 17, 1)
    cache = engine.new_cache(20)
    found = []
    for low, high in ((0, 9), (9, 10), (10, 17)):
        out = engine.forward([Rows(tokens[low:high])], cache)
        cache.commit(range(high - low))
        found.append(out.logits)
    close(torch.cat(found), whole_text(engine, tokens))
    assert cache.lengths[0] == 17


def test_hidden_is_what_the_output_table_reads(engine: PlainEngine) -> None:
    out = engine.forward([Rows([1, 2, 3])], engine.new_cache(3))
    assert out.hidden.shape == (3, engine.width)
    close(engine.module.get_output_embeddings()(out.hidden), out.logits)


@given(draft=trees(most=12), data=st.data())
@settings(max_examples=8, deadline=None)
def test_node_of_a_tree_is_what_its_path_is_and_only_the_path_is_kept(
    engine: PlainEngine, draft: Draft, data: st.DataObject
) -> None:
    tokens = tokens_of(engine, 9, 2)
    cache = engine.new_cache(40)
    engine.forward([Rows(tokens[:-1])], cache)
    cache.commit(range(8))
    out = engine.forward([draft.rows(tokens[-1])], cache)
    path = draft.path(data.draw(st.integers(-1, len(draft) - 1)))
    rows = [0, *(node + 1 for node in path)]
    text = [*tokens, *(draft.tokens[node] for node in path)]
    close(out.logits[rows], whole_text(engine, text)[8:])
    cache.commit(rows)
    got = engine.forward([Rows([3, 4])], cache).logits
    close(got, whole_text(engine, [*text, 3, 4])[-2:])


def test_pass_that_is_not_committed_leaves_nothing(engine: PlainEngine) -> None:
    cache = engine.new_cache(20)
    engine.forward([Rows([1, 2, 3])], cache)
    cache.commit([0, 1, 2])
    engine.forward([Rows([4, 5])], cache)
    got = engine.forward([Rows([6])], cache).logits
    close(got, whole_text(engine, [1, 2, 3, 6])[-1:])


def test_slots_are_apart_and_can_be_cut_and_copied(engine: PlainEngine) -> None:
    cache = engine.new_cache(20, slots=3)
    texts = {0: [1, 2, 3, 4, 5], 2: [6, 7]}
    pieces = [Rows(text, slot) for slot, text in texts.items()]
    out = engine.forward(pieces, cache, "last")
    close(out.logits, torch.stack([whole_text(engine, text)[-1] for text in texts.values()]))
    assert len(out.hidden) == 7
    for slot, text in texts.items():
        cache.commit(range(len(text)), slot)
    cache.truncate(3, 0)
    cache.copy_slot(0, 1)
    engine.forward([Rows([9], 0)], cache)
    cache.commit([0], 0)
    assert cache.lengths.tolist() == [4, 3, 2]
    for slot, text in {0: [1, 2, 3, 9], 1: [1, 2, 3], 2: [6, 7]}.items():
        got = engine.forward([Rows([8], slot)], cache).logits
        close(got, whole_text(engine, [*text, 8])[-1:])


def test_greedy_output_with_drafts_is_that_without(engine: PlainEngine) -> None:
    prompt = tokens_of(engine, 7, 3)
    vanilla = generate(engine, prompt, 24)
    ids = engine.module.generate(
        torch.tensor([prompt]),
        max_new_tokens=24,
        do_sample=False,
        eos_token_id=None,
    )
    assert vanilla.tokens == ids[0, len(prompt) :].tolist()
    drafted = generate(engine, prompt, 24, Helped(engine, prompt, vanilla.tokens))
    assert drafted.tokens == vanilla.tokens
    assert len(drafted.steps) < 20


class Helped(Dice):
    """A bushy tree in which the right token, taken from the answer, stands at every other place."""

    def __init__(self, engine: PlainEngine, prompt: list[int], answer: list[int]) -> None:
        super().__init__(engine.vocabulary, (2, 2), (False, False))
        self.answer, self.start = answer, len(prompt)

    def draft(self, tokens, hidden, generator=None, temperature=0.0) -> Draft:
        bush = super().draft(tokens, hidden)
        place = len(tokens) - self.start
        if place % 2 or place >= len(self.answer):
            return bush
        tokens = (bush.tokens[0], self.answer[place], *bush.tokens[2:])
        return Draft(tokens, bush.parents, bush.q, bush.sources)


def test_llama_is_the_same_model_on_both_paths() -> None:
    model = small_model("Llama")
    plain, fast = PlainEngine(model), WeightsOnce(llama(model))
    draft = Draft((5, 6, 7, 8), (-1, -1, 1, 2), (None,) * 4, ("",) * 4)
    outs = []
    for engine in (plain, fast):
        cache = engine.new_cache(20)
        engine.forward([Rows([1, 2, 3])], cache)
        cache.commit(range(3))
        tree = engine.forward([draft.rows(4)], cache).logits.clone()
        cache.commit([0, 2, 3])
        outs.append(torch.cat([tree, engine.forward([Rows([9])], cache).logits]))
    close(outs[1], outs[0])
    assert not plain.exact
    assert fast.exact


def test_models_that_keep_branches_apart_pass_the_check(engine: PlainEngine) -> None:
    engine.check_trees()


def test_model_that_ignores_the_mask_is_refused() -> None:
    engine = PlainEngine(small_model("Llama"))
    shown = np.ones((4, 4), np.uint8)
    plain = engine.mask
    engine.mask = lambda positions, _visible, length: plain(
        positions, shown[: len(positions), : len(positions)], length
    )
    with pytest.raises(LabkitError, match="branches"):
        engine.check_trees()


def test_model_with_a_running_state_is_refused() -> None:
    model = small_model("Llama")
    model.config.layer_types = ["linear_attention", "full_attention"]
    with pytest.raises(LabkitError, match="linear_attention"):
        PlainEngine(model)


def test_states_of_other_layers_stand_before_the_last_ones(engine: PlainEngine) -> None:
    tokens = tokens_of(engine, 9, 3)
    bare = engine.forward([Rows(tokens)], engine.new_cache(9))
    out = engine.forward([Rows(tokens)], engine.new_cache(9), layers=(1,))
    with torch.no_grad():
        states = engine.module(torch.tensor([tokens]), output_hidden_states=True).hidden_states
    assert out.hidden.shape == (9, 2 * engine.width)
    close(out.hidden[:, : engine.width], states[1][0])
    assert torch.equal(out.hidden[:, -engine.width :], bare.hidden)
    assert torch.equal(out.logits, bare.logits)


@pytest.mark.parametrize("layers", [(1, 3), (0,), (2, 1), (1, 1)])
def test_heads_cannot_read_a_layer_that_is_not_there(layers: tuple[int, ...]) -> None:
    engine = PlainEngine(small_model("Llama", num_hidden_layers=3))
    with pytest.raises(LabkitError, match="has 3 layers"):
        engine.forward([Rows([1])], engine.new_cache(4), layers=layers)
    check_layers((1, 2), engine.layer_count)
