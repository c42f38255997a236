"""`kdc soak`: the node at full load for as long as one likes."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer
from typer import Option

from kdc_core.commands.options import Json
from kdc_core.commands.outputs import check_outputs
from kdc_core.commands.printing import print_figures, saved
from kdc_core.errors import Work

NAMESPACE = "/kdc_soak"
RATE_HZ = 30.0
PEOPLE = 30
PARTS = 10  # of the time; memory in the first and in the last is compared
LARGEST_GROWTH = 0.05


def soak(
    minutes: Annotated[float, Option(min=0.1, help="After a tenth of it to warm up.")] = 10.0,
    json_file: Json = None,
) -> None:
    """The node at full load, a VGA camera of 30 Hz: memory, frames lost, faults, latency."""
    check_outputs([json_file])
    Work.begun = True
    figures = run_soak(minutes)
    with saved(json_file, figures):
        print_figures(figures)
    if figures["memory_growth"] > LARGEST_GROWTH or figures["faults"] or figures["bad"]:
        raise typer.Exit(1)


def run_soak(minutes: float) -> dict[str, float]:
    """Show a frame of 30 people to a node in a process of its own, 30 times a second.

    Args:
        minutes: of which the figures are, after a tenth of it to warm up.

    Returns:
        `shown` frames; what the node counted meanwhile: `frames` it answered, `dropped` for
        newer ones, `bad`, `faults`, `lost` by the middleware; `answered` as seen by the camera;
        `latency_ms_p50` and `_p95`, published to the last answer; `memory_mb_first` and `_last`,
        resident memory of the node's process, median of the first and of the last tenth of the
        time, and `memory_growth` from one to the other; `cpu_share`, its processor seconds per
        second and core.

    Raises:
        NoAnswer: the node ended, or went silent.
    """
    import numpy as np

    from kdc_core.bench.frames import paste_people
    from kdc_ros import env
    from kdc_ros.camera import Camera, NoAnswer, node_process
    from kdc_ros.diagnostics import resident_mb
    from kdc_ros.stream import Streamer

    env.prepare(local=True)
    pixels, seconds = paste_people(PEOPLE), 60 * minutes
    memory_mb: list[float] = []
    with (
        node_process("-r", f"__ns:={NAMESPACE}") as process,
        closing(Camera(namespace=NAMESPACE, reliable=False)) as camera,
    ):
        camera.wait_for_node()
        streamer = Streamer(camera, process.pid)
        streamer.run(pixels, RATE_HZ, seconds / PARTS)

        def look() -> None:
            if process.poll() is not None:
                raise NoAnswer(f"the node ended with code {process.returncode}")
            memory_mb.append(resident_mb(process.pid))

        streamed = streamer.run(pixels, RATE_HZ, seconds, look)
    part = max(1, len(memory_mb) // PARTS)
    first, last = np.median(memory_mb[:part]), np.median(memory_mb[-part:])
    figures = {
        "minutes": minutes,
        "shown": streamed.shown,
        "answered": len(streamed.latencies_ms),
        **streamed.counts,
        "latency_ms_p50": streamed.latency_ms(50),
        "latency_ms_p95": streamed.latency_ms(95),
        "memory_mb_first": first,
        "memory_mb_last": last,
        "memory_growth": last / first - 1,
        "cpu_share": streamed.cpu_share,
    }
    return {name: round(float(value), 4) for name, value in figures.items()}
