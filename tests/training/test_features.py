"""Hidden states are the same computed, stored by a pass, or kept from the writing."""

from __future__ import annotations

import pytest
import torch

from labkit.errors import LabkitError
from labkit.models import load
from labkit.records import base as records
from labkit.training import answers as answering
from labkit.training import features
from labkit.training.answers import Writing, Written, make_shards
from labkit.training.batches import cut_runs, from_rows
from labkit.training.features import (
    computed_features,
    last_hidden,
    store_features,
)

LENGTH = 8


@pytest.fixture(scope="module")
def base(base_folder):
    return load(str(base_folder), device="cpu", dtype="float32").module


@pytest.fixture
def sequences():
    generator = torch.Generator().manual_seed(0)
    lengths = [(3, 12), (1, 30), (5, 6), (2, 9)]
    rows = [torch.randint(0, 300, (size,), generator=generator).tolist() for _, size in lengths]
    return from_rows(rows, [known for known, _ in lengths])


def assert_close_where_kept(kept, computed, runs):
    """Compare states; a sequence's last token has none in a shard, and needs none."""
    for run in range(len(runs)):
        known = int(runs.ends[run] - runs.starts[run]) - 1
        torch.testing.assert_close(kept[run, :known], computed[run, :known], atol=2e-3, rtol=2e-3)


def test_computed_states_are_those_of_the_whole_sequence(base, sequences):
    runs = cut_runs(sequences, 5)
    found = computed_features(base, sequences)(runs, LENGTH)
    for run in range(len(runs)):
        row, start = int(runs.rows[run]), int(runs.starts[run] - runs.origins[run])
        whole = last_hidden(base, sequences.row(row)[None])[0][start : start + LENGTH]
        torch.testing.assert_close(found[run, : len(whole)], whole, atol=1e-5, rtol=1e-5)
        assert not found[run, len(whole) :].any()


def test_states_of_other_layers_stand_before_the_last_ones(sequences, tmp_path):
    base = load("tiny", device="cpu", dtype="float32").module
    runs, layers = cut_runs(sequences, 5), (1, 2)
    wide = computed_features(base, sequences, layers)(runs, LENGTH)
    bare = computed_features(base, sequences)(runs, LENGTH)
    assert wide.shape[-1] == 3 * bare.shape[-1]
    torch.testing.assert_close(wide[..., -bare.shape[-1] :], bare)
    stored = store_features(base, sequences, tmp_path / "states", layers=layers)
    assert_close_where_kept(stored(runs, LENGTH), wide, runs)


def test_stored_states_are_the_computed_ones_in_half_precision(base, sequences, tmp_path):
    runs = cut_runs(sequences, 5)
    stored = store_features(base, sequences, tmp_path / "states")(runs, LENGTH)
    assert_close_where_kept(stored, computed_features(base, sequences)(runs, LENGTH), runs)


def test_an_interrupted_pass_goes_on_where_it_was(base, tmp_path, monkeypatch):
    monkeypatch.setattr(answering, "SHARD_ROWS", 32)
    rows = [[number, *[7] * 4] for number in range(128)]
    sequences, folder = from_rows(rows, [1] * len(rows)), tmp_path / "states"
    calls = []

    def counted(module, tokens, layers):
        calls.append(len(tokens))
        if len(calls) == 6:
            raise KeyboardInterrupt
        return last_hidden(module, tokens, layers)

    monkeypatch.setattr(features, "last_hidden", counted)
    with pytest.raises(KeyboardInterrupt):
        store_features(base, sequences, folder)
    resumed = store_features(base, sequences, folder)
    assert len(calls) == 6 + 8 - 4  # the third shard was not finished
    whole = store_features(base, sequences, tmp_path / "whole")
    runs = cut_runs(sequences, 4)
    assert torch.equal(resumed(runs, 5), whole(runs, 5))


def test_states_kept_by_the_writer_stand_where_the_pass_puts_them(base, tmp_path, monkeypatch):
    monkeypatch.setattr(answering, "SHARD_ROWS", 4)

    def write(prompts, manner, seed):
        del seed
        answers = [
            [(prompt[-1] * 7 + n) % 300 for n in range(manner.max_new_tokens)] for prompt in prompts
        ]
        states = [
            last_hidden(base, torch.tensor([prompt + answer]))[0, len(prompt) - 1 : -1]
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        return Written(answers, torch.cat(states).half())

    prompts = [[number, 2 * number][: 1 + number % 2] for number in range(1, 10)]
    answers = make_shards(tmp_path, prompts, write, Writing(11))
    runs = cut_runs(answers.sequences, 3)
    kept = answers.hidden(runs, 6)
    computed = computed_features(base, answers.sequences)(runs, 6)
    assert_close_where_kept(kept, computed, runs)


def test_a_full_disk_says_how_much_is_needed(base, sequences, tmp_path, monkeypatch):
    def full(*_arguments, **_settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records.os, "fsync", full)
    with pytest.raises(LabkitError, match=r"No space left .* so far are kept.*need .* GB"):
        store_features(base, sequences, tmp_path / "states")
