"""Build the site from a checkout: ``python -m docs.build --out build/site``; no network is used."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from sphinx.cmd.build import build_main

from docs import slides, stage
from docs.executed import options, outputs
from labkit.errors import LabkitError
from labkit.gallery import PLAYGROUND, playground
from labkit.records import write_whole


@click.command()
@click.option(
    "--out",
    default=stage.ROOT / "build" / "site",
    show_default="build/site",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the site; open its index.html.",
)
@options
def main(out: Path, execute: bool, base: str) -> None:
    """Build the site: the course, the gallery, the API and the teacher's page."""
    work = out.with_name(out.name + "-work")
    try:
        executed = outputs(base) if execute else {}
        stage.write(work / "pages", stage.pages(executed))
    except LabkitError as error:
        raise click.ClickException(str(error)) from None
    where = ["-c", str(stage.ROOT / "docs"), "-d", str(work / "trees")]
    strict = ["--fail-on-warning", "--keep-going", "--quiet", "--builder", "html"]
    status = build_main([*strict, *where, str(work / "pages"), str(out)])
    if status:
        sys.exit(status)
    write_whole(out / "gallery" / PLAYGROUND, playground())
    slides.write(out / "slides", executed)
    click.echo(f"{sum(1 for _ in out.rglob('*.html'))} pages: {out / 'index.html'}")


if __name__ == "__main__":
    main()
