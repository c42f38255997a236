"""The live view beside a command."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kdc_core.commands.printing import say
from kdc_core.stopping import Stop

if TYPE_CHECKING:
    from kdc_core.codec.skeleton import Skeleton
    from kdc_core.show.view import View

POLL_S = 0.1


@contextmanager
def viewing(
    wanted: bool, skeleton: Skeleton, stop: Stop, failed: Callable[[str], object]
) -> Iterator[View | None]:
    """A view to show frames in, which stays until a signal comes; None where none is wanted.

    Args:
        wanted: whether there is to be one.
        skeleton: of the people.
        stop: whether a signal has come.
        failed: called with the reason if the view ends by itself.

    Raises:
        ModuleNotFoundError: rerun is not installed.
        KdcError: it does not start.
    """
    if not wanted:
        yield None
        return
    from kdc_core.show.view import View

    with View(skeleton, failed) as view:
        say(f"live view: {view.url}")
        yield view
        if stop.signal is None:
            say("the view stays until Ctrl-C")
        while stop.signal is None:
            time.sleep(POLL_S)
