"""Ablations: every training differs in what its variant says, and all are judged alike."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from labkit.cli import main
from labkit.errors import LabkitError
from labkit.paths import data_dir
from labkit.records import AblationStudy, RecordError
from labkit.training import ablations
from labkit.training.ablations import RESULT, ablate, as_toml
from labkit.training.recipe import Recipe
from tests.training.conftest import count_up

STUDY = """
name = "small"
recipe = "recipe.toml"
seeds = [3, 4]
materials = ["text", "tasks"]

[always]
phase1.steps = 3
phase2.steps = 6

[[variant]]
question = "Which text?"
name = "own text only"
changes = { phase1 = false, phase2.steps = 9 }

[[variant]]
question = "How many heads?"
name = "one head"
changes = { heads.count = 1 }
"""


@pytest.fixture
def study(small_world, make_recipe):
    """A study of two baselines and two variants, each trained in a moment."""
    make_recipe()
    path = small_world / "study.toml"
    path.write_text(STUDY, encoding="utf-8")
    return path


def counted_writer():
    """`count_up` and the list of how many prompts each call of it had."""
    calls: list[int] = []

    def write(prompts, manner, seed):
        calls.append(len(prompts))
        return count_up(prompts, manner, seed)

    return write, calls


def test_each_variant_differs_in_what_it_says_and_in_nothing_else(study, tmp_path):
    done = ablate(study, tmp_path / "out", write=count_up)
    assert [(row.name, row.seed) for row in done.rows] == [
        ("baseline", 3),
        ("baseline", 4),
        ("own text only", 3),
        ("one head", 3),
    ]
    assert [row.steps for row in done.rows] == [9, 9, 9, 9]
    assert [len(row.scores[0].loss) for row in done.rows] == [2, 2, 2, 1]
    assert [row.changes for row in done.baselines] == [{}, {}]
    recipes = {path.parent.name: Recipe.load(path) for path in tmp_path.glob("out/*/recipe.toml")}
    baseline = recipes["baseline-3"]
    own = recipes["own-text-only-3"]
    assert baseline.phase1 is not None and baseline.phase1.steps == 3
    assert own.phase1 is None
    assert own.model_copy(update={"phase1": baseline.phase1, "phase2": baseline.phase2}) == baseline
    one = recipes["one-head-3"]
    assert one.model_copy(update={"heads": baseline.heads}) == baseline
    assert recipes["baseline-4"].model_copy(update={"seed": 3}) == baseline


def test_all_are_judged_on_the_same_prompts_of_each_kind(study, tmp_path, monkeypatch):
    asked = []

    class Watched(ablations.Materials):
        def held_out(self):
            heads = self.recipe.heads.count
            asked.append((self.recipe.generation.kinds, self.recipe.seed, heads))
            return super().held_out()

    monkeypatch.setattr(ablations, "Materials", Watched)
    done = ablate(study, tmp_path / "out", write=count_up)
    # Once for each kind and number of heads, whatever a variant was trained on; the seed is one.
    assert asked == [(("text",), 3, 2), (("tasks",), 3, 2), (("text",), 3, 1), (("tasks",), 3, 1)]
    assert all([s.material for s in row.scores] == ["text", "tasks"] for row in done.rows)


def test_variants_that_generate_alike_share_their_answers(study, tmp_path):
    write, calls = counted_writer()
    ablate(study, tmp_path / "out", write=write)
    # Answers to train on and held-out ones for each of two seeds, and held-out tasks.
    assert len(calls) == 5


def test_stopped_and_begun_again_it_ends_alike(study, tmp_path):
    whole = ablate(study, tmp_path / "whole", write=count_up)

    def stop(row):
        if row.seed == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ablate(study, tmp_path / "out", write=count_up, progress=stop)
    assert not (tmp_path / "out" / RESULT).exists()
    again = ablate(study, tmp_path / "out", write=count_up)
    assert again.rows == whole.rows
    assert AblationStudy.load(tmp_path / "out" / RESULT) == again


def test_the_spread_is_that_of_the_baseline_over_its_seeds(study, tmp_path):
    done = ablate(study, tmp_path / "out", write=count_up)
    found = [row.score("text").tokens_per_step for row in done.rows[:2]]
    assert done.spread("text") == (min(found), max(found))
    with pytest.raises(RecordError, match="no score on 'own' prompts; there are text, tasks"):
        done.rows[0].score("own")
    with pytest.raises(RecordError, match="at least one baseline"):
        AblationStudy.from_json(done.model_copy(update={"rows": done.rows[2:]}).to_json())


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("heads.count = 1", "heads.count = 99", "no recipe of 'one head': heads.count"),
        ("heads.count = 1", "heads.colour = 1", "no recipe of 'one head': heads.colour"),
        ("phase1 = false, phase2.steps = 9", "phase1 = false, phase2 = false", "give a"),
        ('name = "one head"', 'name = "own text only"', "two variants named 'own text only'"),
        ("changes = { heads.count = 1 }", "", "variant.1.changes"),
        ('recipe = "recipe.toml"', 'recipe = "nowhere.toml"', "nowhere.toml"),
        ('materials = ["text", "tasks"]', "materials = []", "materials"),
    ],
)
def test_what_cannot_be_trained_is_said_before_anything_is(study, tmp_path, before, after, said):
    study.write_text(STUDY.replace(before, after), encoding="utf-8")
    write, calls = counted_writer()
    with pytest.raises(LabkitError, match=said):
        ablate(study, tmp_path / "out", write=write)
    assert calls == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["tiny", "tiny-medusa", "real", "published-7b"])
def test_a_recipe_written_out_reads_back_the_same(name, tmp_path):
    recipe = Recipe.load(data_dir() / "recipes" / f"{name}.toml")
    path = tmp_path / "again.toml"
    path.write_text(as_toml(recipe), encoding="utf-8")
    assert Recipe.load(path) == recipe


def test_the_command_prints_a_row_for_each_training(study, tmp_path, monkeypatch):
    monkeypatch.setattr(ablations, "writer", lambda base, layers: count_up)
    words = ["train", "ablate", "--recipe", str(study), "--out", str(tmp_path / "out")]
    said = json.loads(CliRunner().invoke(main, [*words, "--json"]).stdout)
    assert [row["name"] for row in said["rows"]][2:] == ["own text only", "one head"]
    shown = CliRunner().invoke(main, words).stdout
    lines = shown.splitlines()
    assert lines[0].split()[:4] == ["training", "seed", "steps", "positions"]
    assert len(lines) == 1 + 4 + 2
    assert "The baseline alone, with 2 seeds" in lines[-1]
