"""Whatever a recipe, a study, a log or a corpus holds: the right value, or one sentence."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labkit.errors import LabkitError
from labkit.paths import data_dir
from labkit.records import LossLog, RecordError
from labkit.training.ablations import Study
from labkit.training.recipe import Recipe
from labkit.training.tiny import TinyRecipe
from labkit.training.translator import TranslatorRecipe, read_corpus

RECIPES = {
    "tiny.toml": Recipe,
    "real.toml": Recipe,
    "ablations-tiny.toml": Study,
    "tiny-base.toml": TinyRecipe,
    "translator.toml": TranslatorRecipe,
}
VALUES = st.one_of(
    st.sampled_from(
        ["inf", "nan", "-1", "0", "1e999", "true", '""', "[]", "{}", "[[]]", "[" * 9999]
    ),
    st.sampled_from(["1979-05-27", '"\\u0000"', "99999999999999999999", '["sotu", 3]']),
    st.floats().map(str),
    st.text(max_size=6).map(json.dumps),
)
FUZZ = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def value_or_sentence(read, path):
    """The value that ``read`` gives, or None if it says in one sentence what is wrong."""
    try:
        return read(path)
    except (LabkitError, RecordError) as error:
        assert str(error)
        assert "\n" not in str(error)
        return None


@FUZZ
@given(data=st.data())
def test_a_changed_recipe_is_read_or_refused_in_one_sentence(tmp_path, data):
    name = data.draw(st.sampled_from(sorted(RECIPES)))
    lines = (data_dir() / "recipes" / name).read_text(encoding="utf-8").splitlines()
    places = [number for number, line in enumerate(lines) if "=" in line and line[0] != "#"]
    place = data.draw(st.sampled_from(places))
    lines[place] = f"{lines[place].partition('=')[0]} = {data.draw(VALUES)}"
    path = tmp_path / "recipe.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    read = value_or_sentence(RECIPES[name].load, path)
    if read is not None:
        assert RECIPES[name].model_validate_json(read.model_dump_json()) == read


@FUZZ
@given(content=st.binary(max_size=60), kind=st.sampled_from([*RECIPES.values()]))
def test_bytes_that_are_no_recipe_are_refused_in_one_sentence(tmp_path, content, kind):
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    assert value_or_sentence(kind.load, path) is None


@pytest.mark.parametrize("reader", [LossLog.follow, LossLog.load])
@FUZZ
@given(data=st.data())
def test_a_damaged_log_is_read_or_refused_in_one_sentence(tmp_path, reader, data):
    header = LossLog(name="a\u2028b", base="tiny", heads=1)
    point = {"phase": 1, "step": 1, "tokens": 4, "loss": [2.5], "lr": 0.1, "seconds": 1.0}
    look = {"phase": 1, "step": 1, "tokens": 4, "loss": [2.5], "accept": [0.5]}
    first = header.model_dump_json(exclude={"points", "validation"})
    whole = "\n".join([first, json.dumps(point), json.dumps(look), ""]).encode()
    if reader == LossLog.load:
        whole = header.to_json().encode()
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 12)))
    path = tmp_path / "losslog.jsonl"
    path.write_bytes(whole[:start] + data.draw(st.binary(max_size=6)) + whole[end:])
    value_or_sentence(reader, path)
    path.write_bytes(whole)
    assert reader(path).name == "a\u2028b"


@pytest.mark.parametrize("first", ["3", "[]", "null", '"text"', "[" * 100_000])
def test_a_log_whose_header_is_no_object_is_refused_in_one_sentence(tmp_path, first):
    path = tmp_path / "losslog.jsonl"
    path.write_text(f"{first}\n", encoding="utf-8")
    assert value_or_sentence(LossLog.follow, path) is None


@FUZZ
@given(content=st.one_of(st.binary(max_size=40), st.text(max_size=40).map(str.encode)))
def test_pairs_are_read_or_refused_in_one_sentence(tmp_path, content):
    for suffix in (".tsv", ".xz", ".gz"):
        path = tmp_path / f"pairs{suffix}"
        path.write_bytes(content)
        pairs = value_or_sentence(read_corpus, path)
        with contextlib.suppress(TypeError):
            assert all(source and target for source, target in pairs)
