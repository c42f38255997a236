"""The demo: the real node in one process, a camera showing it real images in another.

Leaves annotated images, a video and `summary.json` in a folder.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
from sensor_msgs.msg import Image

from kdc_core.files import whole_file, write_json
from kdc_ros import env
from kdc_ros.camera import ANSWERS, Camera, NoAnswer, node_process
from kdc_ros.images import to_rgb

NAMESPACE = "/kdc_demo"  # apart from a node that may run here already


class Viewer:
    """Shows frames to the node and counts what comes back.

    Args:
        camera: it asks for `annotated` among the answers.
    """

    def __init__(self, camera: Camera):
        self._camera = camera
        self._sent = self._persons = 0
        self._latencies_ms: list[float] = []

    def annotated(self, name: str, frame: np.ndarray, follows: bool = True) -> np.ndarray | None:
        """The node's drawing of a frame; None where it did not answer in time.

        Args:
            name: of the frame, for the line printed about it.
            frame: (H, W, 3) uint8 BGR.
            follows: whether it shows what the last one did; else people have new ids.

        Returns:
            (H, W, 3) uint8 BGR.
        """
        self._sent += 1
        message = self._camera.image(frame, "bgr8")
        if not follows:
            # By going back in time a recording begins anew.
            message.header.stamp.sec -= 2 * self._sent
        try:
            answers, seconds = self._camera.ask(message)
        except NoAnswer as error:
            print(f"error: {error}", file=sys.stderr)
            return None
        found = answers["keypoints"].height
        self._persons += found
        self._latencies_ms.append(1e3 * seconds)
        print(f"{name}: {found} persons, {1e3 * seconds:.0f} ms")
        return np.ascontiguousarray(to_rgb(answers["annotated"])[..., ::-1])

    def summary(self) -> dict[str, float]:
        """Counts and latencies by name."""
        latencies = self._latencies_ms or [0.0]
        return {
            "frames_sent": self._sent,
            "frames_received": len(self._latencies_ms),
            "persons": self._persons,
            "latency_ms_p50": round(float(np.percentile(latencies, 50)), 1),
            "latency_ms_p95": round(float(np.percentile(latencies, 95)), 1),
        }


def run_demo(output: Path) -> dict[str, float]:
    """Show every sample image and every frame of the sample video to the node.

    Args:
        output: folder of the annotated images, the video and `summary.json`.

    Returns:
        frames_sent, frames_received, persons (summed), latency_ms_p50, latency_ms_p95.
    """
    output.mkdir(parents=True, exist_ok=True)
    samples = Path(str(files("kdc_core") / "samples"))
    with (
        node_process("-r", f"__ns:={NAMESPACE}"),
        closing(Camera({**ANSWERS, "annotated": Image}, NAMESPACE)) as camera,
    ):
        camera.wait_for_node()
        viewer = Viewer(camera)
        for path in sorted(samples.glob("*.jpg")):
            image = cv2.imread(str(path))
            if image is None:
                raise RuntimeError(f"'{path}' cannot be read: install the package again")
            drawn = viewer.annotated(path.name, image, follows=False)
            if drawn is not None:
                with whole_file(output / path.name) as part:
                    cv2.imwrite(str(part), drawn)
        _show_video(viewer, samples / "people.mp4", output / "people.avi")
    summary = viewer.summary()
    write_json(output / "summary.json", summary)
    return summary


def _show_video(viewer: Viewer, source: Path, target: Path) -> None:
    video = cv2.VideoCapture(str(source))
    if not video.isOpened():
        raise RuntimeError(f"'{source}' cannot be read: install the package again")
    size = [int(video.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
    codec, rate = cv2.VideoWriter.fourcc(*"MJPG"), video.get(cv2.CAP_PROP_FPS) or 10.0
    writer = cv2.VideoWriter(str(target), codec, rate, size)
    try:
        index = 0
        while (got := video.read())[0]:
            drawn = viewer.annotated(f"{source.name} frame {index}", got[1])
            if drawn is not None:
                writer.write(drawn)
            index += 1
    finally:
        writer.release()
        video.release()


def main() -> int:
    env.prepare(local=True)
    if "HOME" not in os.environ:
        os.environ.setdefault("ROS_LOG_DIR", tempfile.mkdtemp(prefix="kdc_log_"))
    output = Path("demo_output")
    summary = run_demo(output)
    for name, value in summary.items():
        print(f"{name:16} {value}")
    print(f"annotated images, people.avi and summary.json are in '{output}'")
    return 0 if summary["frames_received"] == summary["frames_sent"] else 1


if __name__ == "__main__":
    sys.exit(main())
