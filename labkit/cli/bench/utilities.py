"""``labkit bench utilities``: a utility matrix, timed and checked against its peers."""

from __future__ import annotations

from typing import Any

import click

from labkit.cli._options import COUNT, seed_option
from labkit.cli._output import json_option, only_results_on_stdout


@click.command()
@click.option(
    "--utility", default="chrf", show_default=True, help="One that sacrebleu has: chrf, bleu."
)
@click.option(
    "--size", type=COUNT, default=1024, show_default=True, help="Rows and columns of the matrix."
)
@seed_option
@json_option
def command(*, utility: str, size: int, seed: int, as_json: bool) -> None:
    """Time a matrix of a utility, and check it against sacrebleu's."""
    with only_results_on_stdout() as show:
        from labkit.mbr.bench import bench_utility

        result = bench_utility(utility, size, seed)
        show(result if as_json else as_text(result))


def as_text(result: dict[str, Any]) -> str:
    """The result for a person."""
    fastchrf = result["ratio_fastchrf"]
    lines = [
        f"{result['utility']}, {result['size']:,} x {result['size']:,}: {result['seconds']:.3f} s",
        f"{result['ratio_sacrebleu']:,.0f} times as fast as sacrebleu (its time taken from "
        f"{result['pairs_sacrebleu']} pairs)",
        f"at most {result['max_abs_difference']:.1e} from sacrebleu's scores, of 100",
    ]
    if fastchrf is not None:
        lines.append(f"{fastchrf:.1f} times as fast as fastchrf")
    if note := result.get("note"):
        lines.append(note)
    return "\n".join(lines)
