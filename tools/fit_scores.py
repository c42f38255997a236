#!/usr/bin/env python3
"""Find the powers by which `kdc_core.inference.assembly` makes scores of what speaks for a person.

By logistic regression of what a person's keypoints and mask earn in COCO's average precision.
Give images that the model has not learnt by heart, and never those that figures are told of.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import script
import typer
from scipy.optimize import minimize
from scipy.special import expit

from kdc_core.codec.codec import Codec
from kdc_core.codec.grid import Letterbox
from kdc_core.codec.results import Prediction
from kdc_core.codec.skeleton import COCO17
from kdc_core.data.annotations import AnnotatedImage, AnnotationError
from kdc_core.data.datasets import find_data
from kdc_core.data.images import Images
from kdc_core.evaluation.coco import coco_results
from kdc_core.evaluation.misses import COVER_FRACTION, Comparison, match_greedily
from kdc_core.evaluation.run import read_truth
from kdc_core.inference.assembly import SCORE_POWERS, Evidence, Raw, weigh
from kdc_core.inference.predictor import Predictor, find_people
from kdc_core.inference.runtimes.protocol import submit_frame
from kdc_core.show.progress import track

# COCO's thresholds of OKS and IoU: what share of them somebody passes is what he earns.
THRESHOLDS = np.arange(0.5, 1.0, 0.05)
# Below this score there are so many that they would decide alone.
LEAST_SCORE = 0.2
# Whose mask overlaps that of a person without keypoints so much is no false pose.
NOT_FALSE = 0.3


def people_of(predictor: Predictor, image: np.ndarray) -> tuple[Prediction, np.ndarray]:
    """The people of an image in order, and what speaks for each, (n, factors)."""
    config, raws = predictor.config, list[Raw]()

    def raw_of(frame: np.ndarray, _: Letterbox) -> Raw:
        raws.append(submit_frame(predictor.runtime, frame).collect())
        return raws[0]

    prediction = find_people(image, raw_of, config, predictor.thresholds)
    grid, threshold = Codec.of(config).mask_grid, config.predict.mask_threshold
    evidence = Evidence.of(raws[0], grid, threshold)
    order = np.argsort(-weigh(evidence, SCORE_POWERS), kind="stable")[: len(prediction.persons)]
    return prediction, np.stack(evidence, 1)[order]


def earned(prediction: Prediction, annotated: AnnotatedImage) -> tuple[np.ndarray, np.ndarray]:
    """What the keypoints and the mask of each person earn: (n, 2), and which count, (n, 2)."""
    results = coco_results(prediction, annotated.id)
    count = len(results)
    compared = Comparison(annotated, list(range(count)), results, COCO17)
    share, counts = np.zeros((count, 2)), np.ones((count, 2), bool)
    unknown = compared.unknown_iou.max(1, initial=0) if count else np.zeros(0)
    masks = np.concatenate((compared.iou, compared.unknown_iou), 1)
    for column, values in enumerate((compared.oks, masks)):
        for row, truth in match_greedily(values, THRESHOLDS[0]).items():
            share[row, column] = (values[row, truth] >= THRESHOLDS).mean()
    counts[:, 0] = (share[:, 0] > 0) | (unknown < NOT_FALSE)
    counts[compared.in_crowd >= COVER_FRACTION] = False
    return share, counts


def fit(factors: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Powers (n,) of factors (m, n) that tell best what is earned, (m,)."""
    logs = np.log(factors)
    spread = logs.std(0)

    def loss(values: np.ndarray) -> float:
        passes = expit(logs / spread @ values[:-1] + values[-1]).clip(1e-9, 1 - 1e-9)
        entropy = -(share * np.log(passes) + (1 - share) * np.log1p(-passes)).mean()
        return float(entropy + 1e-4 * np.square(values[:-1]).sum())

    powers: np.ndarray = minimize(loss, np.zeros(factors.shape[1] + 1)).x[:-1] / spread
    return powers


def main(
    model: Annotated[str, typer.Argument(help="Shipped model or .onnx file.")],
    data: Annotated[str, typer.Argument(help="Data set with keypoints and masks.")],
) -> None:
    """Print the powers, and those of the score where as many people as now pass one half."""
    predictor = Predictor.from_pretrained(model, "onnxruntime", confidence=0.0, keypoint=0.0)
    file, images = find_data(data, "train")
    store, annotations = Images(images), read_truth(file)
    everything = []
    for annotated in track(annotations.images, len(annotations.images), "images"):
        prediction, factors = people_of(predictor, store.read(annotated.file_name))
        score = np.array([person.score for person in prediction.persons])
        everything.append((factors, score, *earned(prediction, annotated)))
    factors, score, share, counts = (
        np.concatenate(part) for part in zip(*everything, strict=True)
    )
    good = score > LEAST_SCORE
    if not good.any():
        raise AnnotationError(f"nobody is found in '{data}'")
    pose, mask = (fit(factors[use := good & counts[:, i]], share[use, i]) for i in (0, 1))
    # Ranks do not change with a power of the whole; one half is where it was.
    product = np.exp(np.log(factors) @ pose)
    half = np.sort(product)[-int((score >= 0.5).sum())]
    pose = pose * np.log(0.5) / np.log(half)
    for name, powers in (("SCORE_POWERS", pose), ("MASK_SCORE_POWERS", mask)):
        print(f"{name} = ({', '.join(f'{p:.2f}' for p in powers)})")


if __name__ == "__main__":
    script.run(main)
