"""The progress bar of every command."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from kdc_core.errors import Work

T = TypeVar("T")


def track(items: Iterable[T], total: int | None, label: str) -> Iterator[T]:
    """Yield the items and show on stderr how many are done, how fast, and the time left.

    Once the first of them is done, `Work` has begun.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),  # it may be the name of a file
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as bar:
        task = bar.add_task(label, total=total, rate="")
        for item in items:
            yield item
            Work.begun = True
            speed = bar.tasks[task].speed
            bar.update(task, advance=1, rate=f"{speed:.1f}/s" if speed else "")
