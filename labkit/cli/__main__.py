"""``python -m labkit.cli``, for where the ``labkit`` script is not on the path."""

from labkit.cli import main

main()
