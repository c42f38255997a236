"""`kdc bench node`: what the node adds to the bare predictor, and what `pipeline` changes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np

from kdc_core.bench.frames import one_person_image
from kdc_core.inference.predictor import Predictor
from kdc_ros import env
from kdc_ros.camera import Camera, NoAnswer, Stamp, node_process, stamp_of

NAMESPACE = "/kdc_bench"
WARM_UP = 5  # rounds that are not counted
TURN = 10  # frames of one node before it is the other's turn
FASTER = 3  # frames a camera shows in the time that the predictor takes for one
TIMEOUT_S = 30.0


def bench_node(rounds: int) -> dict[str, float]:
    """Show one frame to the node and to a predictor in this process, in turn; then stream it.

    Args:
        rounds: frames each.

    Returns:
        Medians in ms: `node_ms` (published to the last of keypoints, persons and labels
        received), `predictor_ms`, and `node_overhead_ms`, the median of their differences
        within each round. Of a camera that is faster than the node: `latency_ms`, as `node_ms`
        of the frames that are answered, and `rate_hz`, how many that are a second; the same of
        a node with the parameter `pipeline`: `pipeline_latency_ms`, `pipeline_rate_hz`.
    """
    env.prepare()
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    image = one_person_image()
    with _camera_at_node(NAMESPACE) as plain:
        node_ms, bare_ms = _compare(plain, image, rounds)
        period_s = float(np.median(bare_ms)) / 1e3 / FASTER
        with _camera_at_node(f"{NAMESPACE}_pipeline", "-p", "pipeline:=true") as pipelined:
            plain_streams, pipelined_streams = [], []
            for _ in range(0, rounds, TURN):
                plain_streams.append(_stream(plain, image, period_s))
                pipelined_streams.append(_stream(pipelined, image, period_s))
    latency, rate = np.median(plain_streams, 0)
    pipeline_latency, pipeline_rate = np.median(pipelined_streams, 0)
    figures = {
        "node_overhead_ms": np.median(node_ms - bare_ms),
        "node_ms": np.median(node_ms),
        "predictor_ms": np.median(bare_ms),
        "latency_ms": latency,
        "rate_hz": rate,
        "pipeline_latency_ms": pipeline_latency,
        "pipeline_rate_hz": pipeline_rate,
        "rounds": rounds,
    }
    return {name: round(float(value), 3) for name, value in figures.items()}


@contextmanager
def _camera_at_node(namespace: str, *ros_args: str) -> Iterator[Camera]:
    """A node in a process of its own, and a camera that it answers."""
    with (
        node_process("-r", f"__ns:={namespace}", *ros_args),
        closing(Camera(namespace=namespace)) as camera,
    ):
        camera.wait_for_node()
        yield camera


def _compare(camera: Camera, image: np.ndarray, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """Milliseconds of the node and of a predictor here, for one frame after the other."""
    pairs = []
    with closing(Predictor.from_pretrained("kdc_light")) as predictor:
        for _ in range(WARM_UP + rounds):
            node_s = camera.ask(camera.image(image))[1]
            pairs.append((1e3 * node_s, sum(predictor(image).timings_ms.values())))
    node_ms, bare_ms = np.array(pairs[WARM_UP:]).T
    return node_ms, bare_ms


def _stream(camera: Camera, image: np.ndarray, period_s: float) -> tuple[float, float]:
    """Show a frame a period after the one before, or with its answer, until TURN are answered.

    Returns:
        Median milliseconds from publishing to the last answer, of frames that are answered;
        frames answered a second.

    Raises:
        NoAnswer: they do not come.
    """
    shown: dict[Stamp, float] = {}
    answered: dict[Stamp, float] = {}

    def last_is_answered() -> bool:
        # Answers to frames shown before may still come: they do not count.
        for stamp in shown.keys() - answered.keys():
            if len(camera.received.get(stamp, ())) == len(camera.answers):
                answered[stamp] = time.perf_counter()
        return last in answered

    begun = time.perf_counter()
    while len(answered) <= TURN:
        if time.perf_counter() > begun + TIMEOUT_S:
            raise NoAnswer(f"{len(answered)} frames answered within {TIMEOUT_S} s")
        frame = camera.image(image)
        last = stamp_of(frame)
        shown[last] = time.perf_counter()
        camera.publisher.publish(frame)
        camera.spin_until(last_is_answered, period_s)
    # The first, which had nothing before it, only says when the others began.
    first, *others = list(answered.items())[: TURN + 1]
    # The last one shown is never replaced: with its answer the node is idle again.
    camera.spin_until(last_is_answered, TIMEOUT_S)
    camera.received.clear()
    latency_s = np.median([at - shown[stamp] for stamp, at in others])
    return 1e3 * float(latency_s), TURN / (others[-1][1] - first[1])
