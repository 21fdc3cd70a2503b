"""Printing: one JSON object or a text on standard output, everything else on standard error."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print exactly one JSON object on standard output."
)
"""The option that every command has."""


def print_whatever_the_terminal_holds() -> None:
    """Let printing replace what the terminal's encoding lacks, as ASCII and cp1252 lack an Ł."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def say(message: str) -> None:
    """Print a progress message on standard error."""
    click.echo(message, err=True)


@contextlib.contextmanager
def only_results_on_stdout() -> Iterator[Callable[[dict[str, Any] | str], None]]:
    """Send everything that libraries print to standard error; yield the printer of the result.

    A dictionary is printed as one JSON object without NaN and infinity.
    """
    stdout = sys.stdout

    def show(result: dict[str, Any] | str) -> None:
        text = result if isinstance(result, str) else json.dumps(result, allow_nan=False)
        click.echo(text, file=stdout)

    with contextlib.redirect_stdout(sys.stderr):
        yield show


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows of text under a header, in columns of the least width.

    >>> print(table(("method", "tokens/s"), [("vanilla", "31"), ("mlp", "52")]))
    method   tokens/s
    vanilla  31
    mlp      52
    """
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    lines = (header, *rows)
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
