"""`kdc bench node`: what the node adds to the bare predictor, what `pipeline` changes, and what
becomes of a camera's frames."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import numpy as np

from kdc_core.bench.frames import one_person_image
from kdc_core.inference.predictor import Predictor
from kdc_ros import env
from kdc_ros.camera import NODE, Camera, node_process
from kdc_ros.stand_in import SIZES, sample
from kdc_ros.stream import Streamed, Streamer

NAMESPACE = "/kdc_bench"
# Of the node and of the predictor beside it, so that ratios of two machines can be compared.
RUNTIME = "onnxruntime"
SAME_RUNTIME = ("-p", f"runtime:={RUNTIME}")
WARM_UP = 5  # rounds that are not counted
FASTER = 3  # frames a camera shows in the time that the predictor takes for one
TURNS = 3  # of two nodes that are shown such frames
# A camera, and stand-ins of models that keep up with it and that do not.
RATE_HZ = 30.0
MODELS_MS = (10, 100)
ROUND_S = 0.05  # of streaming for each round
WARM_UP_S = 1.0  # also the least for a stream


def bench_node(rounds: int) -> dict[str, float]:
    """Show one frame to the node and to a predictor in this process, in turn; then stream frames.

    Args:
        rounds: frames each.

    Returns:
        Of VGA frames shown one by one: `node_ms` (published to the last of keypoints, persons and
        labels received) and `predictor_ms`, medians, with `_p95`; `node_overhead_ms`, the median
        of their differences within each round; `node_overhead_over_predictor` and
        `latency_p95_over_predictor_p95`.

        Of a camera that is faster than the node: `latency_ms`, as `node_ms` of the frames that
        are answered, and `rate_hz`, how many that are a second; the same of a node with the
        parameter `pipeline`: `pipeline_latency_ms`, `pipeline_rate_hz`.

        Of a best-effort camera of 30 Hz, the node's model replaced by a wait of 10 or 100 ms
        (`stand_in`), by names as `vga_10ms_latency_ms`: `latency_ms` and `latency_ms_p95`;
        `answered_share` and `delivered_share`, frames answered and frames received by the node
        over those shown; `cpu_share`, the node's processor seconds per second and core.
        `delivered_share`: the least of them. `cpu_share`: of VGA and the model that keeps up.
    """
    env.prepare(local=True)
    image = one_person_image()
    with _camera_at_node(NAMESPACE, *SAME_RUNTIME) as (camera, plain):
        node_ms, bare_ms = _compare(camera, image, rounds)
        predictor_ms = float(np.median(bare_ms))
        rate_hz, turn_s = 1e3 * FASTER / predictor_ms, 1e-3 * rounds * predictor_ms / TURNS
        pipeline = ("-p", "pipeline:=true")
        with _camera_at_node(f"{NAMESPACE}_pipeline", *pipeline, *SAME_RUNTIME) as (_, pipelined):
            turns = [
                [node.run(image, rate_hz, max(turn_s, WARM_UP_S)) for node in (plain, pipelined)]
                for _ in range(TURNS)
            ]
    latency_ms, answered_hz = np.median(
        [[(s.latency_ms(50), len(s.latencies_ms) / s.seconds) for s in turn] for turn in turns], 0
    ).T
    p95 = [float(np.percentile(times, 95)) for times in (node_ms, bare_ms)]
    overhead_ms = float(np.median(node_ms - bare_ms))
    streams = _streams(max(WARM_UP_S, ROUND_S * rounds))
    figures = {
        "node_overhead_over_predictor": overhead_ms / predictor_ms,
        "latency_p95_over_predictor_p95": p95[0] / p95[1],
        "delivered_share": min(streamed.delivered_share for streamed in streams.values()),
        "cpu_share": streams["vga_10ms"].cpu_share,
        "node_overhead_ms": overhead_ms,
        "node_ms": np.median(node_ms),
        "node_ms_p95": p95[0],
        "predictor_ms": predictor_ms,
        "predictor_ms_p95": p95[1],
        "latency_ms": latency_ms[0],
        "rate_hz": answered_hz[0],
        "pipeline_latency_ms": latency_ms[1],
        "pipeline_rate_hz": answered_hz[1],
        **{f"{name}_{key}": x for name, s in streams.items() for key, x in _figures(s).items()},
        "rounds": rounds,
    }
    return {name: round(float(value), 4) for name, value in figures.items()}


def _streams(seconds: float) -> dict[str, Streamed]:
    """What became of the frames, by size of frame and model: `vga_10ms`."""
    streams = {}
    for model_ms in MODELS_MS:
        namespace = f"{NAMESPACE}_{model_ms}ms"
        command = (sys.executable, "-m", "kdc_ros.stand_in", str(model_ms))
        with _camera_at_node(namespace, command=command, reliable=False) as (_, streamer):
            for size in SIZES:
                streamer.run(sample(size), RATE_HZ, WARM_UP_S)
                streams[f"{size}_{model_ms}ms"] = streamer.run(sample(size), RATE_HZ, seconds)
    return streams


def _figures(streamed: Streamed) -> dict[str, float]:
    return {
        "latency_ms": streamed.latency_ms(50),
        "latency_ms_p95": streamed.latency_ms(95),
        "answered_share": len(streamed.latencies_ms) / streamed.shown,
        "delivered_share": streamed.delivered_share,
        "cpu_share": streamed.cpu_share,
    }


@contextmanager
def _camera_at_node(
    namespace: str, *ros_args: str, command: Sequence[str] = NODE, reliable: bool = True
) -> Iterator[tuple[Camera, Streamer]]:
    """A camera, answered by a node in a process of its own."""
    with (
        node_process("-r", f"__ns:={namespace}", *ros_args, command=command) as process,
        closing(Camera(namespace=namespace, reliable=reliable)) as camera,
    ):
        camera.wait_for_node()
        yield camera, Streamer(camera, process.pid)


def _compare(camera: Camera, image: np.ndarray, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """Milliseconds of the node and of a predictor here, for one frame after the other."""
    pairs = []
    with closing(Predictor.from_pretrained("kdc_light", RUNTIME)) as predictor:
        for _ in range(WARM_UP + rounds):
            node_s = camera.ask(camera.image(image))[1]
            pairs.append((1e3 * node_s, sum(predictor(image).timings_ms.values())))
    node_ms, bare_ms = np.array(pairs[WARM_UP:]).T
    return node_ms, bare_ms
