"""The base model writes what transformers would, and keeps the states that heads are to read."""

from __future__ import annotations

import pytest
import torch

from labkit.models import load
from labkit.training import answers as writing
from labkit.training.answers import Writing, writer
from labkit.training.features import last_hidden

PROMPTS = [[5, 9, 200], [17], [40, 41, 42, 43, 44]]


@pytest.fixture(scope="module")
def base():
    return load("tiny", device="cpu", dtype="float32")


def test_greedy_answers_are_those_of_transformers(base):
    written = writer(base)(PROMPTS, Writing(12), 0)
    for prompt, answer in zip(PROMPTS, written.answers, strict=True):
        expected = base.module.generate(
            torch.tensor([prompt]), max_new_tokens=12, do_sample=False, use_cache=True
        )
        assert [*prompt, *answer] == expected[0].tolist()


def test_states_are_those_that_gave_each_token(base):
    written = writer(base)(PROMPTS, Writing(6), 0)
    states = written.states.split([len(answer) for answer in written.answers])
    for prompt, answer, found in zip(PROMPTS, written.answers, states, strict=True):
        expected = last_hidden(base.module, torch.tensor([[*prompt, *answer]]))[0]
        expected = expected[len(prompt) - 1 : -1]
        torch.testing.assert_close(found.float(), expected, atol=5e-3, rtol=5e-3)


def test_bfloat16_writes_nearly_the_same_and_keeps_the_layers_asked_for(base, monkeypatch):
    monkeypatch.setattr(writing, "host_features", lambda: {"avx512bf16": True})
    manner = Writing(6, precision="bfloat16")
    written = writer(base, layers=(1,))(PROMPTS, manner, 0)
    states = written.states.split([len(answer) for answer in written.answers])
    for prompt, answer, found in zip(PROMPTS, written.answers, states, strict=True):
        expected = last_hidden(base.module, torch.tensor([[*prompt, *answer]]), (1,))[0]
        expected = expected[len(prompt) - 1 : -1]
        assert found.shape == expected.shape
        assert float((found.float() - expected).norm() / expected.norm()) < 0.02


def test_where_bfloat16_is_only_imitated_float32_takes_its_place(base, monkeypatch):
    monkeypatch.setattr(writing, "host_features", lambda: {"avx2": True, "bf16": False})
    with pytest.warns(UserWarning, match="no instructions for bfloat16"):
        written = writer(base)(PROMPTS, Writing(6, precision="bfloat16"), 0)
    assert torch.equal(written.states, writer(base)(PROMPTS, Writing(6), 0).states)


def test_sampled_answers_follow_the_seed(base):
    manner = Writing(16, temperature=1.0, top_k=50)
    one, two, other = (writer(base)(PROMPTS, manner, seed).answers for seed in (1, 1, 2))
    assert one == two != other
