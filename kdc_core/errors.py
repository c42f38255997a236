"""The one class of errors that a user can mend; the commands print it without a traceback."""


class KdcError(ValueError):
    """Something from outside cannot be used. The text says what was expected, what came, and
    what to do."""
