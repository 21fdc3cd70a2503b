"""``labkit bench utilities``: a utility matrix, timed and checked against its peers."""

from __future__ import annotations

import click

from labkit.cli._options import COUNT, seed_option
from labkit.cli._output import Report, reports


@reports
@click.option("--utility", default="chrf", help="One that sacrebleu has: chrf, bleu.")
@click.option("--size", type=COUNT, default=1024, help="Rows and columns of the matrix.")
@seed_option
def command(*, utility: str, size: int, seed: int) -> Report:
    """Time a matrix of a utility, and check it against sacrebleu's."""
    from labkit.mbr.bench import bench_utility

    result = bench_utility(utility, size, seed)
    fastchrf = result["ratio_fastchrf"]
    lines = [
        f"{utility}, {size:,} x {size:,}: {result['seconds']:.3f} s",
        f"{result['ratio_sacrebleu']:,.0f} times as fast as sacrebleu (its time taken from "
        f"{result['pairs_sacrebleu']} pairs)",
        f"at most {result['max_abs_difference']:.1e} from sacrebleu's scores, of 100",
        *([f"{fastchrf:.1f} times as fast as fastchrf"] if fastchrf is not None else []),
        *([result["note"]] if "note" in result else []),
    ]
    return Report(result, "\n".join(lines))
