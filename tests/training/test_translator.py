"""The translator's training: who is held out, how pairs are batched, and that it can be resumed."""

from __future__ import annotations

import lzma
import math

import pytest
import torch

from labkit.errors import LabkitError
from labkit.mbr.conditional import conditional
from labkit.mbr.search import greedy
from labkit.models import load
from labkit.training import translator
from labkit.training.translator import (
    TranslatorRecipe,
    batches,
    encode,
    read_corpus,
    shuffled,
    split,
)

RECIPE = """
seed = 1
longest = 20
[model]
vocabulary = 300
width = 32
encoder_layers = 1
decoder_layers = 1
heads = 2
inner = 32
context = 32
dropout = 0.1
[training]
steps = 24
batch_tokens = 400
learning_rate = 1e-2
warmup = 5
final_share = 0.1
betas = [0.9, 0.98]
weight_decay = 0.0
clip = 1.0
checkpoint_every = 10
"""
ANIMALS = {"Hund": "dog", "Kuh": "cow", "Maus": "mouse", "Ente": "duck", "Katze": "cat"}
DEEDS = {"schläft": "sleeps", "isst": "eats", "läuft": "runs", "wartet": "waits"}
PLACES = {"hier": "here", "dort": "there", "heute": "today", "oft": "often", "jetzt": "now"}
PAIRS = [
    (f"Sieh, {animal} {deed} {place}.", f"Look, {ANIMALS[animal]} {DEEDS[deed]} {PLACES[place]}.")
    for animal in ANIMALS
    for deed in DEEDS
    for place in PLACES
]


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return TranslatorRecipe.load(path)


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "pairs.tsv.xz"
    text = "".join(f"{source}\t{target}\tsomebody's\n" for source, target in PAIRS)
    path.write_bytes(lzma.compress(text.encode()))
    return path


def test_it_learns_and_its_folder_translates(recipe, corpus, tmp_path):
    result = translator.train(recipe, corpus, tmp_path / "out")
    assert result["loss"] < 0.6 * math.log(300)
    model = load(str(tmp_path / "out" / "model"), device="cpu")
    assert model.module.dtype == torch.float32
    (best,) = greedy(conditional(model), ["Sieh, Hund schläft hier."], 12)
    assert best.text.startswith("Look,")


def test_killed_between_checkpoints_it_ends_at_the_same_weights(
    recipe, corpus, tmp_path, monkeypatch
):
    translator.train(recipe, corpus, tmp_path / "whole")

    def dying(*arguments):
        for step, batch in enumerate(shuffled(*arguments)):
            if step == 17:
                raise SystemExit
            yield batch

    monkeypatch.setattr(translator, "shuffled", dying)
    with pytest.raises(SystemExit):
        translator.train(recipe, corpus, tmp_path / "killed")
    monkeypatch.setattr(translator, "shuffled", shuffled)
    translator.train(recipe, corpus, tmp_path / "killed")
    weights = "model/model.safetensors"
    assert (tmp_path / "killed" / weights).read_bytes() == (
        tmp_path / "whole" / weights
    ).read_bytes()


def test_no_text_is_both_trained_on_and_held_out():
    pairs = [(f"Satz {'a' * n}.", f"Sentence {'b' * (n % 300)}") for n in range(1, 900)]
    training, held_out = split([*pairs, *((source.upper(), text) for source, text in pairs)])
    assert 5 <= len(held_out) <= 40
    seen = {translator._letters(text) for pair in held_out for text in pair}
    assert not seen & {translator._letters(text) for pair in training for text in pair}
    assert len(training) + len(held_out) < 2 * len(pairs)  # those that share a text are dropped


def test_every_pair_stands_in_one_batch_of_an_epoch_and_none_is_too_large(recipe, corpus):
    pairs = read_corpus(corpus)
    tokenizer = translator.train_tokenizer((text for pair in pairs for text in pair), 300)
    encoded = encode(pairs, tokenizer, 60)
    number = {id(pair): place for place, pair in enumerate(encoded)}
    made = batches(encoded, 200)
    assert sorted(number[id(pair)] for batch in made for pair in batch) == list(range(len(pairs)))
    for batch in made:
        longest = [max(map(len, side)) for side in zip(*batch, strict=True)]
        assert sum(longest) * len(batch) <= 200
    steps = shuffled(encoded, 200, seed=3)
    first, second = (
        [[number[id(pair)] for pair in next(steps)] for _ in range(len(made))] for _ in range(2)
    )
    assert sorted(place for batch in first for place in batch) == list(range(len(pairs)))
    assert second != first


def test_padding_changes_no_loss(recipe, corpus):
    pairs = read_corpus(corpus)[:6]
    tokenizer = translator.train_tokenizer((text for pair in PAIRS for text in pair), 300)
    encoded = encode(pairs, tokenizer, 60)
    model = translator.build_model(recipe.model, seed=0).eval()
    together = translator.held_out_loss(model, encoded, 10_000)
    model.eval()
    assert translator.held_out_loss(model, encoded, 1) == pytest.approx(together, rel=1e-5)


@pytest.mark.parametrize("line", ["no tab here\n", "\tno source\n", "kein Ziel\t \n"])
def test_a_line_that_is_no_pair_is_named(line, tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("gut\tgood\n" + line, encoding="utf-8")
    with pytest.raises(LabkitError, match="Line 2 of"):
        read_corpus(path)


def test_a_file_that_is_damaged_or_empty_is_named(tmp_path, corpus):
    cut = tmp_path / "cut.xz"
    cut.write_bytes(corpus.read_bytes()[:-40])
    with pytest.raises(LabkitError, match="cannot be read"):
        read_corpus(cut)
    empty = tmp_path / "empty.tsv"
    empty.write_text("", encoding="utf-8")
    with pytest.raises(LabkitError, match="has no pairs"):
        read_corpus(empty)


def test_a_corpus_too_small_to_judge_by_is_refused(recipe, tmp_path):
    few = tmp_path / "few.tsv"
    few.write_text("Ja.\tYes.\nNein.\tNo.\n", encoding="utf-8")
    with pytest.raises(LabkitError, match="0 to judge by: give a larger corpus"):
        translator.train(recipe, few, tmp_path / "out")


def test_a_recipe_of_another_shape_is_refused(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.replace("heads = 2", "heads = 3"), encoding="utf-8")
    with pytest.raises(LabkitError, match="width must divide by heads"):
        TranslatorRecipe.load(path)
