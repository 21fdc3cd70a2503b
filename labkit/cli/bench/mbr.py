"""``labkit bench mbr``: the same decisions by another MBR library."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from labkit.cli._output import json_option, only_results_on_stdout, table
from labkit.cli.bench._drawing import drawing_options, drawn_cases


@click.command()
@click.option(
    "--peer",
    type=click.Choice(("mbrs", "mbr")),
    default="mbrs",
    show_default=True,
    help="The library to compare with.",
)
@click.option(
    "--peer-python",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The Python of an environment where that library is installed.",
)
@drawing_options()
@json_option
def command(
    *, peer: str, peer_python: Path, utility: str, resamples: int, as_json: bool, **drawing: Any
) -> None:
    """Decide the same samples here and by another library: decisions, expected scores, time.

    chrF, BLEU and TER exactly; with chrF also the decoders that both have.
    """
    with only_results_on_stdout() as show:
        from labkit.mbr.peers import compare_with_peer

        cases = []
        for case in drawn_cases(utility=utility, **drawing):
            texts = [one.text for one in case.samples for _ in range(one.count)]
            cases.append((texts, texts))
        rows = [asdict(row) for row in compare_with_peer(cases, peer, peer_python.absolute())]
        for row in rows:
            for name in ("seconds", "peer_seconds"):
                row[name] = None if row["missing"] else row[name]
        result = {"peer": peer, "cases": len(cases), "rows": rows}
        show(result if as_json else as_text(result))


def as_text(result: dict[str, Any]) -> str:
    """A row for each metric and decoder, with the reason where decisions may differ."""
    rows = [
        (row["metric"], row["decoder"], *["–"] * 6, row["missing"][:60])
        if row["missing"]
        else (
            row["metric"],
            row["decoder"],
            str(row["same"]),
            str(row["ties"]),
            str(row["cases"] - row["same"] - row["ties"]),
            "–" if row["apart"] is None else f"{row['apart']:.1e}",
            f"{row['seconds']:.2f}",
            f"{row['peer_seconds']:.2f}",
            row["reason"],
        )
        for row in result["rows"]
    ]
    figures = ("same", "ties", "differ", "scores apart", "s here", f"s {result['peer']}")
    header = ("metric", "decoder", *figures, "why they may differ")
    return (
        f"{table(header, rows)}\n\n"
        f"{result['cases']:,} sources. Duplicates are listed as often as drawn in both, so they "
        "count that often; scores are on 0 to 100, and the first of equal scores is taken."
    )
