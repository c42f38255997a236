"""The progress bars of the commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from kdc_core.errors import Work

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")


def track(items: Iterable[T], total: int | None, label: str) -> Iterator[T]:
    """Yield the items and show on stderr how many are done, how fast, and the time left.

    Once the first of them is done, `Work` has begun.
    """
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
    bar = Progress(*columns, console=_stderr(), refresh_per_second=4)
    task = bar.add_task(label, total=total, rate="")
    bar.start()
    try:
        for item in items:
            yield item
            Work.begun = True
            speed = bar.tasks[task].speed
            bar.update(task, advance=1, rate=f"{speed:.1f}/s" if speed else "")
    finally:
        with suppress(OSError):  # the work is done, whether anybody can see it or not
            bar.stop()


def _stderr() -> Console:
    """Of rich, which would end the process where nobody reads its stderr any more."""
    from rich.console import Console

    class Stderr(Console):
        def on_broken_pipe(self) -> None:
            self.quiet = True

    return Stderr(stderr=True)


@contextmanager
def build_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr, from the first step on: what the build of an engine does, for how long.

    With the first step, `Work` has begun.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    phase_of = TextColumn("{task.description}", markup=False)  # TensorRT names them
    columns = (phase_of, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=_stderr(), refresh_per_second=4)
    task = bar.add_task("", total=None)

    def progress(phase: str, done: int, total: int) -> None:
        Work.begun = True
        bar.start()
        bar.update(task, description=phase, completed=done, total=total or None)

    try:
        yield progress
    finally:
        if bar.live.is_started:
            with suppress(OSError):
                bar.stop()
