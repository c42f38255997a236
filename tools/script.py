"""How the scripts of this folder end: what a user can mend is one line and exit status 2."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from kdc_core.errors import KdcError


def run(main: Callable[..., None]) -> None:
    """Run a script's function with the arguments of the command line."""
    try:
        typer.run(main)
    except (KdcError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
