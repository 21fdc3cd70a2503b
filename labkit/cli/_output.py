"""Printing: one JSON object or a text on standard output, everything else on standard error."""

import contextlib
import functools
import json
import string
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import click
from click.core import ParameterSource

from labkit.errors import LabkitError


def say(message: str) -> None:
    """Print a progress message on standard error."""
    click.echo(message, err=True)


def given_command() -> str:
    """Return the command that is running, with the options that were given; not ``--json``."""
    from labkit.provenance import command_line

    context = click.get_current_context()
    options = {str(option.name): option for option in context.command.params}
    given = {
        options[name].opts[0].removeprefix("--"): list(value) if options[name].multiple else value
        for name, value in context.params.items()  # in the order in which they were given
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE and name != "as_json"
    }
    root = context.find_root()  # called "python -m labkit.cli" where it was run so
    path = context.command_path.removeprefix(str(root.info_name))
    return command_line(f"{root.command.name}{path}", **given)


class Report(NamedTuple):
    """A command's result as a JSON object, and as text for a person; its exit status.

    A ``problem`` is raised after the result was printed.
    """

    result: dict[str, Any]
    text: str
    status: int = 0
    problem: str = ""


def reports(function: Callable[..., Report | None]) -> click.Command:
    """Make a command that prints what a function returns; None prints nothing.

    The command takes ``--json``, which prints the result in place of the text as one JSON object
    without NaN and infinity, and its help shows every default. Only the report goes to standard
    output.
    """

    @functools.wraps(function)
    def run(*, as_json: bool, **given: Any) -> int:
        with contextlib.redirect_stdout(sys.stderr):  # for all that libraries print
            report = function(**given)
        if report is None:
            return 0
        text = json.dumps(report.result, allow_nan=False) if as_json else report.text
        click.echo(text, file=sys.stdout)  # by default click would not keep to its encoding
        if report.problem:
            raise LabkitError(report.problem)
        return report.status

    command = click.command(context_settings={"show_default": True})(run)
    told = "Print exactly one JSON object on standard output."
    command.params.append(click.Option(["--json", "as_json"], is_flag=True, help=told))
    return command


class _Blanks(string.Formatter):
    """A formatter that leaves a value of None blank."""

    def format_field(self, value: Any, format_spec: str) -> str:
        return "" if value is None else super().format_field(value, format_spec)


def columns(rows: Iterable[Any], *shown: tuple[str, str]) -> str:
    """Return a table of rows (dictionaries or objects): each column's header and its format.

    >>> print(columns([{"name": "vanilla", "speed": 31.4}], ("method", "{name}"),
    ...               ("tokens/s", "{speed:.0f}")))
    method   tokens/s
    vanilla  31
    """
    fields = [row if isinstance(row, Mapping) else vars(row) for row in rows]
    cells = [[_Blanks().vformat(form, (), row) for _, form in shown] for row in fields]
    return table([header for header, _ in shown], cells)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows of text under a header, in columns of the least width."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    lines = (header, *rows)
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
