"""A draft model keeps its cache in step with the text, reads nothing twice, and stays lossless."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import LabkitError
from labkit.kernels.engine import Output
from labkit.sampling import Sampling
from labkit.speculative.drafters import draft_model
from labkit.speculative.drafters.draft_model import DraftModel
from labkit.speculative.generate import generate
from labkit.speculative.tree import ROOT
from tests.speculative.fakes import ToyEngine
from tests.speculative.test_sampling import ALARM, VOCABULARY, chance

PROMPT = [3, 1, 4, 1, 5]


def test_the_base_model_as_its_own_draft_model_is_always_right() -> None:
    base = ToyEngine()
    drafter = DraftModel(ToyEngine(), base.vocabulary, max_nodes=3, least=0.0)
    made = generate(base, PROMPT, 21, drafter)
    assert made.tokens == base.greedy(PROMPT, 21)
    assert len(made.steps) == 5


@given(seed=st.integers(0, 30), nodes=st.integers(1, 5), least=st.floats(0, 0.3))
@settings(max_examples=30, deadline=None)
def test_any_draft_model_gives_vanillas_output(seed: int, nodes: int, least: float) -> None:
    base = ToyEngine(vocabulary=4)
    drafter = DraftModel(ToyEngine(vocabulary=4, seed=seed), 4, nodes, least)
    made = generate(base, PROMPT[:2], 25, drafter)
    assert made.tokens == base.greedy(PROMPT[:2], 25)


def test_draft_is_the_draft_models_greedy_text_with_its_probabilities() -> None:
    small = ToyEngine(seed=7)
    drafter = DraftModel(small, small.vocabulary, max_nodes=4, least=0.0)
    drafter.begin(PROMPT)
    text = [*PROMPT, 9]
    draft = drafter.draft(text, torch.zeros(3))
    assert list(draft.tokens) == small.greedy(text, 4)
    assert draft.parents == (-1, 0, 1, 2)
    for node, token in enumerate(draft.tokens):
        probs = small.after(tuple(text)).double().softmax(-1)
        assert draft.q[node] == pytest.approx(float(probs[token]))
        assert draft.considered[node - 1][0] == (token, pytest.approx(float(probs[token])))
        text.append(token)


def test_chain_ends_after_the_first_node_that_is_unlikely_to_be_reached() -> None:
    small = ToyEngine(seed=7)
    whole = DraftModel(small, small.vocabulary, max_nodes=8, least=0.0)
    short = DraftModel(small, small.vocabulary, max_nodes=8, least=0.05)
    drafts = []
    for drafter in (whole, short):
        drafter.begin(PROMPT)
        drafts.append(drafter.draft([*PROMPT, 9], torch.zeros(3)))
    joint, expected = 1.0, 0
    for q in drafts[0].q:
        joint *= q
        expected += 1
        if joint < 0.05:
            break
    assert drafts[1].tokens == drafts[0].tokens[:expected]
    assert expected < 8


def test_accepted_tokens_are_not_read_again() -> None:
    base, small = ToyEngine(), ToyEngine()
    drafter = DraftModel(small, base.vocabulary, max_nodes=3, least=0.0)
    made = generate(base, PROMPT, 21, drafter)
    # The prompt but its last token; that token with no root; then a row a node. Of a step that was
    # accepted whole the last node, which the drafter never read, comes before the next root.
    assert sum(small.passes) == len(PROMPT) + 3 * len(made.steps) + (len(made.steps) - 1)


def test_cache_grows_with_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draft_model, "GROWTH", 4)
    base = ToyEngine(vocabulary=4)
    drafter = DraftModel(ToyEngine(vocabulary=4, seed=1), 4, 3, 0.0)
    made = generate(base, PROMPT[:2], 40, drafter)
    assert made.tokens == base.greedy(PROMPT[:2], 40)


def test_new_generation_starts_anew() -> None:
    base = ToyEngine()
    drafter = DraftModel(ToyEngine(seed=2), base.vocabulary, 3, 0.0)
    first = generate(base, PROMPT, 12, drafter)
    generate(base, [8, 8], 12, drafter)
    again = generate(base, PROMPT, 12, drafter)
    assert [step.draft.tokens for step in again.steps] == [s.draft.tokens for s in first.steps]


@pytest.mark.parametrize("temperature", [0.7, 1.4])
def test_distribution_is_the_base_models_own(temperature: float) -> None:
    engine = ToyEngine(VOCABULARY)
    drafter = DraftModel(ToyEngine(VOCABULARY, seed=3), VOCABULARY, 2, 0.2)
    assert chance(engine, drafter, Sampling(temperature=temperature), 1000) > ALARM


def test_drawn_node_comes_with_the_distribution_it_was_drawn_from() -> None:
    small = ToyEngine(seed=4)
    drafter = DraftModel(small, small.vocabulary, 2, 0.0)
    drafter.begin(PROMPT)
    draft = drafter.draft([*PROMPT, 2], torch.zeros(3), torch.Generator().manual_seed(0), 0.5)
    ids, values = draft.outlooks[ROOT]
    expected = (small.after((*PROMPT, 2)).double() / 0.5).softmax(-1)
    torch.testing.assert_close(values, expected)
    assert draft.q[0] == pytest.approx(float(values[ids == draft.tokens[0]]))


@pytest.mark.parametrize("context", [3, 6, 12])
def test_a_draft_model_with_a_shorter_context_stops_drafting_there(context: int) -> None:
    base, small = ToyEngine(vocabulary=4), ToyEngine(vocabulary=4)
    small.context = context
    made = generate(base, PROMPT[:2], 25, DraftModel(small, 4, 3, 0.0))
    assert made.tokens == base.greedy(PROMPT[:2], 25)
    assert max(small.longest) == context
    drafted = [len(step.draft) for step in made.steps]
    assert drafted[0] == min(3, context - 2)
    assert drafted[-1] == 0


def padded(engine: ToyEngine, vocabulary: int) -> ToyEngine:
    """The engine with a table of ``vocabulary`` rows, whose last ones it likes best of all."""
    plain, real = engine.forward, engine.vocabulary

    def forward(rows, cache, *settings, **more):
        out = plain(rows, cache, *settings, **more)
        extra = torch.full((len(out.logits), vocabulary - real), 9.0)
        return Output(out.hidden, torch.cat([out.logits, extra], dim=1))

    engine.vocabulary, engine.forward = vocabulary, forward
    return engine


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_padded_table_of_the_draft_model_changes_nothing(temperature: float) -> None:
    how = Sampling(temperature=temperature)
    texts = []
    for small in (ToyEngine(seed=2), padded(ToyEngine(seed=2), 16)):
        generator = torch.Generator().manual_seed(0)
        drafter = DraftModel(small, 11, 3, 0.0)
        made = generate(ToyEngine(), PROMPT, 25, drafter, how, generator=generator)
        texts.append([(step.draft.tokens, step.committed) for step in made.steps])
    assert texts[0] == texts[1]


def test_a_token_that_the_draft_model_has_no_row_for_ends_its_drafts() -> None:
    drafter = DraftModel(ToyEngine(vocabulary=5), 11, 3, 0.0)
    drafter.begin([1, 2])
    assert len(drafter.draft([1, 2, 4], torch.zeros(3))) == 3
    assert len(drafter.draft([1, 2, 4, 5], torch.zeros(3))) == 0
    assert len(drafter.draft([1, 2, 4, 5, 3], torch.zeros(3))) == 0


@pytest.mark.parametrize("settings", [{"max_nodes": 0}, {"least": 1.0}, {"least": -0.1}])
def test_settings_that_draft_nothing_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(LabkitError, match="at least 1 node"):
        DraftModel(ToyEngine(), 11, **settings)
