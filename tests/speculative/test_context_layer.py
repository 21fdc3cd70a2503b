"""The context layer looks back over verified positions only, and drafts stay lossless with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import LabkitError
from labkit.kernels.heads import ContextPanelHeads
from labkit.kernels.weights_once import WeightsOnce
from labkit.paths import data_dir
from labkit.records import Trace
from labkit.sampling import Sampling
from labkit.speculative.batch import Batch, drafting_for
from labkit.speculative.checkpoint import export_published, load_heads, save_heads
from labkit.speculative.context import ContextConfig
from labkit.speculative.decoder import Decoder
from labkit.speculative.drafters.mlp import TorchHeads
from labkit.speculative.drafters.prompt_lookup import MLPLookup, PromptLookup
from labkit.speculative.drafters.remembering import ContextDrafter, tree_drafter
from labkit.speculative.generate import generate
from labkit.speculative.speculator import Speculator, SpeculatorConfig
from labkit.speculative.theory import rank_acceptance
from tests.kernels.shapes import llama, small_model
from tests.speculative.fakes import ToyEngine
from tests.speculative.test_sampling import ALARM, PROMPT, SAMPLES, chance

WIDTH = 8


class WideEngine(ToyEngine):
    """The toy base model with states wide enough for attention heads."""

    width = WIDTH

    @staticmethod
    def hidden_after(text: Sequence[int]) -> torch.Tensor:
        rng = np.random.default_rng([7, *text])
        return torch.from_numpy(rng.normal(size=WIDTH).astype(np.float32))


def made_heads(
    vocabulary: int, width: int = WIDTH, layers: tuple[int, ...] = (), table: torch.Tensor = None
) -> Speculator:
    """Random heads with a context layer, which Z depends on strongly."""
    config = SpeculatorConfig(
        base="toy", vocab_size=vocabulary, emb_dim=width, inner_dim=24, n_predict=3, layers=layers,
        context=ContextConfig(heads=2, inner_dim=2 * width),
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        found = torch.randn(vocabulary, width) if table is None else table
        return Speculator(config, found).eval().requires_grad_(False)


def plain_and_packed(speculator: Speculator) -> tuple[TorchHeads, ContextPanelHeads]:
    ids = np.arange(speculator.config.vocab_size)
    weights = {name: value.numpy() for name, value in speculator.state_dict().items()}
    packed = ContextPanelHeads(speculator.config, weights, speculator.table.numpy(), ids)
    return TorchHeads(speculator, ids), packed


def over_all(speculator: Speculator, states: torch.Tensor, tokens: Sequence[int]) -> np.ndarray:
    """The layer's outputs over a whole text at once, as training computes them."""
    embedded = speculator.table[torch.tensor(list(tokens))] / speculator.table_scale
    return speculator.context(states[None], embedded[None])[0][0].numpy()


@given(cuts=st.lists(st.integers(1, 7), min_size=1, max_size=8), layers=st.sampled_from([(), (1,)]))
@settings(max_examples=25, deadline=None)
def test_in_pieces_it_gives_what_training_computes_at_once(cuts, layers):
    speculator = made_heads(12, layers=layers)
    count = sum(cuts)
    rng = np.random.default_rng(count)
    states = torch.from_numpy(rng.normal(size=(count, WIDTH * (len(layers) + 1))).astype("f"))
    tokens = rng.integers(12, size=count).tolist()
    expected = over_all(speculator, states, tokens)
    for heads, tolerance in zip(plain_and_packed(speculator), (1e-5, 0.05), strict=True):
        memory = heads.new_context()
        for text in (1, 2):  # the second text does not see the first
            memory.begin()
            if text == 1:
                memory.extend(states.flip(0), tokens[::-1])
        found, at = [], 0
        for cut in cuts:
            found.append(memory.extend(states[at : at + cut], tokens[at : at + cut]))
            at += cut
        scale = np.abs(expected).max()
        assert np.abs(np.concatenate(found) - expected).max() < tolerance * scale


