"""`kdc soak`: the node at full load for as long as one likes."""

from __future__ import annotations

import os
from contextlib import closing
from typing import Annotated

import typer
from typer import Option

from kdc_core.commands.options import Json
from kdc_core.commands.outputs import check_outputs
from kdc_core.commands.printing import save
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
    for name, value in figures.items():
        typer.echo(f"{name:28} {value:10.3f}")
    save(json_file, figures)
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
        NoAnswer: the node went silent.
    """
    import numpy as np

    from kdc_core.bench.frames import paste_people
    from kdc_ros import env
    from kdc_ros.camera import Camera, node_process
    from kdc_ros.stream import COUNTERS, Streamer, resident_mb

    env.prepare()
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    pixels, part_s = paste_people(PEOPLE), 60 * minutes / PARTS
    parts, memory_mb = [], []
    with (
        node_process("-r", f"__ns:={NAMESPACE}") as process,
        closing(Camera(namespace=NAMESPACE, reliable=False)) as camera,
    ):
        camera.wait_for_node()
        streamer = Streamer(camera, process.pid)
        samples: list[float] = []
        for _ in range(1 + PARTS):
            samples.clear()
            parts.append(
                streamer.run(
                    pixels, RATE_HZ, part_s, lambda: samples.append(resident_mb(process.pid))
                )
            )
            memory_mb.append(float(np.median([*samples, resident_mb(process.pid)])))
    del parts[0], memory_mb[0]  # the node warmed up
    latencies = np.concatenate([part.latencies_ms for part in parts])
    seconds = sum(part.seconds for part in parts)
    figures = {
        "minutes": minutes,
        "shown": sum(part.shown for part in parts),
        "answered": len(latencies),
        **{name: sum(part.counts[name] for part in parts) for name in COUNTERS},
        "latency_ms_p50": np.percentile(latencies, 50),
        "latency_ms_p95": np.percentile(latencies, 95),
        "memory_mb_first": memory_mb[0],
        "memory_mb_last": memory_mb[-1],
        "memory_growth": memory_mb[-1] / memory_mb[0] - 1,
        "cpu_share": sum(part.cpu_share * part.seconds for part in parts) / seconds,
    }
    return {name: round(float(value), 4) for name, value in figures.items()}
