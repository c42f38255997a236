"""`kdc flicker`: do people stay found from frame to frame?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument

from kdc_core.commands.options import Confidence, Json, Model
from kdc_core.commands.outputs import check_outputs
from kdc_core.commands.printing import cell, end_with, print_table, saved
from kdc_core.show.progress import track

if TYPE_CHECKING:
    import numpy as np

    from kdc_core.data.sources import Frame


def flicker(
    videos: Annotated[list[str], Argument(help="Videos.")],
    model: Model = "kdc_light",
    confidence: Confidence = None,
    json_file: Json = None,
) -> None:
    """Count persons missing from a frame of a video though both its neighbors show them."""
    check_outputs([json_file], inputs=[*videos, model])
    from kdc_core.data.sources import count_frames, read_frames
    from kdc_core.evaluation.flicker import count_flicker
    from kdc_core.inference.predictor import Predictor

    predictor = Predictor.from_pretrained(model, confidence=confidence)
    figures = {}
    failed: list[str] = []
    for video in videos:
        known = len(failed)
        frames = track(read_frames(video), count_frames(video), Path(video).name)
        found = count_flicker(
            None if image is None else predictor(image) for image in _images(frames, failed)
        )
        if found.frames < 3:
            if len(failed) == known:  # else that says why
                failed.append(f"'{video}' gave {found.frames} frames, expected three or more")
            continue
        figures[video] = {**vars(found), "share": round(found.fraction, 4)}
    keys = ("frames", "expected", "missing", "share", "frames_with_missing")
    with saved(json_file, figures):
        if figures:
            print_table(
                f"{model}: persons missing between two frames that show them",
                ("video", "frames", "expected", "missing", "fraction", "frames with a miss"),
                [
                    (Path(video).name, *(cell(counts[k]) for k in keys))
                    for video, counts in figures.items()
                ],
            )
    end_with(failed)


def _images(frames: Iterable[Frame], failed: list[str]) -> Iterator[np.ndarray | None]:
    """The images of frames; of one that has none, None, and why goes to `failed`."""
    for frame in frames:
        if frame.image is None and frame.error is not None:
            failed.append(frame.error)
        yield frame.image
