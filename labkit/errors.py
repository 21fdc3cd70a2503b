"""The exception whose message is written for the user."""


class LabkitError(ValueError):
    """Input that cannot be used; the message is one sentence that says what is wrong.

    The command line prints it and exits with status 2; in a notebook it is the exception's text.
    """
