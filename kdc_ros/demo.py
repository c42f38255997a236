"""The demo: the real node in one process, a camera showing it real pictures in another.

Leaves annotated pictures, a video and `summary.json` in a folder.
"""

from __future__ import annotations

import os
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
from sensor_msgs.msg import Image

from kdc_core.data.sources import list_sources, read_frames
from kdc_core.files import whole_file, write_json
from kdc_ros import env
from kdc_ros.camera import ANSWERS, Camera, NoAnswer, node_process
from kdc_ros.images import to_rgb

NAMESPACE = "/kdc_demo"  # apart from a node that may run here already


def run_demo(output: Path) -> dict[str, float]:
    """Show every sample picture and every frame of the sample clip to the node.

    Args:
        output: folder of the annotated pictures, the video and `summary.json`.

    Returns:
        frames_sent, frames_received, persons (summed), latency_ms_p50, latency_ms_p95.
    """
    output.mkdir(parents=True, exist_ok=True)
    sources = list_sources([str(files("kdc_core") / "samples")])
    persons, latencies, sent = 0, [], 0
    video: cv2.VideoWriter | None = None
    with node_process("-r", f"__ns:={NAMESPACE}"):
        camera = Camera({**ANSWERS, "annotated": Image}, NAMESPACE)
        try:
            camera.wait_for_node()
            for source in sources:
                for frame in read_frames(source):
                    if frame.image is None:
                        raise RuntimeError(frame.error)
                    sent += 1
                    try:
                        answers, seconds = camera.ask(camera.image(frame.image))
                    except NoAnswer as error:
                        print(f"error: {error}", file=sys.stderr)
                        continue
                    found = answers["keypoints"].height
                    persons += found
                    latencies.append(1e3 * seconds)
                    drawn = to_rgb(answers["annotated"])[..., ::-1]
                    if frame.index is None:
                        with whole_file(output / Path(source).name) as part:
                            cv2.imwrite(str(part), drawn)
                    else:
                        video = video or _open_video(output / "people.avi", drawn, frame.rate)
                        video.write(np.ascontiguousarray(drawn))
                    where = f" frame {frame.index}" if frame.index is not None else ""
                    print(f"{Path(source).name}{where}: {found} persons, {1e3 * seconds:.0f} ms")
        finally:
            camera.close()
            if video is not None:
                video.release()
    summary = {
        "frames_sent": sent,
        "frames_received": len(latencies),
        "persons": persons,
        "latency_ms_p50": round(float(np.percentile(latencies or [0.0], 50)), 1),
        "latency_ms_p95": round(float(np.percentile(latencies or [0.0], 95)), 1),
    }
    write_json(output / "summary.json", summary)
    return summary


def _open_video(path: Path, image: np.ndarray, rate: float) -> cv2.VideoWriter:
    size = (image.shape[1], image.shape[0])
    return cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), rate or 10.0, size)


def main() -> int:
    env.prepare()
    # Nothing of the demo needs to leave this machine.
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    if "HOME" not in os.environ:
        os.environ.setdefault("ROS_LOG_DIR", tempfile.mkdtemp(prefix="kdc_log_"))
    output = Path("demo_output")
    summary = run_demo(output)
    for name, value in summary.items():
        print(f"{name:16} {value}")
    print(f"annotated pictures, people.avi and summary.json are in '{output}'")
    return 0 if summary["frames_received"] == summary["frames_sent"] else 1


if __name__ == "__main__":
    sys.exit(main())
