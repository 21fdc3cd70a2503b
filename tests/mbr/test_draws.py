"""Samples are fair, shared prefixes cost once, and log-probabilities are the model's own."""

import itertools
import math

import pytest
import torch
from scipy.stats import chisquare

from labkit.errors import LabkitError
from labkit.mbr.conditional import conditional
from labkit.mbr.draws import Draws, draw, draw_tokens, stream
from labkit.sampling import Sampling

from .models import END, Table, gpt2, llama, marian

LETTERS = [
    [0.0, 0.5, 0.3, 0.2],
    [0.4, 0.3, 0.2, 0.1],
    [0.5, 0.0, 0.25, 0.25],
    [0.6, 0.1, 0.1, 0.2],
]
SOURCES = ["1 2 3", "5 6 7 8 9 10", "4", "30 31 32 33"]


def distribution(table, longest):
    """Every text of the table's language and its probability, cut off after ``longest`` tokens."""
    texts = {}

    def write(prefix, last, p):
        for token, q in enumerate(table[last]):
            if q == 0:
                continue
            if token == END:
                texts[prefix] = texts.get(prefix, 0) + p * q
            elif len(prefix) + 1 == longest:
                longer = prefix + chr(ord("a") + token - 1)
                texts[longer] = texts.get(longer, 0) + p * q
            else:
                write(prefix + chr(ord("a") + token - 1), token, p * q)

    write("", 0, 1.0)
    return texts


def test_samples_follow_the_models_distribution():
    # One test of 1 in 1,000 false alarms, with a fixed seed: it fails only when something is wrong.
    [drawn] = draw(Table(LETTERS), ["x"], Draws(samples=20_000, max_new_tokens=4))
    expected = distribution(LETTERS, 4)
    counts = {sample.text: sample.count for sample in drawn}
    assert set(counts) <= set(expected)
    observed = [counts.get(text, 0) for text in expected]
    assert chisquare(observed, [20_000 * p for p in expected.values()]).pvalue > 0.001


def test_a_wrong_distribution_would_be_noticed():
    [drawn] = draw(Table(LETTERS), ["x"], Draws(20_000, 4, sampling=Sampling(temperature=1.1)))
    counts = {sample.text: sample.count for sample in drawn}
    expected = distribution(LETTERS, 4)
    observed = [counts.get(text, 0) for text in expected]
    assert chisquare(observed, [20_000 * p for p in expected.values()]).pvalue < 1e-6


def test_log_probability_is_that_of_the_text():
    [drawn] = draw(Table(LETTERS), ["x"], Draws(samples=300, max_new_tokens=12))
    for sample in drawn:
        tokens = [0, *(ord(letter) - ord("a") + 1 for letter in sample.text), END]
        steps = itertools.pairwise(tokens[: sample.tokens + 1])
        expected = sum(math.log(LETTERS[last][token]) for last, token in steps)
        assert sample.logprob == pytest.approx(expected, abs=1e-5)
        assert sample.tokens == min(len(sample.text) + 1, 12)


@pytest.mark.parametrize("make", [llama, marian])
def test_log_probabilities_are_the_untempered_models_own(make):
    base = make()
    how = Draws(20, 10, sampling=Sampling(temperature=0.7, top_k=20, top_p=0.9))
    for source, drawn in zip(SOURCES, draw(conditional(base), SOURCES, how), strict=True):
        for sample in drawn:
            tokens = base.encode(sample.text)
            if sample.tokens > len(tokens):  # it ended: by which token is not known from the text
                known = base.next_token_logprobs(source, tokens)[-1]
                before = base.logprob(source, tokens) if tokens else 0.0
                ends = [before + known[end].item() for end in base.eos_ids]
                assert any(e - 1e-4 < sample.logprob for e in ends)
                assert sample.logprob < torch.tensor(ends).logsumexp(0) + 1e-4
            else:
                assert sample.logprob == pytest.approx(base.logprob(source, tokens), abs=1e-4)


@pytest.mark.parametrize("make", [gpt2, llama, marian])
def test_a_sources_samples_do_not_depend_on_its_neighbours(make):
    model = conditional(make())
    together = draw(model, SOURCES, Draws(samples=9, max_new_tokens=8))
    for source, drawn in zip(SOURCES, together, strict=True):
        [alone] = draw(model, [source], Draws(samples=9, max_new_tokens=8, at_once=1))
        assert [(s.text, s.count, s.tokens) for s in alone] == [
            (s.text, s.count, s.tokens) for s in drawn
        ]


