"""``labkit bench gpu``: everything that a GPU is measured for, in one record."""

from __future__ import annotations

import json
from pathlib import Path

import click

from labkit.cli._options import FILE, device_option
from labkit.cli._output import Report, given_command, reports, say, table


@reports
@click.option("--out", required=True, type=FILE, help="Save the record in this file.")
@click.option("--quick", is_flag=True, help="A small form on the tiny model, for any machine.")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0),
    default=6,
    help="Start no further part after so long.",
)
@device_option
def command(*, out: Path, quick: bool, minutes: float, device: str | None) -> Report:
    """Measure vanilla, drafts, sampling, answers, training, translation and serving on a GPU."""
    from labkit.errors import LabkitError
    from labkit.gpu import as_rows, bench_gpu
    from labkit.records.base import write_whole

    if not out.absolute().parent.is_dir():
        raise LabkitError(f"There is no folder {out.parent}: make it, or give another --out.")
    record = bench_gpu(device, quick, minutes, say, given_command())
    write_whole(out, json.dumps(record, indent=2, allow_nan=False) + "\n")
    header = ("part", "figure", "value", "wanted of a card")
    return Report(record, table(header, as_rows(record)))
