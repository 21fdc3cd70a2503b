"""``labkit train ablate``: one training, varied in one choice at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from labkit.cli._options import FILE, FOLDER
from labkit.cli._output import Report, reports, say, table

if TYPE_CHECKING:
    from labkit.records import AblationRow, AblationStudy


@reports
@click.option(
    "--recipe",
    required=True,
    type=FILE,
    help="A TOML file of a study, such as data/recipes/ablations-tiny.toml.",
)
@click.option(
    "--out",
    required=True,
    type=FOLDER,
    help="Folder for all the trainings; a study begun there goes on.",
)
def command(*, recipe: Path, out: Path) -> Report:
    """Train a baseline and its variants, and judge all on the same answers."""
    from labkit.training.ablations import ablate

    done = ablate(recipe, out, progress=lambda row: say(_line(row)))
    return Report(done.model_dump(mode="json"), as_text(done))


def _line(row: AblationRow) -> str:
    steps = ", ".join(f"{score.material} {score.tokens_per_step:.2f}" for score in row.scores)
    return f"{row.name} (seed {row.seed}): tokens per step {steps}"


def as_text(study: AblationStudy) -> str:
    """The study for a person: a row for each training, and how far chance alone reaches."""
    materials = [score.material for score in study.baselines[0].scores]
    rows = [
        (
            row.name,
            str(row.seed),
            f"{row.steps:,}",
            f"{row.tokens:,}",
            *(f"{row.score(kind).tokens_per_step:.3f}" for kind in materials),
            " ".join(f"{loss:.2f}" for loss in row.score(materials[0]).loss),
            " ".join(f"{share:.0%}" for share in row.score(materials[0]).accept),
        )
        for row in study.rows
    ]
    header = (
        "training",
        "seed",
        "steps",
        "positions",
        *(f"tokens/step, {kind}" for kind in materials),
        f"loss, {materials[0]}",
        f"accepted, {materials[0]}",
    )
    low, high = study.spread(materials[0])
    return (
        f"{table(header, rows)}\n\nThe baseline alone, with {len(study.baselines)} seeds, goes "
        f"from {low:.3f} to {high:.3f} tokens per step on {materials[0]} prompts."
    )
