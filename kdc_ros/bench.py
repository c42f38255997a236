"""`kdc bench node`: what the node adds to the bare predictor."""

from __future__ import annotations

import os
from contextlib import closing

import numpy as np

from kdc_core.bench.frames import one_person_image
from kdc_core.inference.predictor import Predictor
from kdc_ros import env
from kdc_ros.camera import Camera, node_process

NAMESPACE = "/kdc_bench"
WARM_UP = 5  # rounds that are not counted


def bench_node(rounds: int) -> dict[str, float]:
    """Show one frame to the node and to a predictor in this process, in turn.

    Args:
        rounds: frames each.

    Returns:
        Medians in ms: `node_ms` (published to the last of keypoints, persons and labels
        received), `predictor_ms`, and `node_overhead_ms`, the median of their differences
        within each round.
    """
    env.prepare()
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    image = one_person_image()
    predictor = Predictor.from_pretrained("kdc_light")
    pairs = []
    with (
        node_process("-r", f"__ns:={NAMESPACE}"),
        closing(Camera(namespace=NAMESPACE)) as camera,
    ):
        camera.wait_for_node()
        for number in range(rounds + WARM_UP):
            node_s = camera.ask(camera.image(image))[1]
            bare_ms = sum(predictor(image).timings_ms.values())
            if number >= WARM_UP:
                pairs.append((1e3 * node_s, bare_ms))
    node_ms, bare = np.array(pairs).T
    return {
        "node_overhead_ms": round(float(np.median(node_ms - bare)), 3),
        "node_ms": round(float(np.median(node_ms)), 3),
        "predictor_ms": round(float(np.median(bare)), 3),
        "rounds": float(rounds),
    }
