"""``labkit gallery``: the Playground and every widget as a static site."""

from __future__ import annotations

from pathlib import Path

import click

from labkit.cli._options import FOLDER
from labkit.cli._output import Report, reports


@reports
@click.option("--out", required=True, type=FOLDER, help="Folder for the site; open its index.html.")
@click.option(
    "--pictures",
    type=FOLDER,
    help="Photograph each widget into this folder as well; needs a Chromium.",
)
def command(*, out: Path, pictures: Path | None) -> Report:
    """Write the Playground and the six widgets as pages that work from a plain folder."""
    from labkit.gallery import build, take_pictures

    paths = build(out)
    if pictures:
        take_pictures(out, pictures)
    size = sum(path.stat().st_size for path in paths)
    files = [path.relative_to(out).as_posix() for path in paths]
    text = f"{len(paths)} pages, {size / 1e6:.1f} MB: {out / 'index.html'}"
    return Report({"files": files, "bytes": size}, text)
