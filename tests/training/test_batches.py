"""Which tokens a head sees and is to predict, and what its loss is."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labkit.training.batches import (
    batch_indices,
    cut_runs,
    draw_candidates,
    from_rows,
    learning_rate_at,
    make_batch,
)
from labkit.training.losses import chain_tokens_per_step, hard_loss, soft_loss
from labkit.training.recipe import Schedule

LENGTHS = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 9)), min_size=1, max_size=5)


@given(lengths=LENGTHS, window=st.integers(1, 5), heads=st.integers(1, 4))
def test_every_head_predicts_every_answer_token_that_it_can_once(lengths, window, heads):
    """Head i at place t is given x[t+1+i] and predicts x[t+2+i], all within one sequence."""
    rows, tokens = [], iter(range(1, 1000))
    for known, more in lengths:
        rows.append([next(tokens) for _ in range(known + more)])
    sequences = from_rows(rows, [known for known, _ in lengths])
    runs = cut_runs(sequences, window)
    found = [set() for _ in range(heads)]
    if len(runs):
        batch = make_batch(sequences.tokens, runs, window, heads)
        starts = runs.starts[:, None] + torch.arange(window)
        for head in range(heads):
            counted = batch.counted(head)
            triples = zip(
                starts[counted].tolist(),
                batch.tokens[:, 1 + head : 1 + head + window][counted].tolist(),
                batch.targets(head)[counted].tolist(),
                strict=True,
            )
            for triple in triples:
                assert triple not in found[head]
                found[head].add(triple)
    for head in range(heads):
        expected, origin = set(), 0
        for row, (known, _) in zip(rows, lengths, strict=True):
            for t in range(known - 1, len(row) - 2 - head):
                expected.add((origin + t, row[t + 1 + head], row[t + 2 + head]))
            origin += len(row)
        assert found[head] == expected


@given(size=st.integers(1, 7), count=st.integers(1, 11), seed=st.integers(0, 5))
def test_an_epoch_takes_every_run_once(size, count, seed):
    drawn = torch.cat([batch_indices(step, size, count, seed) for step in range(count)])
    for epoch in drawn.split(count):
        assert sorted(epoch.tolist()) == list(range(count))


def test_learning_rate_rises_to_the_peak_and_ends_at_its_share():
    plan = Schedule(
        steps=1000, rows=1, window=1, learning_rate=2.0, warmup_share=0.05, final_share=0.1
    )
    rates = [learning_rate_at(step, plan) for step in range(1000)]
    assert rates[0] == pytest.approx(2.0 / 50)
    assert max(rates) == rates[49] == pytest.approx(2.0)
    assert rates[49:] == sorted(rates[49:], reverse=True)
    assert rates[-1] == pytest.approx(0.2, abs=1e-4)


def test_candidates_hold_all_targets_and_stand_for_the_whole_vocabulary():
    targets, frequent = torch.tensor([[5, 9], [9, 70]]), torch.tensor([1, 5])
    drawn = draw_candidates(targets, frequent, 20, 100, torch.Generator().manual_seed(0))
    assert len(drawn.ids) == len(drawn.ids.unique()) == 20
    assert {1, 5, 9, 70} <= set(drawn.ids.tolist())
    assert drawn.correction.exp().sum() == pytest.approx(100, rel=1e-5)
    assert torch.equal(drawn.ids[drawn.places[targets]], targets)


def test_a_sampled_softmax_has_the_whole_one_as_its_mean():
    """Sum of exponentials over 3,000 draws; the tolerance is five standard errors."""
    generator = torch.Generator().manual_seed(1)
    logits, sure = torch.randn(200, generator=generator), torch.tensor([3])
    sums = []
    for _ in range(3000):
        drawn = draw_candidates(sure, sure, 40, 200, generator)
        sums.append((logits[drawn.ids] + drawn.correction).exp().sum())
    found = torch.stack(sums)
    error = found.std() / math.sqrt(len(found))
    assert abs(found.mean() - logits.exp().sum()) < 5 * error


def test_losses_over_all_candidates_are_the_plain_cross_entropies():
    logits, base = torch.randn(2, 6, 50).unbind()
    targets = torch.randint(0, 50, (6,))
    drawn = draw_candidates(targets, targets, 50, 50, torch.Generator())
    picked = logits[:, drawn.ids] + drawn.correction
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(hard_loss(picked, drawn.places[targets]), expected)
    soft = torch.nn.functional.cross_entropy(logits, base.softmax(-1), reduction="none")
    labels = base[:, drawn.ids] + drawn.correction
    torch.testing.assert_close(soft_loss(picked, labels, drawn.correction), soft)


def test_soft_loss_is_least_where_the_head_agrees_with_the_base():
    base = torch.randn(4, 30)
    agreeing = soft_loss(base, base)
    assert (agreeing < soft_loss(torch.randn(4, 30), base)).all()
    entropy = torch.distributions.Categorical(logits=base).entropy()
    torch.testing.assert_close(agreeing, entropy)


def test_steps_of_a_chain_are_counted_as_decoding_takes_them():
    never = torch.zeros(5, 3, dtype=torch.bool)
    assert chain_tokens_per_step(never, torch.tensor([5])) == 1
    always = torch.ones(8, 3, dtype=torch.bool)
    assert chain_tokens_per_step(always, torch.tensor([8])) == 4
    second_only = torch.tensor([[False, True, True]] * 4)
    assert chain_tokens_per_step(second_only, torch.tensor([2, 2])) == 1
