"""The one class of errors that a user can mend; the commands print it without a traceback."""

from __future__ import annotations

from typing import ClassVar


class KdcError(ValueError):
    """Something from outside cannot be used. The text says what was expected, what came, and
    what to do."""


class Work:
    """How far the command of this process is.

    Attributes:
        begun: whether some of its work is done: a fault from then on ends it with 1 (failed), one
            before with 2 (refused). Faults of annotations are refusals always.
    """

    begun: ClassVar[bool] = False


def for_terminal(text: str) -> str:
    """A text for the terminal: names from files may have characters that steer it."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
