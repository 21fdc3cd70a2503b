"""``labkit gallery``: the Playground and every widget as a static site."""

from __future__ import annotations

from pathlib import Path

import click

from labkit.cli._output import json_option, only_results_on_stdout


@click.command()
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the site; open its index.html.",
)
@click.option(
    "--pictures",
    type=click.Path(file_okay=False, path_type=Path),
    help="Photograph each widget into this folder as well; needs a Chromium.",
)
@json_option
def command(*, out: Path, pictures: Path | None, as_json: bool) -> None:
    """Write the Playground and the six widgets as pages that work from a plain folder."""
    with only_results_on_stdout() as show:
        from labkit.gallery import build, take_pictures

        paths = build(out)
        if pictures:
            take_pictures(out, pictures)
        size = sum(path.stat().st_size for path in paths)
        result = {"files": [path.relative_to(out).as_posix() for path in paths], "bytes": size}
        show(
            result if as_json else f"{len(paths)} pages, {size / 1e6:.1f} MB: {out / 'index.html'}"
        )
