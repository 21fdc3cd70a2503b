"""``labkit calibrate``: the cost of checking n tokens on this machine."""

from __future__ import annotations

from typing import Any

import click

from labkit.cli._options import COUNT, base_option, device_option, storage_option
from labkit.cli._output import Report, reports, say


@reports
@base_option()
@click.option("--repeats", type=COUNT, default=15, help="Runs of each pass.")
@storage_option
@click.option("--parts", is_flag=True, help="Also print the time of each part of a pass.")
@device_option
def command(*, base: str, repeats: int, storage: str, parts: bool, device: str | None) -> Report:
    """Time passes over 1 to 32 tokens and a read of memory; keep the tree that pays best."""
    from labkit.errors import LabkitError
    from labkit.models import load
    from labkit.speculative import calibrate
    from labkit.speculative.decoder import Decoder

    decoder = Decoder(load(base, device), storage=storage)
    try:
        heads = decoder.heads
    except LabkitError as error:
        say(f"Without heads: {error}")
        heads = None
    measured = calibrate.calibrate(decoder.base, decoder.engine, heads, repeats)
    calibrate.keep(measured)
    timed = measured
    if parts or hasattr(decoder.engine, "parts"):
        found = calibrate.time_parts(decoder.engine, repeats)
        timed = measured.model_copy(update={"parts": found})
    more: dict[str, Any] = {"contended": measured.contended, "nodes": measured.nodes}
    unlike = None
    if storage != "float32":
        unlike = calibrate.unlike_float32(decoder.base, decoder.engine)
        more["difference"] = unlike.model_dump()
    result = timed.model_dump(mode="json") | more
    return Report(result, calibrate.summary(timed if parts else measured, unlike))
