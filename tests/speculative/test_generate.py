"""The loop: greedy output is vanilla's, in exactly as many steps as the drafts deserve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import LabkitError
from labkit.kernels.engine import Output
from labkit.sampling import Sampling
from labkit.speculative.generate import PREFILL_ROWS, generate
from labkit.speculative.tree import Draft
from tests.speculative.fakes import Dice, Planned, ToyEngine

PROMPT = [3, 1, 4, 1, 5]


@pytest.fixture
def engine() -> ToyEngine:
    return ToyEngine()


def test_vanilla_is_greedy_decoding_one_token_a_step(engine: ToyEngine) -> None:
    made = generate(engine, PROMPT, 20)
    assert made.tokens == engine.greedy(PROMPT, 20)
    assert len(made.steps) == 19
    assert made.tokens_per_step == 1
    assert {step.verdict.ending for step in made.steps} == {"plain"}
    assert engine.passes == [len(PROMPT)] + [1] * 19


@pytest.mark.parametrize("decoys", [0, 2])
@pytest.mark.parametrize("length", [1, 3, 5])
def test_drafter_that_is_always_right_gives_its_whole_draft_and_one_a_step(
    engine: ToyEngine, length: int, decoys: int
) -> None:
    made = generate(engine, PROMPT, 23, Planned(engine, length, lambda _: length, decoys))
    assert made.tokens == engine.greedy(PROMPT, 23)
    assert len(made.steps) == ceil(22 / (length + 1))
    assert all(len(step.committed) == length + 1 for step in made.steps[:-1])
    assert all(step.verdict.ending == "bonus" for step in made.steps)


class Watching(Planned):
    """Also keeps the states that it is told of."""

    def begin(self, prompt: Sequence[int]) -> None:
        super().begin(prompt)
        self.seen: list[torch.Tensor] = []

    def see(self, hidden: torch.Tensor) -> None:
        self.seen.extend(hidden)


@pytest.mark.parametrize("decoys", [0, 2])
def test_a_drafter_that_watches_is_told_the_state_of_every_committed_place_once(
    engine: ToyEngine, decoys: int
) -> None:
    drafter = Watching(engine, 3, lambda step: step % 4, decoys)
    made = generate(engine, PROMPT, 22, drafter)
    text = [*PROMPT, *made.tokens]
    assert len(drafter.seen) >= len(made.tokens)
    for place in range(len(made.tokens)):
        expected = engine.hidden_after(text[: len(PROMPT) + place])
        assert torch.equal(drafter.seen[place], expected)


@pytest.mark.parametrize("decoys", [0, 2])
@pytest.mark.parametrize("length", [1, 4])
def test_drafter_that_is_never_right_costs_no_token_and_gains_none(
    engine: ToyEngine, length: int, decoys: int
) -> None:
    made = generate(engine, PROMPT, 23, Planned(engine, length, lambda _: 0, decoys))
    assert made.tokens == engine.greedy(PROMPT, 23)
    assert len(made.steps) == 22
    # With one token left there is nothing to draft.
    assert [step.verdict.ending for step in made.steps] == ["replacement"] * 21 + ["plain"]


@given(
    plan=st.lists(st.integers(0, 4), min_size=1, max_size=6),
    decoys=st.integers(0, 3),
    count=st.integers(1, 30),
    seed=st.integers(0, 50),
)
@settings(max_examples=60, deadline=None)
def test_drafter_that_is_sometimes_right_gains_exactly_what_was_right(
    plan: list[int], decoys: int, count: int, seed: int
) -> None:
    engine = ToyEngine(seed=seed)
    drafter = Planned(engine, 4, lambda step: plan[step % len(plan)], decoys)
    made = generate(engine, PROMPT, count, drafter)
    assert made.tokens == engine.greedy(PROMPT, count)
    steps, done = 0, 1
    while done < count:
        done += plan[steps % len(plan)] + 1
        steps += 1
    assert len(made.steps) == steps
    assert len(engine.passes) == 1 + steps


@given(shape=st.lists(st.integers(1, 3), min_size=1, max_size=3), seed=st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_any_tree_gives_vanillas_output(shape: list[int], seed: int) -> None:
    engine = ToyEngine(vocabulary=4, seed=seed)
    drafter = Dice(4, shape, [False] * len(shape), seed)
    made = generate(engine, PROMPT[:2], 25, drafter)
    assert made.tokens == engine.greedy(PROMPT[:2], 25)


def test_tree_of_every_token_is_always_right(engine: ToyEngine) -> None:
    engine = ToyEngine(vocabulary=3)
    made = generate(engine, [1], 13, Dice(3, [3, 3], [False, False]))
    assert made.tokens == engine.greedy([1], 13)
    assert len(made.steps) == 4


def test_long_prompt_is_read_in_pieces_and_changes_nothing() -> None:
    engine = ToyEngine()
    prompt = [i % 7 for i in range(2 * PREFILL_ROWS + 3)]
    made = generate(engine, prompt, 6, Planned(engine, 3, lambda _: 2))
    assert made.tokens == engine.greedy(prompt, 6)
    assert engine.passes[:3] == [PREFILL_ROWS, PREFILL_ROWS, 3]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_output_is_never_longer_than_asked(engine: ToyEngine, count: int) -> None:
    made = generate(engine, PROMPT, count, Planned(engine, 4, lambda _: 4))
    assert made.tokens == engine.greedy(PROMPT, count)
    left = count - 1
    for step in made.steps:
        assert len(step.draft) == min(4, left - 1)
        assert not step.cut
        left -= len(step.committed)


@pytest.mark.parametrize("right", [0, 2, 4])
@pytest.mark.parametrize("place", range(6))
def test_output_ends_with_the_first_end_token(engine: ToyEngine, place: int, right: int) -> None:
    expected = engine.greedy(PROMPT, 12)
    end = expected[place]
    first = expected.index(end)
    made = generate(engine, PROMPT, 12, Planned(engine, 4, lambda _: right), eos_ids={end, 99})
    assert made.tokens == expected[: first + 1]


def test_detail_keeps_the_base_models_distribution_after_each_node(engine: ToyEngine) -> None:
    made = generate(engine, PROMPT, 6, Planned(engine, 2, lambda _: 1), detail=True)
    text = (*PROMPT, made.first)
    for step in made.steps:
        torch.testing.assert_close(step.probs[0], engine.after(text).softmax(-1))
        for token in step.draft.tokens[:1]:
            one_on = (*text, token)
            torch.testing.assert_close(step.probs[1], engine.after(one_on).softmax(-1))
        text = (*text, *step.committed)


def test_watcher_sees_every_step_as_it_is_done(engine: ToyEngine) -> None:
    seen: list[Any] = []
    made = generate(engine, PROMPT, 9, Planned(engine, 2, lambda _: 1), watch=seen.append)
    assert tuple(seen) == made.steps


def test_seconds_are_the_prefills_and_all_steps(engine: ToyEngine) -> None:
    made = generate(engine, PROMPT, 9)
    parts = [s.draft_s + s.check_s + s.rest_s for s in made.steps]
    assert made.seconds == pytest.approx(made.prefill_s + sum(parts))
    assert min(made.prefill_s, *parts) > 0


def near_tie(engine: ToyEngine, place: int) -> Callable[..., Output]:
    """The engine's pass, its two largest logits all but equal wherever it says token ``place``."""
    plain, tied = engine.forward, engine.greedy(PROMPT, place + 1)
    text = torch.stack([engine.hidden_after([*PROMPT, *tied[:-1]])])

    def forward(rows: Any, cache: Any, logits: Any = "all", layers: Any = ()) -> Output:
        out = plain(rows, cache, logits, layers)
        found = out.logits.clone()
        offset = len(out.hidden) - len(found)
        for row in range(len(found)):
            if torch.equal(out.hidden[row + offset], text[0]):
                top = found[row].topk(2)
                found[row, top.indices[1]] = top.values[0] * (1 - 1e-6)
        return Output(out.hidden, found)

    return forward