def test_a_common_beginning_is_computed_once():
    certain = [[0, 1, 0], [0, 0, 1], [1.0, 0, 0]]  # always "ab"
    model = Table(certain)
    [drawn] = draw(model, ["x"], Draws(samples=50))
    assert [(sample.text, sample.count) for sample in drawn] == [("ab", 50)]
    assert model.rows_computed == 2


def test_rows_are_the_distinct_beginnings():
    model = Table(LETTERS)
    [drawn] = draw(model, ["x"], Draws(samples=200, max_new_tokens=6))
    prefixes = {sample.text[:length] for sample in drawn for length in range(1, 6)}
    ended = {s.text for s in drawn if s.tokens > len(s.text)}
    went_on = {p for p in prefixes if any(s.text.startswith(p) for s in drawn)}
    # Every proper beginning that was written to was a row; those of length 6 were never read.
    assert model.rows_computed == len({p for p in went_on | ended if 0 < len(p) < 6})


def test_the_same_seed_draws_the_same_and_another_seed_another():
    model = Table(LETTERS)
    first, again = (draw(model, ["x", "y"], Draws(seed=3)) for _ in range(2))
    assert first == again
    assert first[0] != first[1]
    assert first != draw(model, ["x", "y"], Draws(seed=4))


def test_counts_add_up_to_the_samples_asked_for():
    for drawn in draw(Table(LETTERS), ["x", "y", "z"], Draws(samples=37, at_once=2)):
        assert sum(sample.count for sample in drawn) == 37
        assert len({sample.text for sample in drawn}) == len(drawn)


def test_two_splits_of_one_text_add_their_probabilities():
    model = Table([[0, 0.25, 0.75], [1.0, 0, 0], [1.0, 0, 0]])
    model.text = lambda tokens: "same"
    [[only]] = draw(model, ["x"], Draws(samples=40))
    assert (only.count, only.logprob) == (40, pytest.approx(0, abs=1e-6))


def test_epsilon_drops_what_is_improbable():
    [drawn] = draw(
        Table(LETTERS), ["x"], Draws(500, 5, sampling=Sampling(temperature=1, epsilon=0.25))
    )
    assert "c" not in {sample.text[:1] for sample in drawn}


def test_sources_stream_a_batch_at_a_time():
    taken = []

    def sources():
        for name in "pqrstu":
            taken.append(name)
            yield name

    samples = stream(Table(LETTERS), sources(), Draws(samples=2, at_once=2))
    next(samples)
    assert taken == ["p", "q"]


def test_choose_inverts_the_distribution_function_across_blocks():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 1000, generator=generator) * 4
    logits[:, 100:300] = float("-inf")
    row = torch.randint(5, (4000,), generator=generator)
    uniform = torch.rand(4000, generator=generator, dtype=torch.float64)
    cumulative = logits.double().softmax(-1).cumsum(-1)[row]
    token = draw_tokens(logits, row, uniform)[:, None]
    assert torch.all(cumulative.gather(1, token)[:, 0] > uniform - 1e-6)
    assert torch.all((token == 0) | (cumulative.gather(1, token - 1) < uniform[:, None] + 1e-6))


def test_choose_stays_within_the_vocabulary_however_sums_are_rounded():
    logits = torch.randn(2000, 300, generator=torch.Generator().manual_seed(0))
    almost_one = torch.full((2000,), 1 - 2**-53, dtype=torch.float64)
    assert int(draw_tokens(logits, torch.arange(2000), almost_one).max()) < 300


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
def test_choose_never_takes_a_token_without_probability(uniform):
    logits = torch.full((1, 300), float("-inf"))
    logits[0, [3, 130, 257]] = torch.tensor([0.0, -90.0, -1.0])
    token = draw_tokens(logits, torch.tensor([0]), torch.tensor([uniform], dtype=torch.float64))
    assert int(token) in (3, 257)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"samples": 0}, "samples is 0"),
        ({"max_new_tokens": -1}, "max_new_tokens is -1"),
        ({"sampling": Sampling()}, "temperature is 0"),
        ({"sampling": Sampling(temperature=1, typical=True)}, "typical"),
    ],
)
def test_settings_that_cannot_be_are_named(settings, says):
    with pytest.raises(LabkitError, match=says):
        Draws(**settings)


@pytest.mark.parametrize("make", [llama, marian])
@pytest.mark.parametrize(("source", "says"), [("  ", "empty"), ("1 " * 99, "99 tokens")])
def test_sources_that_cannot_be_are_named(make, source, says):
    with pytest.raises(LabkitError, match=says):
        draw(conditional(make()), ["1 2", source])
