"""`kdc echo`: the people of a running node as a table."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from kdc_core.errors import KdcError, Work
from kdc_core.stopping import Stop, end_stopped, stop_by_signal

if TYPE_CHECKING:
    from rclpy.executors import Executor

    from kdc_ros.people_table import PeopleTable

TIMEOUT_S = 5.0  # until a node is found
LOOK_S = 0.25  # between two looks at the signals, and between two tables


def echo(
    topic: Annotated[str, Option(help="The node's name with its namespace: /front/kdc.")] = "/kdc",
    once: Annotated[bool, Option("--once", help="End after the people of one image.")] = False,
) -> None:
    """Print the people that a running node finds: a table in a terminal, else a line each.

    Ctrl-C ends it.
    """
    import rclpy
    from rclpy.exceptions import NameValidationException
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from kdc_ros import env
    from kdc_ros.people_table import PeopleTable

    env.prepare()
    context = rclpy.Context()
    with stop_by_signal() as stop:
        rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
        try:
            node = rclpy.create_node("kdc_echo", context=context)
            executor = SingleThreadedExecutor(context=context)
            executor.add_node(node)
            try:
                people = PeopleTable(node, topic)
            except (NameValidationException, ValueError) as error:
                raise KdcError(f"'{topic}' is no name: {str(error).splitlines()[0]}") from error
            _show(people, executor, stop, once)
        finally:
            rclpy.try_shutdown(context=context)
    if stop.signal is not None:
        end_stopped(stop.signal)


def _show(people: PeopleTable, executor: Executor, stop: Stop, once: bool) -> None:
    """Print people until the signal to stop, or for one image.

    Raises:
        KdcError: as `_images`.
    """
    from rich.console import Console
    from rich.live import Live

    console, images = Console(), _images(people, executor, stop, once)
    if console.is_terminal and not once:
        with Live(console=console, get_renderable=people.table, refresh_per_second=1 / LOOK_S):
            for _ in images:
                pass
        return
    for _ in images:
        if console.is_terminal:
            console.print(people.table())
        else:
            typer.echo("\n".join(people.lines()))
        if once:
            return


def _images(people: PeopleTable, executor: Executor, stop: Stop, once: bool) -> Iterator[None]:
    """Each image whose people come, until the signal to stop.

    Raises:
        KdcError: there is no node, or the one image does not come.
    """
    begun, count = time.monotonic(), 0
    Work.begun = True
    while stop.signal is None:
        executor.spin_once(LOOK_S)
        late = not people.count and time.monotonic() - begun > TIMEOUT_S
        if late and (once or not people.published):
            raise KdcError(people.silence)
        if people.count > count:
            count = people.count
            yield
