"""Prompts of a benchmark: every accepted form, and every mistake in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import LabkitError
from labkit.questions import Question, read_questions
from labkit.reading import json_lines, read_text


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "prompts.jsonl"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_spec_bench_lines_are_accepted(tmp_path):
    line = {"question_id": 81, "category": "writing", "turns": ["One.", "Two."], "reference": []}
    found = read_questions(written(tmp_path, json.dumps(line)))
    assert found == [Question("81", "writing", ("One.", "Two."))]


def test_prompt_alone_is_named_by_its_line(tmp_path):
    found = read_questions(written(tmp_path, '\n{"prompt": "Why?"}\n'))
    assert found == [Question("2", "all", ("Why?",))]


def test_line_separators_inside_a_text_end_no_line(tmp_path):
    text = "a\u2028b\u2029c\x85d"
    line = json.dumps({"id": "a", "category": "x", "prompt": text}, ensure_ascii=False)
    (found,) = read_questions(written(tmp_path, line + "\r\n"))
    assert found.turns == (text,)


def test_byte_order_mark_is_passed_over(tmp_path):
    path = written(tmp_path, b'\xef\xbb\xbf{"id": "a", "category": "x", "prompt": "p"}')
    assert read_questions(path)[0].id == "a"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no prompt"),
        ("{", "line 1: not JSON"),
        ("[1]", "JSON object"),
        ('{"id": "a"}', "either 'prompt' or 'turns'"),
        ('{"prompt": "p", "turns": ["q"]}', "either"),
        ('{"turns": []}', "at least one"),
        ('{"turns": "text"}', "list"),
        ('{"turns": ["a", 3]}', "must be text"),
        ('{"prompt": " "}', "not empty"),
        ('{"prompt": null}', "must be text"),
        ('{"id": true, "prompt": "p"}', "'id'"),
        ('{"id": 1.5, "prompt": "p"}', "'id'"),
        ('{"category": 3, "prompt": "p"}', "'category'"),
        ('{"prompt": "\\ud83d"}', "line 1: half"),
        ('{"id": "a", "prompt": "p"}\n' * 2, "line 2: there are two prompts 'a'"),
        (b'{"prompt": "\xff"}', "not UTF-8"),
    ],
)
def test_wrong_prompts_are_named_in_one_sentence(tmp_path, text, says):
    with pytest.raises(LabkitError, match=says):
        read_questions(written(tmp_path, text))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(LabkitError, match="Cannot read"):
        read_questions(tmp_path / "none.jsonl")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(["id", "question_id", "category", "prompt", "turns", "more"])


@given(st.lists(st.dictionaries(keys, values, max_size=4).map(json.dumps) | st.text(), max_size=4))
def test_any_lines_are_prompts_or_one_error(tmp_path_factory, lines):
    path = written(tmp_path_factory.mktemp("lines"), "\n".join(lines).encode("utf-8", "replace"))
    try:
        found = read_questions(path)
    except LabkitError as error:
        assert str(error).count("\n") == 0
    else:
        assert all(turn.strip() for question in found for turn in question.turns)


@given(st.binary(max_size=60))
def test_any_bytes_are_lines_or_one_error(tmp_path_factory, content):
    path = written(tmp_path_factory.mktemp("bytes"), content)
    try:
        text = read_text(path)
        values = list(json_lines(path))
    except LabkitError:
        return
    assert len(values) <= text.count("\n") + 1
