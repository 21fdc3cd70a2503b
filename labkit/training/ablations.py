"""An ablation study: one training, varied in one thing at a time.

A study is a TOML file. It names a recipe, the changes that all trainings share (to make them
short), the seeds of the baseline, and variants with a few changes more. All are evaluated on the
same held-out answers of the base model. Answers to train on are cached (see
`labkit.training.answers.made_answers`), so variants that generate alike share them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from labkit.errors import LabkitError, first_problem
from labkit.models import load
from labkit.models.store import locked
from labkit.provenance import command_line, provenance
from labkit.records import AblationRow, AblationStudy, HeldOutScore, write_whole
from labkit.speculative.checkpoint import load_heads
from labkit.training.answers import Continue, writer
from labkit.training.heads import embedding_table
from labkit.training.losses import HeldOut, validate_heads
from labkit.training.recipe import Count, Frozen, Recipe
from labkit.training.train import Materials, train_all

RESULT = "ablations.json"
BASELINE = "baseline"

Changes = dict[str, Any]
"""Parts of a recipe, nested as its tables are; ``false`` in place of a table leaves it out."""


Training = tuple[str, str, Recipe, Changes]
"""Question, name, recipe and changes of one training."""


class Variant(Frozen):
    """One training that is compared with the baseline."""

    question: str
    """The choice that it is about; variants of one question are shown together."""
    name: Annotated[str, Field(min_length=1)]
    changes: Annotated[Changes, Field(min_length=1)]
    """Its changes to the baseline."""


class Study(Frozen):
    """Every setting that decides a study's figures."""

    name: str
    recipe: str
    """The recipe's file, in the study's folder."""
    seeds: Annotated[tuple[Count, ...], Field(min_length=1)] = (0,)
    """The baseline is trained once with each; variants with the first."""
    materials: Annotated[tuple[Literal["text", "tasks", "own"], ...], Field(min_length=1)] = (
        "text",
    )
    """Kinds of held-out prompts to evaluate on; see `labkit.training.recipe.Generation`."""
    always: Changes = Field(default_factory=dict)
    """Changes to the recipe in every training."""
    variant: tuple[Variant, ...] = ()


def ablate(
    study_path: str | Path,
    out_dir: str | Path,
    write: Continue | None = None,
    progress: Callable[[AblationRow], object] = lambda row: None,
) -> AblationStudy:
    """Train everything that a study lists, each in its own folder inside ``out_dir``.

    Started again after a kill, it continues where it was. ``write`` replaces the base model's own
    generator; ``progress`` is called with each row. The result is also saved in ``out_dir``, as
    ``ablations.json``. Raises `LabkitError` for invalid input, such as a change that gives no valid
    recipe, before anything is trained, and if another process is training in ``out_dir``.
    """
    study_path, out = Path(study_path), Path(out_dir)
    study = Study.load(study_path)
    trainings = _trainings(study, study_path)
    baseline = trainings[0][2]
    base = load(baseline.base, dtype="float32")
    write = write or writer(base, layers=baseline.heads.layers)

    @cache
    def held_out(kind: str, heads: int, layers: tuple[int, ...]) -> HeldOut:
        """Return held-out answers to prompts of a kind for ``heads`` heads that read ``layers``."""
        changes = {"generation": {"kinds": [kind]}, "heads": {"count": heads, "layers": layers}}
        asked = Recipe.model_validate(_merged(baseline.model_dump(), changes))
        return Materials(asked, base, write).held_out()

    rows = []
    with locked(out):
        for question, name, recipe, changes in trainings:
            folder = out / re.sub(r"[^a-z0-9]+", "-", f"{name} {recipe.seed}".lower()).strip("-")
            file = write_whole(folder / "recipe.toml", as_toml(recipe))
            done = train_all(file, folder, write=write)
            heads = load_heads(Path(done["heads"]), embedding_table(base))[0]
            shape = recipe.heads.count, recipe.heads.layers
            scores = [
                HeldOutScore(material=kind, **validate_heads(heads, held_out(kind, *shape)))
                for kind in study.materials
            ]
            row = AblationRow(
                question=question,
                name=name,
                changes=changes,
                seed=recipe.seed,
                steps=done["steps"],
                tokens=done["tokens"],
                scores=tuple(scores),
            )
            progress(row)
            rows.append(row)
        made = AblationStudy(
            name=study.name,
            base=baseline.base,
            recipe=baseline.model_dump(mode="json"),
            rows=tuple(rows),
            provenance=provenance(
                command_line("labkit train ablate", recipe=study_path, out=out),
                study.seeds[0],
                f"variants with one seed; the baseline with {len(study.seeds)}",
            ),
        )
        made.save(out / RESULT)
    return made


def as_toml(recipe: Recipe) -> str:
    """Return a recipe as the text of its file, which `Recipe.load` reads back.

    >>> recipe = Recipe.model_validate(
    ...     {"name": "a", "base": "tiny", "heads": {"inner_width": 8},
    ...      "phase1": {"sources": ["sotu"], "rows": 1, "window": 8, "steps": 2,
    ...                 "learning_rate": 0.001}})
    >>> as_toml(recipe).splitlines()[:3]
    ['name = "a"', 'base = "tiny"', 'seed = 0']
    """
    parts = recipe.model_dump(mode="json", exclude_none=True)
    tables = {key: part for key, part in parts.items() if isinstance(part, Mapping)}
    lines = [f"{key} = {json.dumps(part)}" for key, part in parts.items() if key not in tables]
    for key, value in tables.items():
        lines += ["", f"[{key}]", *(f"{name} = {json.dumps(of)}" for name, of in value.items())]
    return "\n".join(lines) + "\n"


def _trainings(study: Study, path: Path) -> list[Training]:
    """Return every training, the baseline's first."""
    whole = Recipe.load(path.parent / study.recipe).model_dump()
    common = _merged(_merged(whole, study.always), {"name": study.name})
    planned: list[tuple[str, str, int, Changes]]
    planned = [("", BASELINE, seed, {}) for seed in study.seeds]
    planned += [(one.question, one.name, study.seeds[0], one.changes) for one in study.variant]
    trainings: list[Training] = []
    for question, name, seed, changes in planned:
        if changes and name in {known for _, known, *_ in trainings}:
            raise LabkitError(f"The study {path} has two variants named {name!r}.")
        try:
            recipe = Recipe.model_validate(_merged({**common, "seed": seed}, changes))
        except ValidationError as error:
            problem = first_problem(error, "the whole")
            raise LabkitError(f"The study {path} makes no recipe of {name!r}: {problem}.") from None
        trainings.append((question, name, recipe, changes))
    return trainings


def _merged(whole: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``whole`` with ``changes`` in it, table by table.

    >>> _merged({"a": {"b": 1, "c": 2}, "d": {"e": 3}}, {"a": {"b": 4}, "d": False})
    {'a': {'b': 4, 'c': 2}, 'd': None}
    """
    merged = dict(whole)
    for key, value in changes.items():
        before = merged.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            merged[key] = _merged(before, value)
        else:
            merged[key] = None if value is False and isinstance(before, Mapping) else value
    return merged
