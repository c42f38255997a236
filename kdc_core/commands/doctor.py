"""`kdc doctor`: a report for oneself or for a bug report."""

from __future__ import annotations


def doctor() -> None:
    """Say what is installed and what will run."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from kdc_core.doctor import report

    table = Table(show_header=False)
    for name, value in report():
        table.add_row(name, escape(value))
    Console().print(table)
