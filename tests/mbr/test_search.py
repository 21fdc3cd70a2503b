"""Greedy and beam search find what transformers' own find; diverse beams differ."""

import itertools

import pytest
import torch

from labkit.errors import LabkitError
from labkit.mbr.conditional import conditional
from labkit.mbr.draws import Draws, draw
from labkit.mbr.search import Beam, beam, greedy

from .models import Table, llama, marian

SOURCES = ["1 2 3", "5 6 7 8 9 10", "4", "30 31 32 33", "12 12"]


def by_transformers(base, source, **options):
    ids = torch.tensor([base.encode(source)])
    forbidden = {"bad_words_ids": [[0]]} if base.module.config.is_encoder_decoder else {}
    sequences = base.module.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False,
        eos_token_id=sorted(base.eos_ids), pad_token_id=0, **forbidden, **options,
    )  # fmt: skip
    start = 1 if base.module.config.is_encoder_decoder else ids.shape[1]
    return [
        base.decode(t for t in one[start:].tolist() if t not in (0, *base.eos_ids))
        for one in sequences
    ]


@pytest.mark.parametrize("make", [llama, marian])
def test_greedy_equals_transformers(make):
    base = make()
    found = greedy(conditional(base), SOURCES, max_new_tokens=12)
    assert [one.text for one in found] == [by_transformers(base, s)[0] for s in SOURCES]


@pytest.mark.parametrize("make", [llama, marian])
@pytest.mark.parametrize("length_power", [0.0, 1.0])
def test_beam_equals_transformers(make, length_power):
    base = make()
    how = Beam(beams=4, max_new_tokens=12, length_power=length_power, at_once=3)
    for source, found in zip(SOURCES, beam(conditional(base), SOURCES, how), strict=True):
        theirs = by_transformers(
            base, source, num_beams=4, num_return_sequences=4, length_penalty=length_power
        )
        assert [one.text for one in found] == theirs


@pytest.mark.parametrize("make", [llama, marian])
def test_log_probabilities_are_the_models_own(make):
    base = make()
    how = Beam(max_new_tokens=12)
    for source, found in zip(SOURCES, beam(conditional(base), SOURCES, how), strict=True):
        for one in found:
            tokens = base.encode(one.text)
            known = base.next_token_logprobs(source, tokens)[-1]
            before = base.logprob(source, tokens) if tokens else 0.0
            if one.tokens == len(tokens):  # cut off
                assert one.logprob == pytest.approx(before, abs=1e-4)
            else:
                ends = [before + known[end].item() for end in base.eos_ids]
                assert min(abs(end - one.logprob) for end in ends) < 1e-4


@pytest.mark.parametrize("make", [llama, marian])
def test_texts_end_where_the_models_context_does(make):
    base = make()
    base.eos_ids = frozenset()  # nothing ends a text
    model, sources = conditional(base), ["1 2 3"]
    [found] = greedy(model, sources, max_new_tokens=500)
    [[best, *_]] = beam(model, sources, Beam(beams=2, max_new_tokens=500))
    [samples] = draw(model, sources, Draws(samples=2, max_new_tokens=500))
    room = base.context - (0 if base.module.config.is_encoder_decoder else 3)
    assert [found.tokens, best.tokens, samples[0].tokens] == [room] * 3


def test_a_wide_beam_finds_the_most_probable_text_that_greedy_misses():
    garden_path = [[0, 0.6, 0.4, 0, 0], [0.2, 0.2, 0.2, 0.2, 0.2], [0.9, 0, 0, 0.1, 0],
                   [1.0, 0, 0, 0, 0], [1.0, 0, 0, 0, 0]]  # fmt: skip
    model = Table(garden_path)
    [first] = greedy(model, ["x"])
    [found] = beam(model, ["x"], Beam(beams=4, length_power=0))
    assert first.text.startswith("a")
    assert (found[0].text, found[0].logprob) == ("b", pytest.approx(torch.tensor(0.36).log()))


def test_found_texts_stand_best_first_and_are_distinct():
    base = llama()
    for found in beam(conditional(base), SOURCES, Beam(beams=6, max_new_tokens=9)):
        ranks = [one.logprob / one.tokens for one in found]
        assert ranks == sorted(ranks, reverse=True)
        assert len(found) <= 6


def test_diversity_makes_groups_choose_different_tokens():
    base = llama()

    def different(diversity):
        how = Beam(beams=6, groups=3, diversity=diversity, max_new_tokens=8)
        total = 0
        for found in beam(conditional(base), SOURCES, how):
            pairs = itertools.combinations([set(one.text.split()) for one in found], 2)
            total += sum(len(a ^ b) for a, b in pairs)
        return total

    assert different(3.0) > different(0.0)


def test_groups_without_diversity_are_all_the_smaller_beam():
    model = conditional(llama())
    [one] = beam(model, SOURCES[:1], Beam(beams=2, max_new_tokens=8))
    [three] = beam(model, SOURCES[:1], Beam(beams=6, groups=3, max_new_tokens=8))
    assert [f.text for f in three] == [f.text for f in one for _ in range(3)]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"beams": 0}, "beams is 0"),
        ({"beams": 5, "groups": 2}, "5 beams do not make 2 equal groups"),
        ({"diversity": -1.0}, "diversity is -1"),
    ],
)
def test_settings_that_cannot_be_are_named(settings, says):
    with pytest.raises(LabkitError, match=says):
        Beam(**settings)
