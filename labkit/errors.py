"""The one exception a person is meant to read."""


class LabkitError(ValueError):
    """Something a person gave cannot be used; the message is one sentence that says what would do.

    The command line prints it and exits with status 2; in a notebook it is the exception's text.
    """
