"""What the lab ships: heads that fit their models, answers apart from the evaluation, cards."""

from __future__ import annotations

import pytest
import torch

from labkit.models import load
from labkit.paths import data_dir
from labkit.questions import read_questions
from labkit.records import LossLog
from labkit.speculative.checkpoint import load_heads
from labkit.speculative.decoder import Decoder
from labkit.training.answers import read_answers
from tests.training.overlap import overlapping

HEADS = ("real-plain", "real-medusa", "real-eagle", "tiny", "tiny-medusa", "tiny-eagle")


@pytest.mark.parametrize("name", HEADS)
def test_shipped_heads_fit_their_base_model_and_show_how_they_learned(name):
    folder = data_dir() / "heads" / name
    base = load(name.partition("-")[0])
    table = torch.from_numpy(base.weights()["model.embed_tokens.weight"].copy())
    speculator, draft_ids = load_heads(folder, table)
    log = LossLog.load(folder / "losslog.json")
    assert speculator.config.n_predict == log.heads
    assert len(draft_ids) % 16 == 0
    assert {point.phase for point in log.points} == ({1, 2} if log.recipe["phase1"] else {2})
    first, last = log.validation[0], log.validation[-1]
    assert all(after < before for before, after in zip(first.loss, last.loss, strict=True))
    assert last.tokens_per_step > 1.3


def test_the_joined_heads_fit_their_base_model_and_hold_the_plain_ones():
    table = torch.from_numpy(load("real").weights()["model.embed_tokens.weight"].copy())
    joined, draft_ids = load_heads(data_dir() / "heads" / "real", table)
    plain, plain_ids = load_heads(data_dir() / "heads" / "real-plain", table)
    assert joined.config.groups == 2
    assert joined.config.context is not None
    assert set(draft_ids) < set(plain_ids)
    half = joined.proj[1].weight[: plain.config.inner_dim]
    step = (plain.proj[1].weight.max() - plain.proj[1].weight.min()) / 15
    assert (half - plain.proj[1].weight).abs().max() < step


@pytest.mark.parametrize("base", ["tiny", "real"])
def test_both_models_have_every_kind_of_drafter_and_none_changes_the_output(base):
    decoder = Decoder(base, max_nodes=6)
    prompt = "Name three animals that live in the sea."
    plain = decoder.generate(prompt, 24)
    for method in ("mlp", "medusa", "eagle"):
        drafted = decoder.generate(prompt, 24, method)
        assert drafted.tokens == plain.tokens, method
        assert len(drafted.steps) < len(plain.steps), method


def test_training_prompts_share_nothing_with_the_evaluation_prompts():
    answers = read_answers(data_dir() / "answers" / "real").sequences
    tokenizer = load("real").tokenizer
    asked = [
        tokenizer.decode(answers.row(row)[: answers.given[row]], skip_special_tokens=True)
        for row in range(len(answers))
    ]
    evaluation = [question.turns[0] for question in read_questions()]
    assert len(asked) > 1000
    assert overlapping(asked, evaluation) == []
    assert overlapping([*asked, f"Please: {evaluation[0]}"], evaluation) == [evaluation[0]]


@pytest.mark.parametrize("kind", ["models", "heads"])
def test_every_shipped_folder_has_a_card(kind):
    folders = [path for path in (data_dir() / kind).iterdir() if path.is_dir()]
    assert folders
    for folder in folders:
        card = (folder / "README.md").read_text(encoding="utf-8")
        assert "Licence" in card
        assert "labkit train" in card or "labkit.training" in card, folder
