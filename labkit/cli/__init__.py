"""The command line: one file for each kind of command.

A command parses, calls a public function of labkit, and prints. Its file imports nothing heavy at
its top, so that ``labkit --help`` is quick.
"""

import click

from labkit.cli._group import CommandGroup

main = CommandGroup(
    "labkit",
    package="labkit.cli",
    help="A teaching lab on how language models decode: speculatively, and by minimum Bayes risk.",
)
main = click.version_option(package_name="labkit", message="%(package)s %(version)s")(main)

__all__ = ["main"]
