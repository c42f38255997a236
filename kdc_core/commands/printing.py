"""What commands leave: tables, files of figures, and which images failed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from kdc_core.errors import for_terminal

if TYPE_CHECKING:
    from kdc_core.data.annotations import Annotations


def print_table(
    title: str, columns: Sequence[str], *sections: Iterable[Sequence[str]], fold: bool = True
) -> None:
    """Print rows of text, the first column left, the others right.

    Args:
        title: above the table.
        columns: heads.
        sections: rows of cells; a rule stands between two sections.
        fold: the first column may be broken into lines where the terminal is narrow.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(for_terminal(title)))
    table.add_column(columns[0], overflow="fold", no_wrap=not fold)
    for column in columns[1:]:
        table.add_column(column, justify="right", min_width=5)
    for section in sections:
        for row in section:
            table.add_row(*(escape(for_terminal(text)) for text in row))
        table.add_section()
    Console().print(table)


def cell(value: float | str | None) -> str:
    """A value of a table: three decimals of what is no whole number; empty for none, COCO's -1."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}" if value >= 0 else ""
    return f"{value}"


def say_absent(annotations: Annotations, protocol: str) -> None:
    """Say why rows are missing."""
    from kdc_core.evaluation.protocols import absent_rows

    for line in absent_rows(annotations, protocol):
        typer.echo(line)


def print_figures(figures: dict[str, float]) -> None:
    """Print figures by name, a line each."""
    for name, value in figures.items():
        typer.echo(f"{name:28} {value:10.3f}")


def save(path: Path | None, figures: Any) -> None:
    """Write figures as JSON, where a file was asked for."""
    from kdc_core.files import write_json

    if path is not None:
        write_json(path, figures)


@contextmanager
def saved(path: Path | None, figures: Any) -> Iterator[None]:
    """`save` the figures and run the block, which tells them; each although the other fails, as
    with a full disk, or where nobody reads."""
    try:
        save(path, figures)
    finally:
        yield


def say(text: str) -> None:
    """Print a line on stderr; work does not end because nobody can read it."""
    with suppress(OSError):
        typer.echo(for_terminal(text), err=True)


def end_with(failed: Iterable[str]) -> None:
    """Name the images that failed, and end with 1 where there are any."""
    failed = list(failed)
    for text in failed:
        say(f"error: {text}")
    if failed:
        raise typer.Exit(1)
