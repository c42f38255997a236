"""From what a user names to what is evaluated: a function from image to people."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from kdc_core.errors import KdcError
from kdc_core.show.progress import track

if TYPE_CHECKING:
    from kdc_core.codec.results import Prediction
    from kdc_core.codec.skeleton import Skeleton
    from kdc_core.config import Config
    from kdc_core.data.annotations import AnnotatedImage
    from kdc_core.data.images import Images
    from kdc_core.evaluation.run import EvaluationResult
    from kdc_core.inference.predictor import Predictor
    from kdc_core.inference.rotate import Degrees


class Candidate(NamedTuple):
    """What is to be evaluated.

    Attributes:
        name: for titles.
        config: of the model.
        predict: from an annotated image to its people, without a threshold on confidence; loads
            the model when it is called first, after the annotations have been found good.
        images: that are read; None = none are.
    """

    name: str
    config: Config
    predict: Callable[[AnnotatedImage], Prediction]
    images: Images | None = None

    @property
    def skeleton(self) -> Skeleton:
        """The keypoints it predicts."""
        from kdc_core.codec.skeleton import SKELETONS

        return SKELETONS[self.config.fields.skeleton]

    def evaluate(
        self,
        annotations: Path,
        label: str,
        subset: str = "all",
        pose2seg: bool = False,
        category: str | None = None,
    ) -> EvaluationResult:
        """Predict and score the images of a file, with a bar of progress.

        Args:
            annotations: the file.
            label: of the bar.
            subset: as for `read_truth`.
            pose2seg: by Pose2Seg's protocol; the keypoints must be given.
            category: as for `read_annotations`.
        """
        from kdc_core.evaluation.run import evaluate, evaluate_pose2seg, read_truth

        truth = read_truth(annotations, self.skeleton, subset, self.images, category)
        run = evaluate_pose2seg if pose2seg else evaluate
        return run(truth, self.predict, partial(track, label=label))


def by_predictor(
    model: str,
    images: Images,
    runtime: str = "auto",
    device: str = "auto",
    seconds: list[float] | None = None,
    rotate: int = 0,
) -> Candidate:
    """A model as users run it; what each image took, reading it included, goes to `seconds`."""

    @cache
    def run() -> Predictor:
        from kdc_core.inference.predictor import Predictor, evaluation_thresholds

        found = Predictor.from_pretrained(model, runtime, device)
        found.thresholds = evaluation_thresholds(found.config)
        found.rotate = cast("Degrees", rotate)
        return found

    def predict(annotated: AnnotatedImage) -> Prediction:
        predictor = run()
        begun = time.perf_counter()
        prediction = predictor(images.read(annotated.file_name))
        if seconds is not None:
            seconds.append(time.perf_counter() - begun)
        return prediction

    config = config_of(model)
    return Candidate(config.name, config, predict, images)


def by_test_time(
    model: str,
    images: Images,
    scales: list[int] | None = None,
    flip: bool = False,
    given: bool = False,
    rotate: int = 0,
) -> Candidate:
    """A model by torch: mirrored, at several scales or with keypoints given."""
    from kdc_core.evaluation.testtime import AugmentedPredictor
    from kdc_core.inference.rotate import rotate_back, rotate_image

    weights = weights_of(model)
    config = config_of(str(weights))
    run = cache(lambda: AugmentedPredictor(weights, scales, flip, given))
    name = config.name
    name += ", at " + ",".join(map(str, scales)) if scales else ""
    name += ", flip" * flip + ", given keypoints" * given
    degrees = cast("Degrees", rotate)

    def predict(annotated: AnnotatedImage) -> Prediction:
        image = rotate_image(images.read(annotated.file_name), degrees)
        return rotate_back(run()(image, annotated), degrees)

    return Candidate(name, config, predict, images)


def by_oracle(preset: str) -> Candidate:
    """The annotations themselves, encoded and decoded with the settings of a preset."""
    from kdc_core.config_file import load_preset
    from kdc_core.evaluation.oracle import Oracle

    config = load_preset(preset)
    return Candidate(f"oracle ({preset})", config, Oracle(config))


def config_of(model: str) -> Config:
    """Configuration of a model, which is not loaded for it."""
    from kdc_core.inference.manifest import read_manifest
    from kdc_core.inference.model_files import find_model

    path = find_model(model, (".onnx", ".safetensors"))
    if path.suffix == ".onnx":
        return read_manifest(path).config
    from kdc_core.network.weights import read_config

    return read_config(path)


def weights_of(model: str) -> Path:
    """The .safetensors file of a model, for what runs by torch.

    Raises:
        KdcError: there is none, or an .onnx file is named.
    """
    from kdc_core.inference.model_files import find_model

    path = find_model(model, (".safetensors",))
    if path.suffix == ".onnx":
        raise KdcError(
            f"'{path}' is a program for other runtimes: expected the .safetensors file that it "
            "was exported from, which torch runs"
        )
    return path
