"""Find the people in every frame of a video or camera, and write a video with them drawn.

python examples/predict_video.py street.mp4 people.mp4
python examples/predict_video.py 0 people.mp4 --frames 100    (camera 0)
"""

from __future__ import annotations

import argparse
import sys
import time

import cv2

from kdc_core import Predictor
from kdc_core.show.drawing import draw_people


def main(source: str, output: str, frames: int | None) -> None:
    """Predict and draw one frame after the other; no more than one is held in memory.

    Args:
        source: video file, or the number of a camera.
        output: the .mp4 to write.
        frames: stop after so many; None = at the end of the video, or with Ctrl-C.
    """
    capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
    if not capture.isOpened():
        sys.exit(f"'{source}' is neither a video nor the number of a camera")
    rate = capture.get(cv2.CAP_PROP_FPS) or 25.0
    size = tuple(
        int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
    )
    video = cv2.VideoWriter(output, cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
    if not video.isOpened():
        sys.exit(f"cannot write '{output}'")

    predictor = Predictor.from_pretrained("kdc_light")
    count, begun = 0, time.perf_counter()
    try:
        while frames is None or count < frames:
            got, bgr = capture.read()
            if not got:
                break
            frame = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            prediction = predictor(frame)
            drawn = draw_people(
                frame, prediction, predictor.skeleton, predictor.thresholds.keypoint
            )
            video.write(cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
            # Each frame is on its own: ids of people do not go on from one to the next.
            print(f"frame {count}: {len(prediction)} people")
            count += 1
    except KeyboardInterrupt:
        pass  # the video is whole up to here
    finally:
        capture.release()
        video.release()
    seconds = time.perf_counter() - begun
    print(f"{count} frames, {count / seconds:.1f} a second, written to '{output}'")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="video file, or the number of a camera")
    parser.add_argument("output", help="the .mp4 to write")
    parser.add_argument("--frames", type=int, help="stop after so many")
    given = parser.parse_args()
    main(given.source, given.output, given.frames)
