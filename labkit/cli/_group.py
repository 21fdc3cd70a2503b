"""A command group that finds its commands and prints one sentence for every mistake."""

import importlib
import io
import pkgutil
import sys
from collections.abc import Sequence
from typing import Any

import click

from labkit.errors import LabkitError


class CommandGroup(click.Group):
    """The commands in the modules of a package (see `commands_in`), or those added later."""

    def __init__(self, name: str, package: str = "", help: str | None = None) -> None:
        super().__init__(
            name,
            commands_in(package) if package else None,
            help=help,
            callback=_show_help,
            invoke_without_command=True,
            context_settings={"max_content_width": 100},
        )

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Return the command that the first argument names, or list the known ones."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            known = ", ".join(self.list_commands(ctx))
            raise click.UsageError(f"There is no command {name!r}: give one of {known}.", ctx)
        return super().resolve_command(ctx, args)

    def main(self, args: Sequence[str] | None = None, **settings: Any) -> Any:  # type: ignore[override]
        """Run a command; a mistake prints one sentence on standard error with exit status 2."""
        settings["standalone_mode"] = False
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # ASCII and cp1252 lack an Ł
        try:
            status = super().main(args, **settings)
        except (click.exceptions.Abort, KeyboardInterrupt):
            _stop("Interrupted.", 130)
        except Exception as error:
            sentence = as_sentence(error)
            if sentence is None:
                raise
            _stop(sentence, 2)
        sys.exit(status if isinstance(status, int) else 0)


def commands_in(package: str) -> dict[str, click.Command]:
    """Return the commands in the modules of a package, by name.

    A variable ``command`` is a module's only one, usually a group, and goes by the module's name.
    Modules whose names begin with an underscore are skipped.
    """
    found: dict[str, click.Command] = {}
    for info in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if not info.name.startswith("_"):
            names = vars(importlib.import_module(f"{package}.{info.name}"))
            names = {info.name: names["command"]} if "command" in names else names
            found |= {n: value for n, value in names.items() if isinstance(value, click.Command)}
    return found


@click.pass_context
def _show_help(context: click.Context) -> None:
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def as_sentence(error: Exception) -> str | None:
    """Return the sentence for an error of the input or the disk; None for an error of the code.

    >>> as_sentence(click.UsageError("No such option: --sead"))
    'No such option: --sead.'
    >>> as_sentence(OSError(28, "No space left on device", "out/log.json"))
    'out/log.json: No space left on device.'
    >>> as_sentence(ZeroDivisionError()) is None
    True
    """
    if isinstance(error, click.ClickException):
        text = error.format_message()
    elif isinstance(error, LabkitError):
        text = str(error)
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        return None
    text = " ".join(text.split())
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _stop(sentence: str, status: int) -> None:
    click.echo(f"labkit: {sentence}", err=True)
    sys.exit(status)
