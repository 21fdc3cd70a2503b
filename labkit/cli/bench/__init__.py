"""``labkit bench …``: methods measured against each other, one file for each part of labkit."""

from labkit.cli._group import CommandGroup

command = CommandGroup(
    "bench", package="labkit.cli.bench", help="Measure methods against each other over prompts."
)
