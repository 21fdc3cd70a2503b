"""The exception whose message is written for the user."""

from typing import Any


class LabkitError(ValueError):
    """Input that cannot be used; the message is one sentence that says what is wrong.

    The command line prints it and exits with status 2; in a notebook it is the exception's text.
    """


def first_problem(error: Any, whole: str) -> str:
    """Return a pydantic ``ValidationError``'s first field and problem; ``whole`` names the root."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or whole}: {first['msg']}"
