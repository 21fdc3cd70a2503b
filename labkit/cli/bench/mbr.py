"""``labkit bench mbr``: the same decisions by another MBR library."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from labkit.cli._options import EXISTING_FILE
from labkit.cli._output import Report, columns, reports
from labkit.cli.bench._drawing import drawing_options, drawn_cases, resamples_option


@reports
@click.option(
    "--peer",
    type=click.Choice(("mbrs", "mbr")),
    default="mbrs",
    help="The library to compare with.",
)
@click.option(
    "--peer-python",
    required=True,
    type=EXISTING_FILE,
    help="The Python of an environment where that library is installed.",
)
@drawing_options()
@resamples_option  # accepted as by its sister commands; nothing here is resampled
def command(*, peer: str, peer_python: Path, resamples: int, **drawing: Any) -> Report:
    """Decide the same samples here and by another library: decisions, expected scores, time.

    chrF, BLEU and TER exactly; with chrF also the decoders that both have.
    """
    from labkit.mbr.peers import compare_with_peer

    cases = []
    for case in drawn_cases(**drawing):
        texts = [one.text for one in case.samples for _ in range(one.count)]
        cases.append((texts, texts))
    rows = [asdict(row) for row in compare_with_peer(cases, peer, peer_python.absolute())]
    for row in rows:
        for name in ("seconds", "peer_seconds"):
            row[name] = None if row["missing"] else row[name]
    result = {"peer": peer, "cases": len(cases), "rows": rows}
    return Report(result, as_text(result))


def as_text(result: dict[str, Any]) -> str:
    """Return a row for each metric and decoder, with the reason where decisions may differ."""
    figures = ("same", "ties", "differ")
    rows = [
        row | dict.fromkeys(figures) | {"why": row["missing"][:60]}
        if row["missing"]
        else row | {"differ": row["cases"] - row["same"] - row["ties"], "why": row["reason"]}
        for row in result["rows"]
    ]
    shown = columns(
        rows,
        ("metric", "{metric}"),
        ("decoder", "{decoder}"),
        *((name, f"{{{name}}}") for name in figures),
        ("scores apart", "{apart:.1e}"),
        ("s here", "{seconds:.2f}"),
        (f"s {result['peer']}", "{peer_seconds:.2f}"),
        ("why they may differ", "{why}"),
    )
    return (
        f"{shown}\n\n{result['cases']:,} sources. Duplicates are listed as often as drawn in "
        "both, so they count that often; scores are on 0 to 100, and the first of equal scores is "
        "taken."
    )
