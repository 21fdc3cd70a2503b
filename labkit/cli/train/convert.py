"""``labkit train convert``: answers in one ``.npz`` file, as shards to train on."""

from __future__ import annotations

from pathlib import Path

import click

from labkit.cli._options import EXISTING_FILE, FOLDER
from labkit.cli._output import Report, reports
from labkit.cli.train._shared import answers_made


@reports
@click.option(
    "--answers",
    required=True,
    type=EXISTING_FILE,
    help="A .npz file with tokens, lengths and given (prompt tokens of each answer).",
)
@click.option(
    "--out",
    required=True,
    type=FOLDER,
    help="Folder for the shards; give it to `labkit train all` as --answers.",
)
def command(*, answers: Path, out: Path) -> Report:
    """Convert answers in a .npz file into shards for phase 2."""
    from labkit.training.answers import convert_answers

    made = convert_answers(answers, out)
    return Report(made, answers_made(made))