@pytest.mark.parametrize("place", [0, 1, 4])
@pytest.mark.parametrize("right", [0, 3])
def test_all_but_ties_are_counted_where_the_path_is_not_exact(
    monkeypatch: pytest.MonkeyPatch, place: int, right: int
) -> None:
    for exact, expected in ((False, (place,)), (True, ())):
        engine = ToyEngine(exact=exact)
        monkeypatch.setattr(engine, "forward", near_tie(engine, place))
        drafter = Planned(engine, 3, lambda _: right)
        assert generate(engine, PROMPT, 8, drafter).narrow == expected


def test_same_seed_gives_the_same_sample(engine: ToyEngine) -> None:
    drafter = Dice(11, (2, 1), (True, True))

    def sample(seed: int) -> list[int]:
        how = Sampling(temperature=1.3)
        source = torch.Generator().manual_seed(seed)
        return generate(engine, PROMPT, 30, drafter, how, generator=source).tokens

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


class Silent:
    """Drafts nothing."""

    name, max_nodes, layers = "silent", 0, ()

    def begin(self, prompt: Sequence[int]) -> None:
        pass

    def draft(self, *_: Any) -> Draft:
        return Draft()


def test_drafter_with_nothing_to_say_leaves_vanilla(engine: ToyEngine) -> None:
    made = generate(engine, PROMPT, 8, Silent())
    assert made.tokens == engine.greedy(PROMPT, 8)
    assert {step.verdict.ending for step in made.steps} == {"plain"}


@pytest.mark.parametrize(
    ("prompt", "count", "sampling", "says"),
    [
        ([], 5, None, "prompt is empty"),
        (PROMPT, 0, None, "at least 1"),
        (PROMPT, 5, Sampling(temperature=1), "torch.Generator"),
    ],
)
def test_mistake_is_one_sentence(
    engine: ToyEngine, prompt: list[int], count: int, sampling: Sampling | None, says: str
) -> None:
    with pytest.raises(LabkitError, match=says):
        generate(engine, prompt, count, sampling=sampling)
