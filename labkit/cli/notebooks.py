"""``labkit notebooks``: run the course without a browser, and list errors and warnings."""

from __future__ import annotations

from pathlib import Path

import click

from labkit.cli._options import base_option
from labkit.cli._output import json_option, only_results_on_stdout, table

AMISS = 1
"""The exit status if a notebook ran, but showed an error or a warning."""


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@base_option()
@json_option
def command(*, paths: tuple[Path, ...], base: str, as_json: bool) -> int:
    """Run the notebooks in PATHS, or the whole course, in order; none is changed."""
    with only_results_on_stdout() as show:
        from labkit.course.run import course, run

        runs = []
        for path in paths or course():
            click.echo(f"{path.name} ...", err=True)
            runs.append(run(path, base))
        if as_json:
            show(
                {
                    "base": base,
                    "notebooks": [
                        {
                            "name": done.path.name,
                            "seconds": round(done.seconds, 1),
                            "complaints": list(done.complaints),
                        }
                        for done in runs
                    ],
                }
            )
        else:
            rows = [
                (done.path.name, f"{done.seconds:.0f} s", "; ".join(done.complaints) or "clean")
                for done in runs
            ]
            show(table(("notebook", "time", "shown amiss"), rows))
        return AMISS if any(done.complaints for done in runs) else 0
