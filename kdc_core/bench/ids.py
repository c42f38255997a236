"""`kdc bench ids`: do people keep their ids from frame to frame?"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from kdc_core.bench.clips import RATE, make_clips
from kdc_core.bench.frames import SAMPLES
from kdc_core.bench.id_score import IdScore, score_ids
from kdc_core.data.datasets import find_data
from kdc_core.data.images import Images
from kdc_core.data.reading import read_annotations
from kdc_core.data.sources import VIDEOS, read_frames
from kdc_core.inference.predictor import Predictor
from kdc_core.inference.tracking import TIMEOUT_S, Tracker, follow
from kdc_core.show.progress import track

# Videos beside the repository; no part of the package.
REAL = Path(__file__).parents[2].parent / "shared" / "data" / "video"
REAL_S = 20.0  # of each video
PHOTOGRAPHS, SEED = 8, 0


@dataclass(frozen=True)
class ClipCount:
    """Of a video in which nobody knows who is who.

    Attributes:
        frames: read.
        ids: given.
        lost, regained: as of `Tracker`.
    """

    frames: int
    ids: int
    lost: int
    regained: int


@dataclass(frozen=True)
class IdsBench:
    """What `bench_ids` gives.

    Attributes:
        kinds: scores by kind of clip.
        videos: counts by name.
    """

    kinds: dict[str, IdScore]
    videos: dict[str, ClipCount]

    @property
    def whole(self) -> IdScore:
        """Of all kinds together."""
        return sum(self.kinds.values(), IdScore())


def bench_ids(model: str, data: str | None) -> IdsBench:
    """Follow people through clips made of photographs, and through real ones.

    Args:
        model: shipped model's name or a file.
        data: data set, as for `find_data`; None = the package's sample images.

    Raises:
        KdcError: the data set has too few photographs of people with masks.
    """
    predictor = Predictor.from_pretrained(model)
    file, folder = find_data(data or SAMPLES, "val")
    annotations = read_annotations(file, predictor.skeleton)
    clips = make_clips(annotations, Images(folder), PHOTOGRAPHS, SEED)
    kinds: dict[str, IdScore] = {}
    for clip in track(clips, len(clips), "clips of photographs"):
        tracker = Tracker(predictor.skeleton, TIMEOUT_S)
        score = score_ids(
            (follow(predictor, tracker, number / RATE, frame.image), frame.labels)
            for number, frame in enumerate(clip)
        )
        kinds[clip.kind] = kinds.get(clip.kind, IdScore()) + score
    videos = [SAMPLES / "people.mp4"]
    if REAL.is_dir():
        videos += sorted(path for path in REAL.iterdir() if path.suffix in VIDEOS)
    counts = {path.name: _count(predictor, path) for path in track(videos, len(videos), "videos")}
    return IdsBench(kinds, counts)


def _count(predictor: Predictor, video: Path) -> ClipCount:
    tracker = Tracker(predictor.skeleton, TIMEOUT_S)
    ids: set[int | None] = set()
    frames = 0
    for frame in takewhile(lambda frame: (frame.time or 0) < REAL_S, read_frames(str(video))):
        if frame.image is not None and frame.time is not None:
            found = follow(predictor, tracker, frame.time, frame.image)
            ids |= {person.id for person in found.persons}
            frames += 1
    return ClipCount(frames, len(ids), tracker.lost, tracker.regained)
