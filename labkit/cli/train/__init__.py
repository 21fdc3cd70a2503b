"""``labkit train …``: heads from a recipe, their evaluation, and what a recipe would cost."""

from labkit.cli._group import CommandGroup

command = CommandGroup(
    "train", package="labkit.cli.train", help="Train speculative heads by a recipe, and judge them."
)
