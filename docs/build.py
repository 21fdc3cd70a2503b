"""Build the site from a checkout: ``python -m docs.build --out build/site``; no network is used."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import click
import nbformat
from sphinx.cmd.build import build_main

from docs import stage
from labkit.course.run import course, run
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
@click.option(
    "--execute",
    is_flag=True,
    help="Show the notebooks with their outputs, folded; runs those that changed since last time.",
)
@click.option("--base", default="real", show_default=True, help="The model to run them on.")
def main(out: Path, execute: bool, base: str) -> None:
    """Build the site: the course, the gallery, the API and the teacher's page."""
    work = out.with_name(out.name + "-work")
    try:
        executed = outputs(work / "executed" / base, base) if execute else {}
        stage.write(work / "pages", stage.pages(executed))
    except LabkitError as error:
        raise click.ClickException(str(error)) from None
    where = ["-c", str(stage.ROOT / "docs"), "-d", str(work / "trees")]
    strict = ["--fail-on-warning", "--keep-going", "--quiet", "--builder", "html"]
    status = build_main([*strict, *where, str(work / "pages"), str(out)])
    if status:
        sys.exit(status)
    write_whole(out / "gallery" / PLAYGROUND, playground())
    click.echo(f"{sum(1 for _ in out.rglob('*.html'))} pages: {out / 'index.html'}")


def outputs(kept: Path, base: str) -> dict[str, Any]:
    """Each notebook of the course as it came out on ``base``, by its name.

    What has been run is kept in the folder ``kept`` under a hash of the notebook, so that only what
    changed is run again. Raises `LabkitError` where a notebook shows an error or a warning.
    """
    kept.mkdir(parents=True, exist_ok=True)
    found = {}
    for path in course():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        file = kept / f"{path.stem}-{digest}.ipynb"
        if not file.is_file():
            click.echo(f"{path.name} ...", err=True)
            done = run(path, base)
            if done.complaints:
                raise LabkitError(f"{path.name} on {base}: {done.complaints[0]}")
            nbformat.write(done.notebook, file)
        found[path.name] = nbformat.read(file, as_version=4)
    return found


if __name__ == "__main__":
    main()
