"""`kdc doctor`: a report for oneself or for a bug report."""

from __future__ import annotations

import typer

from kdc_core.show.progress import build_bar


def doctor() -> None:
    """Say what is installed and what will run: a text to paste into a bug report."""
    from kdc_core.doctor import report

    with build_bar() as progress:
        rows = report(progress)
    for name, value in rows:
        typer.echo(f"{name:29} {' '.join(value.split())}")
