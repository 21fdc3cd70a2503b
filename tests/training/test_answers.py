"""Answers are made once, kept whole, never twice, and never on evaluation prompts."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labkit.cli import main
from labkit.errors import LabkitError
from labkit.records.base import RecordError
from labkit.training import answers as keeping
from labkit.training.answers import (
    Writing,
    Written,
    convert_answers,
    make_shards,
    read_answers,
)
from labkit.training.batches import text_windows
from labkit.training.prompts import text_prompts
from tests.training.overlap import overlapping

PROMPTS = [[number, number + 1] for number in range(10)]
MANNER = Writing(4)


class Writer:
    """Answers [sum, sum, ...] with one state per token, and counts its calls."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.calls, self.fail_at = 0, fail_at

    def __call__(self, prompts, manner, seed):
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        self.calls += 1
        answers = [[sum(prompt)] * manner.max_new_tokens for prompt in prompts]
        states = torch.arange(sum(map(len, answers)))[:, None] + 1000.0 * seed
        return Written(answers, states.expand(-1, 3))


def test_interrupted_generation_goes_on_with_the_first_missing_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "SHARD_ROWS", 3)
    with pytest.raises(KeyboardInterrupt):
        make_shards(tmp_path, PROMPTS, Writer(fail_at=2), MANNER)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    again = Writer()
    answers = make_shards(tmp_path, PROMPTS, again, MANNER)
    assert again.calls == 2
    rows = [answers.sequences.row(row).tolist() for row in range(len(answers.sequences))]
    assert rows == [[*prompt, *[sum(prompt)] * 4] for prompt in PROMPTS]


def test_equal_answers_count_once_and_empty_ones_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "SHARD_ROWS", 2)

    def write(prompts, manner, seed):
        del manner, seed
        return Written([[7, 7] if prompt[0] else [] for prompt in prompts])

    answers = make_shards(tmp_path, [[1, 2], [0, 1], [1, 2], [3]], write, MANNER)
    rows = [answers.sequences.row(row).tolist() for row in range(len(answers.sequences))]
    assert rows == [[1, 2, 7, 7], [3, 7, 7]]
    assert not answers.width


def test_a_folder_of_other_answers_is_refused(tmp_path):
    make_shards(tmp_path, PROMPTS, Writer(), MANNER)
    with pytest.raises(LabkitError, match="other settings"):
        make_shards(tmp_path, PROMPTS, Writer(), Writing(5))
    with pytest.raises(LabkitError, match="other settings"):
        make_shards(tmp_path, PROMPTS[1:], Writer(), MANNER)


def test_a_damaged_shard_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(LabkitError, match="no answers in"):
        read_answers(tmp_path)
    make_shards(tmp_path, PROMPTS, Writer(), MANNER)
    path = tmp_path / "shard-00000.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(LabkitError, match=r"shard-00000\.safetensors is damaged"):
        read_answers(tmp_path)


def test_a_full_disk_keeps_the_shards_so_far(tmp_path, monkeypatch):
    written = keeping.write_whole

    def full(path, content):
        if path.name == "shard-00001.safetensors":
            raise RecordError(f"Cannot write {path}: No space left on device.")
        return written(path, content)

    monkeypatch.setattr(keeping, "SHARD_ROWS", 4)
    monkeypatch.setattr(keeping, "write_whole", full)
    with pytest.raises(LabkitError, match="No space left on device"):
        make_shards(tmp_path, PROMPTS, Writer(), MANNER)
    assert len(read_answers(tmp_path).sequences) == 4


def test_prompts_cut_from_text_do_not_overlap_and_follow_the_seed():
    stream = torch.arange(100)
    prompts = text_prompts(stream, 7, 10, seed=4)
    tokens = [token for prompt in prompts for token in prompt]
    assert len(tokens) == len(set(tokens)) == 70
    assert prompts == text_prompts(stream, 7, 10, seed=4) != text_prompts(stream, 7, 10, seed=5)
    with pytest.raises(LabkitError, match="gives 14 prompts of 7 tokens"):
        text_prompts(stream, 7, 15, seed=4)


def test_windows_tile_the_text():
    windows = text_windows(torch.arange(23), 5)
    rows = [windows.row(row).tolist() for row in range(len(windows))]
    assert rows == [list(range(start, start + 5)) for start in (0, 5, 10, 15)]
    with pytest.raises(LabkitError, match="less than one window"):
        text_windows(torch.arange(4), 5)


def test_overlap_is_found_whatever_the_letters_and_spacing():
    evaluation = ["How do I bake   bread at home without any yeast?", "Name three rivers."]
    assert overlapping(["please: name three RIVERS. thanks"], evaluation) == evaluation[1:]
    training = ["I wonder how do i bake bread at home without any of it"]
    assert overlapping(training, evaluation) == evaluation[:1]
    assert overlapping(["Name four rivers.", "How do I bake bread?"], evaluation) == []


def npz(path, **columns):
    """A file of answers; by default of two, one of them with a prompt of two tokens."""
    usual = {"tokens": [1, 2, 9, 9, 3, 8], "lengths": [4, 2], "given": [2, 1]}
    kinds = {"tokens": np.uint16, "lengths": np.int32, "given": np.int32}
    arrays = {name: np.array(column, kinds[name]) for name, column in (usual | columns).items()}
    np.savez(path, **arrays)
    return path


def test_converted_answers_are_read_as_shards_are(tmp_path):
    made = convert_answers(npz(tmp_path / "answers.npz"), tmp_path / "out")
    assert made == {"answers": 2, "tokens": 3, "folder": str(tmp_path / "out")}
    read = read_answers(tmp_path / "out")
    rows = [read.sequences.row(row).tolist() for row in range(len(read.sequences))]
    assert rows == [[1, 2, 9, 9], [3, 8]]
    assert read.sequences.given.tolist() == [2, 1]
    words = ["train", "convert", "--answers", str(tmp_path / "answers.npz")]
    result = CliRunner().invoke(main, [*words, "--out", str(tmp_path / "two"), "--json"])
    assert json.loads(result.stdout)["answers"] == 2


@pytest.mark.parametrize(
    "wrong", [{"lengths": [4, 3]}, {"lengths": [6]}, {"given": [5, 1]}, {"given": [0, 1]}]
)
def test_a_file_whose_columns_disagree_is_refused(tmp_path, wrong):
    with pytest.raises(LabkitError, match=r"answers\.npz"):
        convert_answers(npz(tmp_path / "answers.npz", **wrong), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 700), content=st.binary(min_size=1, max_size=8))
def test_a_damaged_file_of_answers_is_read_or_refused_in_one_sentence(tmp_path, place, content):
    path = npz(tmp_path / "answers.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[:place] + content + whole[place + len(content) :])
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        try:
            convert_answers(path, Path(folder) / "out")
        except LabkitError as error:
            assert "\n" not in str(error)
