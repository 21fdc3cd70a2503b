"""``labkit train convert``: answers in one ``.npz`` file, as shards to train on."""

from __future__ import annotations

from pathlib import Path

import click

from labkit.cli._output import json_option, only_results_on_stdout


@click.command()
@click.option(
    "--answers",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A .npz file with tokens, lengths and given (prompt tokens of each answer).",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the shards; give it to `labkit train all` as --answers.",
)
@json_option
def command(*, answers: Path, out: Path, as_json: bool) -> None:
    """Convert answers in a .npz file into shards for phase 2."""
    with only_results_on_stdout() as show:
        from labkit.training.answers import convert_answers

        made = convert_answers(answers, out)
        text = f"{made['answers']:,} answers of {made['tokens']:,} tokens in {made['folder']}"
        show(made if as_json else text)
