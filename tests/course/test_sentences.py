"""The sentences that the notebooks translate: what their card says of them."""

from __future__ import annotations

import unicodedata

from labkit.mbr.pairs import read_pairs
from labkit.paths import data_dir

FOLDER = data_dir() / "sentences"
PAIRS = list(read_pairs(FOLDER / "deu-eng.tsv"))


def test_there_are_as_many_as_the_card_says_and_no_two_alike():
    assert f"{len(PAIRS)} German sentences" in (FOLDER / "README.md").read_text(encoding="utf-8")
    for side in zip(*PAIRS, strict=True):
        assert len({text.casefold() for text in side}) == len(PAIRS)


def test_each_is_an_everyday_sentence_of_five_to_fifteen_words():
    for source, reference in PAIRS:
        assert 5 <= len(source.split()) <= 15, source
        for text in (source, reference):
            assert text[0].isupper() and text[-1] in ".?!", text
            assert text == unicodedata.normalize("NFC", " ".join(text.split())), text


def test_the_card_says_whose_they_are():
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for word in ("own work", "Licence", "not trained on"):
        assert word in card
