"""Prompts are of every kind asked for, held-out ones apart, and none twice."""

from __future__ import annotations

import pytest
import torch

from labkit.errors import LabkitError
from labkit.models import load
from labkit.questions import read_questions
from labkit.training import train
from labkit.training.answers import Written
from labkit.training.heads import new_speculator
from labkit.training.prompts import long_prompts, make_prompts, task_prompts, templates
from labkit.training.recipe import Recipe
from labkit.training.train import training_answers
from tests.training.conftest import count_up, documents
from tests.training.overlap import overlapping

TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}<end>"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture
def base(base_folder):
    return load(str(base_folder), device="cpu", dtype="float32")


@pytest.fixture
def chat_base(base):
    base.tokenizer.chat_template = TEMPLATE
    return base


def with_kinds(path, *kinds: str) -> Recipe:
    recipe = Recipe.load(path)
    made = recipe.generation.model_copy(update={"kinds": kinds})
    return recipe.model_copy(update={"generation": made})


def test_held_out_prompts_come_from_held_out_documents(small_world, make_recipe, base):
    recipe = Recipe.load(make_recipe())
    text = {held: " ".join(d.text for d in documents() if d.held_out == held) for held in (0, 1)}
    for held in (False, True):
        prompts = make_prompts(recipe, base, count_up, held_out=held)
        assert 0 < len(prompts) <= (4 if held else 24)
        assert {len(prompt) for prompt in prompts} == {6}
        pieces = [base.tokenizer.decode(prompt[1:-1]) for prompt in prompts]
        found = [piece.split("<|endoftext|>")[0] in text[held] for piece in pieces]
        assert all(found)


def test_kinds_share_the_count_and_nothing_is_asked_twice(small_world, make_recipe, chat_base):
    def write(prompts, manner, seed):
        turns = [f"question {seed} {number}" for number in range(len(prompts))]
        assert manner.temperature == 1
        return Written([chat_base.tokenizer(turn)["input_ids"] for turn in turns])

    recipe = with_kinds(make_recipe(), "tasks", "tasks", "own")
    prompts = make_prompts(recipe, chat_base, write, held_out=False)
    texts = [chat_base.tokenizer.decode(prompt) for prompt in prompts]
    assert len(texts) == len(set(texts)) == 24
    assert all(text.startswith("<user>") and text.endswith("<assistant>") for text in texts)
    assert sum(text.startswith("<user>question ") for text in texts) == 8


def test_a_kind_whose_share_is_nothing_is_not_asked_for(small_world, make_recipe, chat_base):
    recipe = with_kinds(make_recipe(), "tasks", "own")
    fewer = recipe.generation.model_copy(update={"held_out": 1})
    recipe = recipe.model_copy(update={"generation": fewer})
    assert len(make_prompts(recipe, chat_base, count_up, held_out=True)) == 1


def test_long_texts_and_second_turns_are_asked_whole(small_world, make_recipe, chat_base):
    chat_base.tokenizer.model_max_length = chat_base.config.max_position_embeddings = 4096
    reply = chat_base.tokenizer("a plain reply")["input_ids"]

    def write(prompts, manner, seed):
        return Written([reply for _ in prompts])

    recipe = with_kinds(make_recipe(), "long", "talk")
    prompts = make_prompts(recipe, chat_base, write, held_out=False)
    texts = [chat_base.tokenizer.decode(prompt) for prompt in prompts]
    talks = [text for text in texts if "<assistant>a plain reply<end><user>" in text]
    assert len(talks) >= 10
    assert all(text.split("<user>")[2].partition("<end>")[0] in follow_ups() for text in talks)
    assert len(talks) < len(texts)
    text = " ".join(document.text for document in documents())
    made = long_prompts([text], 30, seed=0)
    assert len(set(made)) == 30
    assert min(len(prompt.split()) for prompt in made) >= 80
    assert max(len(prompt.split()) for prompt in made) > 500


def follow_ups() -> list[str]:
    return templates()["follow_ups"]


def test_a_model_without_a_template_writes_no_prompts(small_world, make_recipe, base):
    with pytest.raises(LabkitError, match="no chat template"):
        make_prompts(with_kinds(make_recipe(), "own"), base, count_up, held_out=False)


def test_training_never_asks_a_held_out_prompt(small_world, make_recipe, base, monkeypatch):
    recipe = Recipe.load(make_recipe())
    asked = [[1, 2], [3, 4], [5, 6]]
    monkeypatch.setattr(train, "make_prompts", lambda *_a, held_out: asked[: 1 if held_out else 3])
    answers = training_answers(recipe, base, count_up)
    rows = [answers.sequences.row(row)[:2].tolist() for row in range(len(answers.sequences))]
    assert rows == asked[1:]


def test_untrained_heads_follow_the_seed_and_leave_the_generator_alone(make_recipe, base):
    recipe = Recipe.load(make_recipe())
    state = torch.get_rng_state()
    one, two = new_speculator(recipe, base), new_speculator(recipe, base)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))
    other = new_speculator(recipe.model_copy(update={"seed": 9}), base)
    assert not torch.equal(one.proj[0].weight, other.proj[0].weight)


def test_prompts_to_train_on_share_no_words_in_a_row_with_those_to_evaluate_on():
    evaluation = [question.turns[0] for question in read_questions()]
    training = task_prompts([document.text for document in documents()], 5_000, seed=0)
    assert overlapping(training, evaluation) == []