def test_a_long_text_grows_the_packed_memory():
    speculator = made_heads(12)
    states, tokens = torch.randn(600, WIDTH), [token % 12 for token in range(600)]
    packed = plain_and_packed(speculator)[1].new_context()
    found = [packed.extend(states[at : at + 50], tokens[at : at + 50]) for at in range(0, 600, 50)]
    expected = over_all(speculator, states, tokens)
    assert np.abs(np.concatenate(found) - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("layers", [(), (1, 2)])
def test_z_has_the_context_first_in_plain_and_packed_heads(layers):
    speculator = made_heads(12, layers=layers)
    plain, packed = plain_and_packed(speculator)
    z = np.random.default_rng(0).normal(size=speculator.config.z_dim).astype("f")
    assert speculator.config.z_dim == WIDTH * (len(layers) + 2)
    np.testing.assert_allclose(packed.start(z), plain.start(z), rtol=1e-4, atol=1e-5)


def worst_error(drafter: ContextDrafter, speculator: Speculator, texts: int = 2) -> float:
    """How far the context that drafts used is from that over the committed text, at most."""
    engine, used = WideEngine(6), []
    extend = drafter.memory.extend

    def kept(states, tokens):
        used.append(extend(states, tokens))
        return used[-1]

    drafter.memory.extend = kept
    worst = 0.0
    for text in range(texts):
        used.clear()
        prompt = [text, 1, 3]
        made = generate(engine, prompt, 40, drafter)
        assert made.tokens == engine.greedy(prompt, 40)
        rejected = [step for step in made.steps if len(step.committed) <= len(step.draft.tokens)]
        assert len(made.steps) < 39 and rejected  # some drafts were accepted, others not
        found = np.concatenate(used)
        whole = [*prompt, *made.tokens]
        places = range(len(prompt), len(prompt) + min(len(found), 40))
        states = torch.stack([engine.hidden_after(whole[:place]) for place in places])
        expected = over_all(speculator, states, [whole[place] for place in places])
        worst = max(worst, float(np.abs(found[: len(expected)] - expected).max()))
    return worst


def drafter_over(speculator: Speculator, kind: type[ContextDrafter] = ContextDrafter):
    return kind(TorchHeads(speculator, np.arange(6)), 9, top_k=5)


def test_the_context_holds_exactly_the_committed_positions():
    speculator = made_heads(6)
    assert worst_error(drafter_over(speculator), speculator) < 1e-4


class KeepsRejected(ContextDrafter):
    """Planted: a rejected draft's row stays in the memory."""

    def see(self, hidden):
        super().see(torch.cat([hidden[:1], hidden]) if len(hidden) > 1 else hidden)


class NeverForgets(ContextDrafter):
    """Planted: the memory of the text before is not rolled back."""

    def begin(self, prompt):
        self._unread = []


@pytest.mark.parametrize("planted", [KeepsRejected, NeverForgets])
def test_an_error_in_rolling_back_is_found(planted):
    speculator = made_heads(6)
    assert worst_error(drafter_over(speculator, planted), speculator) > 1e-2


@pytest.mark.parametrize("lookup", [False, True])
def test_sampled_output_keeps_the_base_models_distribution(lookup):
    drafter = drafter_over(made_heads(6))
    if lookup:
        drafter = MLPLookup(drafter, PromptLookup(2))
    engine = WideEngine(6)
    assert chance(engine, drafter, Sampling(temperature=1.0), SAMPLES) > ALARM
    assert len(PROMPT) == 2


def test_the_chi_square_test_tells_a_wrong_distribution(monkeypatch):
    from labkit.speculative import verify

    monkeypatch.setattr(verify, "acceptance", lambda p, q: 1.0)
    drafter = drafter_over(made_heads(6))
    assert chance(WideEngine(6), drafter, Sampling(temperature=1.0), SAMPLES) < 1e-6


def test_greedy_output_on_the_fast_path_is_vanillas():
    model = small_model("Llama")
    engine = WeightsOnce(llama(model))
    table = torch.tensor(engine.embedding)
    speculator = made_heads(engine.vocabulary, engine.width, layers=(1,), table=table)
    prompt = [5, 9, 5, 9, 7]
    whole = generate(engine, prompt, 40).tokens
    for heads in plain_and_packed(speculator):
        drafter = tree_drafter(heads, 8)
        assert isinstance(drafter, ContextDrafter)
        assert generate(engine, prompt, 40, drafter).tokens == whole
        lookup = MLPLookup(tree_drafter(heads, 6), PromptLookup(4))
        assert generate(engine, prompt, 40, lookup).tokens == whole


def test_saved_heads_come_back_with_their_context_and_cannot_be_exported(tmp_path):
    speculator = made_heads(16, layers=(1,))
    save_heads(tmp_path, speculator, torch.arange(16))
    again, _ = load_heads(tmp_path, speculator.table)
    assert again.config == speculator.config
    for name, value in speculator.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, atol=2e-3, rtol=2e-3)
    with pytest.raises(LabkitError, match="cannot hold heads with a context layer") as caught:
        export_published(tmp_path / "published", speculator)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "published").exists()
    assert (tmp_path / "context.safetensors").is_file()
    plain = Speculator(speculator.config.model_copy(update={"context": None}), speculator.table)
    save_heads(tmp_path, plain, torch.arange(16))
    assert load_heads(tmp_path, speculator.table)[0].config == plain.config


