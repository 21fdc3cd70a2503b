"""``labkit calibrate``: the cost of checking n tokens on this machine."""

from __future__ import annotations

from typing import Any

import click

from labkit.cli._options import COUNT, base_option, device_option
from labkit.cli._output import json_option, only_results_on_stdout, say


@click.command()
@base_option()
@click.option("--repeats", type=COUNT, default=15, show_default=True, help="Runs of each pass.")
@click.option(
    "--storage",
    default="float32",
    show_default=True,
    help="How the fast path on a CPU stores weights: float32, bfloat16, q4_1, q4_1_int8.",
)
@click.option("--parts", is_flag=True, help="Also time each part of a pass.")
@device_option
@json_option
def command(
    *, base: str, repeats: int, storage: str, parts: bool, device: str | None, as_json: bool
) -> None:
    """Time passes over 1 to 32 tokens and a read of memory; keep the tree that pays best."""
    with only_results_on_stdout() as show:
        from labkit.errors import LabkitError
        from labkit.models import load
        from labkit.speculative.calibrate import (
            calibrate,
            keep,
            summary,
            time_parts,
            unlike_float32,
        )
        from labkit.speculative.decoder import Decoder

        decoder = Decoder(load(base, device), storage=storage)
        try:
            heads = decoder.heads
        except LabkitError as error:
            say(f"Without heads: {error}")
            heads = None
        measured = calibrate(decoder.base, decoder.engine, heads, repeats)
        keep(measured)
        if parts:
            found = time_parts(decoder.engine, repeats)
            measured = measured.model_copy(update={"parts": found})
        unlike = unlike_float32(decoder.base, decoder.engine) if storage != "float32" else None
        more: dict[str, Any] = {"contended": measured.contended, "nodes": measured.nodes}
        if unlike:
            more["difference"] = unlike.model_dump()
        result = measured.model_dump(mode="json") | more
        show(result if as_json else summary(measured, unlike))
