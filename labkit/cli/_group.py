"""A command group that finds its own modules and prints one sentence for every mistake."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Sequence
from typing import Any

import click

from labkit.cli._output import print_whatever_the_terminal_holds
from labkit.errors import LabkitError

MISTAKE = 2
"""Exit status for input that cannot be used."""


class CommandGroup(click.Group):
    """The modules of a package as commands, each in a variable ``command``, and added commands.

    Modules whose names begin with an underscore are skipped; a folder is a group of its own.
    """

    def __init__(self, name: str, package: str = "", **settings: Any) -> None:
        settings.setdefault("context_settings", {"max_content_width": 100})
        super().__init__(name, no_args_is_help=False, invoke_without_command=True, **settings)
        self.package = package
        self.callback = self._show_help

    @staticmethod
    @click.pass_context
    def _show_help(context: click.Context) -> None:
        if context.invoked_subcommand is None:
            click.echo(context.get_help())

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands in alphabetical order."""
        path = importlib.import_module(self.package).__path__ if self.package else ()
        modules = (module.name for module in pkgutil.iter_modules(path))
        return sorted([*self.commands, *(name for name in modules if not name.startswith("_"))])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command of that name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        added = self.commands.get(cmd_name)
        return added or importlib.import_module(f"{self.package}.{cmd_name}").command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the first argument names, or list the known ones."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            known = ", ".join(self.list_commands(ctx))
            raise click.UsageError(f"There is no command {name!r}: give one of {known}.", ctx)
        return super().resolve_command(ctx, args)

    def main(self, args: Sequence[str] | None = None, **settings: Any) -> Any:  # type: ignore[override]
        """Run a command; a mistake prints one sentence on standard error with exit status 2."""
        settings["standalone_mode"] = False
        print_whatever_the_terminal_holds()
        try:
            status = super().main(args, **settings)
        except (click.exceptions.Abort, KeyboardInterrupt):
            _stop("Interrupted.", 130)
        except Exception as error:
            sentence = as_sentence(error)
            if sentence is None:
                raise
            _stop(sentence, MISTAKE)
        sys.exit(status if isinstance(status, int) else 0)


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
