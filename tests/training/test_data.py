"""Answers are made once, kept whole, never twice, and never on evaluation prompts."""

from __future__ import annotations

import pytest
import torch

from labkit.errors import LabkitError
from labkit.records.base import RecordError
from labkit.training import data
from labkit.training.data import (
    Writing,
    Written,
    make_shards,
    overlapping,
    read_answers,
    text_prompts,
    text_windows,
)

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


def test_interrupted_generation_goes_on_with_the_first_missing_shard(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        make_shards(tmp_path, PROMPTS, Writer(fail_at=2), MANNER, shard_rows=3)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    again = Writer()
    answers = make_shards(tmp_path, PROMPTS, again, MANNER, shard_rows=3)
    assert again.calls == 2
    rows = [answers.sequences.row(row).tolist() for row in range(len(answers.sequences))]
    assert rows == [[*prompt, *[sum(prompt)] * 4] for prompt in PROMPTS]


def test_equal_answers_count_once_and_empty_ones_not_at_all(tmp_path):
    def write(prompts, manner, seed):
        del manner, seed
        return Written([[7, 7] if prompt[0] else [] for prompt in prompts])

    answers = make_shards(tmp_path, [[1, 2], [0, 1], [1, 2], [3]], write, MANNER, shard_rows=2)
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
    written = data.write_whole

    def full(path, content):
        if path.name == "shard-00001.safetensors":
            raise RecordError(f"Cannot write {path}: No space left on device.")
        return written(path, content)

    monkeypatch.setattr(data, "write_whole", full)
    with pytest.raises(LabkitError, match="No space left on device"):
        make_shards(tmp_path, PROMPTS, Writer(), MANNER, shard_rows=4)
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
