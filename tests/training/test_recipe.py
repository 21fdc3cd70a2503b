"""A recipe says all there is to say, and a wrong one says what is wrong with it."""

from __future__ import annotations

from typing import get_args

import pytest

from labkit.errors import LabkitError
from labkit.paths import data_dir
from labkit.training.ablations import Study
from labkit.training.recipe import Recipe, Source
from labkit.training.text import SOURCES
from labkit.training.tiny import TinyRecipe
from labkit.training.translator import TranslatorRecipe

RECIPES = sorted(path.name for path in (data_dir() / "recipes").glob("*.toml"))
WRONG = {
    "inner_width = 256": ("inner_width = -3", r"heads\.inner_width.*given: -3"),
    "rows = 4": ("row = 4", r"phase1\.row"),
    'labels = "soft"': ('labels = "warm"', r"loss\.labels.*'warm'"),
    "steps = 100": ("steps = 0", r"phase1\.steps"),
    'sources = ["sotu", "chat"]\nrows': ('sources = ["bible"]\nrows', r"phase1\.sources"),
    "[generation]": ("[generatoin]", "generat"),
    "clip = 1.0": ("clip = ", "not valid TOML"),
}


def test_all_recipes_of_the_project_can_be_read():
    assert {
        "tiny.toml",
        "tiny-base.toml",
        "translator.toml",
        "real.toml",
        "published-7b.toml",
    } <= set(RECIPES)
    for name in RECIPES:
        kinds = {
            "tiny-base.toml": TinyRecipe,
            "translator.toml": TranslatorRecipe,
            "ablations-tiny.toml": Study,
            "ablations-real.toml": Study,
            "scaling-tiny.toml": Study,
        }
        kinds.get(name, Recipe).load(data_dir() / "recipes" / name)


@pytest.mark.parametrize("right", WRONG)
def test_a_mistake_is_one_sentence_that_names_its_place(tmp_path, right):
    text = (data_dir() / "recipes" / "tiny.toml").read_text(encoding="utf-8")
    assert right in text
    wrong, expected = WRONG[right]
    path = tmp_path / "recipe.toml"
    path.write_text(text.replace(right, wrong, 1), encoding="utf-8")
    with pytest.raises(LabkitError, match=expected) as caught:
        Recipe.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("heads", "expected"),
    [
        ("layers = [24, 12]", "must rise"),
        ("layers = [0]", "counted from 1"),
        ('kind = "eagle"\ncontext = true', "needs no context"),
        ("from_base = true", "only an eagle"),
        ("tied = true\nhierarchical = false", "all predict the same"),
    ],
)
def test_shapes_of_heads_that_cannot_be_are_refused(tmp_path, heads, expected):
    text = (data_dir() / "recipes" / "tiny.toml").read_text(encoding="utf-8")
    path = tmp_path / "recipe.toml"
    path.write_text(text.replace("count = 3", f"count = 3\n{heads}", 1), encoding="utf-8")
    with pytest.raises(LabkitError, match=expected) as caught:
        Recipe.load(path)
    assert "\n" not in str(caught.value)


def test_phase_two_needs_text_to_train_on(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(
        'name = "x"\nbase = "tiny"\n[heads]\ninner_width = 8\n'
        "[phase2]\nrows = 1\nwindow = 4\nsteps = 1\nlearning_rate = 1e-3\n",
        encoding="utf-8",
    )
    with pytest.raises(LabkitError, match=r"\[phase2\] needs a \[generation\]"):
        Recipe.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(LabkitError, match=r"Cannot read .*none\.toml"):
        Recipe.load(tmp_path / "none.toml")


def test_every_field_says_what_it_means():
    def fields(model):
        for name, field in model.model_fields.items():
            inner = [field.annotation, *getattr(field.annotation, "__args__", ())]
            parts = [part for part in inner if hasattr(part, "model_fields")]
            yield from (pair for part in parts for pair in fields(part))
            if not parts:
                yield f"{model.__name__}.{name}", field.description

    undocumented = [name for name, text in fields(Recipe) if not text]
    assert undocumented == []


def test_a_recipe_may_name_every_text_that_there_is():
    assert get_args(Source) == tuple(SOURCES)