def test_in_a_batch_every_row_has_a_memory_of_its_own():
    speculator, engine = made_heads(6), WideEngine(6)
    drafting = drafting_for(lambda: drafter_over(speculator))
    prompts = [[text, 1, 3, text] for text in range(5)]
    batch = Batch(engine, 2, 40, drafting=drafting)
    rows = batch.run(prompts, 24)
    assert [row.output for row in rows] == [engine.greedy(prompt, 24) for prompt in prompts]
    assert batch.passes < 5 * 24  # some drafts were accepted
    memories = {id(drafter.memory) for drafter in drafting._slots.values()}
    assert len(memories) == 2


def test_acceptance_by_rank_is_measured_with_the_context_before_each_place():
    speculator = made_heads(12, layers=(1,))
    rng = np.random.default_rng(5)
    hidden = rng.normal(size=(30, 2 * WIDTH)).astype("f")
    tokens = rng.integers(12, size=33)
    context = torch.from_numpy(over_all(speculator, torch.from_numpy(hidden), tokens[:30]))
    state = speculator.start(torch.cat([context, torch.from_numpy(hidden)], dim=1))
    expected = []
    for head in range(3):
        state = speculator.step(head, state, torch.from_numpy(tokens[head : head + 30]))
        best = speculator.logits(head, state).topk(4).indices
        right = best == torch.from_numpy(tokens[head + 1 : head + 31])[:, None]
        expected.append(right.float().mean(0).tolist())
    found = rank_acceptance(plain_and_packed(speculator)[0], [(hidden, tokens)], ranks=4)
    np.testing.assert_allclose(found.shares, expected, atol=1e-6)


def test_the_playground_draws_the_plain_heads_where_the_default_ones_look_back(
    tmp_path, monkeypatch
):
    shutil.copytree(data_dir() / "heads" / "tiny", tmp_path / "heads" / "tiny-plain")
    decoder = Decoder("tiny", max_nodes=4)
    table = torch.tensor(decoder.engine.embedding)
    plain, ids = load_heads(data_dir() / "heads" / "tiny", table)
    looking = made_heads(len(table), table.shape[1], table=table)
    save_heads(tmp_path / "heads" / "tiny", looking, torch.from_numpy(ids))
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    assert decoder.heads.config.context is not None
    assert decoder.plain_heads.config == plain.config
    args = {"prompt": "Hello", "maxNewTokens": 8, "nodes": 3}
    trace = decoder.player().ask("generate", args, lambda _part: None, lambda: False)
    whole = decoder.generate("Hello", 8, "vanilla").tokens
    assert [token.id for token in Trace.from_json(json.dumps(trace)).tokens] == whole
