"""Settings of decode chosen for a model, on its maps of some images, checked on others."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from kdc_core.codec.codec import Codec
from kdc_core.codec.skeleton import SKELETONS
from kdc_core.config import Config
from kdc_core.config_file import changed
from kdc_core.data.annotations import AnnotatedImage, AnnotationError, Annotations
from kdc_core.data.datasets import open_data
from kdc_core.data.headers import check_sizes
from kdc_core.data.images import ImageError, Images
from kdc_core.evaluation.coco import Result, coco_results, score
from kdc_core.evaluation.figures import ROWS
from kdc_core.evaluation.maps import ImageMaps
from kdc_core.inference.predictor import ImageArrayError
from kdc_core.network.kdc import KDC
from kdc_core.network.weights import load_model, read_config, save_model

Item = TypeVar("Item")
Progress = Callable[[Iterable[Item], int], Iterable[Item]]
IMAGES = 120  # in each of the two slices
SEED = 0


@dataclass(frozen=True)
class Range:
    """A setting, and between what it is searched.

    Attributes:
        key: of the configuration.
        low, high: least and largest value.
        log: whether it is searched by its logarithm.
    """

    key: str
    low: float
    high: float
    log: bool = False


# None of them changes how long decode takes.
RANGES = (
    Range("decode.score_tau_px", 3, 20, log=True),
    Range("decode.min_peak", 0.005, 0.3, log=True),
    Range("decode.snap_px", 2, 16, log=True),
    Range("decode.snap_scale", 0.05, 0.5),
    Range("decode.skip_radius_px", 4, 24, log=True),
    Range("decode.same_pose_oks", 0.2, 0.9),
    Range("decode.score_power", 0.1, 1.0),
    Range("decode.center_weight", 0, 20),
    Range("decode.sigma_scale", 0.1, 0.6),
    Range("decode.sigma_min_px", 1, 8, log=True),
    Range("decode.level_px", 50, 220, log=True),
    Range("predict.mask_threshold", 0.3, 0.7),
)


@dataclass(frozen=True)
class Worth:
    """What one setting is worth: the mean AP lost by setting it back.

    Attributes:
        key: of the configuration.
        before, after: its values.
        tuned, held_out: AP lost on the images that were tuned on, and on the others.
    """

    key: str
    before: float
    after: float
    tuned: float
    held_out: float


@dataclass(frozen=True)
class Tuning:
    """What came of it.

    Attributes:
        config: with the best settings.
        trials: how many were tried.
        before, after: figures of the images that were tuned on.
        held_out_before, held_out_after: figures of the others.
        worth: of each setting.
    """

    config: Config
    trials: int
    before: dict[str, float]
    after: dict[str, float]
    held_out_before: dict[str, float]
    held_out_after: dict[str, float]
    worth: tuple[Worth, ...]


class Slice:
    """Images whose maps are kept, to be decoded again and again.

    Args:
        network: whose maps they are.
        truth: the annotated images.
        source: of the images.
        progress: wraps the images and their number.
    """

    def __init__(
        self,
        network: KDC,
        truth: Annotations,
        source: Images,
        progress: Progress[AnnotatedImage],
    ):
        self.truth = truth
        self.maps: list[tuple[int, ImageMaps]] = []  # in fp16, by the ids of their images
        for annotated in progress(truth.images, len(truth.images)):
            try:
                maps = ImageMaps.of(network, source.read(annotated.file_name))
            except ImageArrayError as error:
                raise ImageError(f"'{annotated.file_name}': {error}") from error
            half = [fields.map(Tensor.half) for fields in maps.levels]
            self.maps.append((annotated.id, replace(maps, levels=half)))

    def score(self, config: Config) -> dict[str, float]:
        """Figures of all images decoded with these settings."""
        results = list[Result]()
        for image_id, maps in self.maps:
            whole = replace(maps, levels=[fields.map(Tensor.float) for fields in maps.levels])
            results += coco_results(whole.decode(config), image_id)
        return score(self.truth, results)


def tune(
    model: Path,
    data: str | Path,
    output: Path,
    trials: int,
    seconds: float | None,
    images: str | Path | None,
    progress: Callable[[str], Progress[Any]],
    category: str | None = None,
) -> Tuning:
    """Choose settings of decode for a model, and write it with them.

    Two slices of the data set are drawn, half of each with masks where there are so many. The
    settings are searched on the maps of one, and judged on the other.

    Args:
        model: safetensors file of ours.
        data: data set, as for `find_data`; of images that nothing is to be shown on.
        output: safetensors file to write.
        trials: how many settings are tried, the model's own first.
        seconds: no further trial begins after so long; None = none is left out.
        images: folder or tar of the images; None = as the data set is laid out.
        progress: given a label, wraps items and their number.
        category: as for `read_annotations`.

    Raises:
        ModelFileError, AnnotationError, ImageError: which file, and why.
    """
    import optuna

    skeleton = SKELETONS[read_config(model).fields.skeleton]
    annotations, source = open_data(data, "train", skeleton, images=images, category=category)
    first, second = draw_slices(annotations)
    check_sizes(annotations.of(first + second), source)
    network, provenance = load_model(model)
    tuned = Slice(network, annotations.of(first), source, progress("maps"))
    held_out = Slice(network, annotations.of(second), source, progress("maps to check on"))
    before, held_before = tuned.score(network.config), held_out.score(network.config)
    if math.isnan(goal(before)):
        raise AnnotationError(
            f"'{annotations.path}': nobody in it can be scored: expected persons with masks, or "
            "with keypoints that num_keypoints counts"
        )

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=SEED)
    )
    own = {part.key: value_of(network.config, part.key) for part in RANGES}
    study.enqueue_trial(
        {part.key: min(max(own[part.key], part.low), part.high) for part in RANGES}
    )

    def objective(trial: optuna.Trial) -> float:
        values = {
            part.key: trial.suggest_float(part.key, part.low, part.high, log=part.log)
            for part in RANGES
        }
        return goal(tuned.score(with_values(network.config, values)))

    begun = time.monotonic()
    for _ in progress("trials")(range(trials), trials):
        study.optimize(objective, n_trials=1)
        if seconds is not None and time.monotonic() - begun > seconds:
            break
    best = {key: float(f"{value:.3g}") for key, value in study.best_params.items()}
    config = with_values(network.config, best)

    after, held_after = tuned.score(config), held_out.score(config)
    worth = []
    for key in progress("what each is worth")(best, len(best)):
        back = with_values(config, {key: own[key]})
        lost = (
            goal(after) - goal(tuned.score(back)),
            goal(held_after) - goal(held_out.score(back)),
        )
        worth.append(Worth(key, own[key], best[key], *lost))
    network.config, network.codec = config, Codec.of(config)
    told = {"data": Path(data).name, "trials": len(study.trials), "settings": best}
    save_model(network, output, {**provenance, "tuned": told})
    return Tuning(config, len(study.trials), before, after, held_before, held_after, tuple(worth))


def draw_slices(annotations: Annotations) -> tuple[list[int], list[int]]:
    """Ids of the images to tune on and of those to check on: half of them with masks.

    Raises:
        AnnotationError: fewer than two images, alike in whether there are masks, show somebody
            with keypoints.
    """
    rng = np.random.default_rng(SEED)
    useful = [image for image in annotations.images if any(p.labelled.any() for p in image.people)]
    order = [useful[index] for index in rng.permutation(len(useful))]
    masked = [image.id for image in order if any(p.segmentation for p in image.people)]
    known = set(masked)
    others = [image.id for image in order if image.id not in known]
    count = min(IMAGES, len(useful) // 2)
    half = min(max(count - len(others) // 2, count // 2), len(masked) // 2)
    rest = min(count - half, len(others) // 2)
    if not half + rest:
        raise AnnotationError(
            f"'{annotations.path}': expected two images or more of people with keypoints, with "
            f"masks or without, got {len(masked)} with and {len(others)} without"
        )
    return masked[:half] + others[:rest], masked[half : 2 * half] + others[rest : 2 * rest]


def goal(figures: dict[str, float]) -> float:
    """What is made the most of: the mean of those of `ROWS` that there are; NaN without any."""
    known = [figures[name] for name in ROWS if figures.get(name, -1) >= 0]
    return float(np.mean(known)) if known else math.nan


def value_of(config: Config, key: str) -> float:
    """The value of a setting."""
    section, name = key.split(".")
    return float(getattr(getattr(config, section), name))


def with_values(config: Config, values: dict[str, float]) -> Config:
    """The configuration with other values."""
    changes = [f"{key}={value}" for key, value in values.items()]
    return changed(config, changes, "tuned")
