"""``labkit bench translation``: greedy, beam, one sample, MBR and the oracle on a test set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from labkit.cli._options import COUNT, FOLDER
from labkit.cli._output import Report, columns, reports
from labkit.cli.bench._drawing import drawing_options, prepared


@reports
@drawing_options("model", 0.02, pairs_required=True)
@click.option("--at-once", type=COUNT, default=32, help="Sources in memory.")
@click.option(
    "--journal",
    type=FOLDER,
    help="Folder that keeps what is done, so that a run that was stopped goes on.",
)
def command(
    *, base: str, utility: str, weighting: Any, journal: Path | None, **drawing: Any
) -> Report | None:
    """Translate a test set by every system, and score them: quality and time."""
    from accelerate import PartialState
    from tqdm import tqdm

    from labkit.mbr.translation import Plan, scored, translate

    model, pairs, how = prepared(base=base, utility=utility, **drawing)
    plan = Plan(base=base, utility=utility, weighting=weighting, drawing=how)
    several = PartialState()
    share = several.process_index, several.num_processes
    with tqdm(unit=" sources", disable=None) as bar:
        result = scored(translate(model, pairs, plan, journal, share, bar.update))
    if not several.is_main_process:
        return None
    scores = columns(
        [{"system": name, **of} for name, of in result["systems"].items()],
        ("system", "{system}"),
        ("BLEU", "{bleu:.1f}"),
        ("chrF", "{chrf:.1f}"),
        ("seconds", "{seconds:.1f}"),
    )
    signatures = "\n".join(result["signature"].values())
    return Report(result, f"{scores}\n\n{result['segments']:,} segments\n{signatures}")
