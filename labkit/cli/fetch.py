"""``labkit fetch``: put the real model into the cache."""

import click

from labkit.cli._output import say


@click.command()
@click.argument("_name", metavar="[real]", type=click.Choice(["real"]), default="real")
def command(_name: str) -> None:
    """Fetch the real model into the cache; quick if it is there."""
    from labkit.models import fetch_real

    click.echo(fetch_real(say))
