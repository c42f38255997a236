"""What limits a model: the truth in the place of one of its maps after the other.

The truth stands where it is known, as in training: not in crowds, and for a person's pixels not in
the offsets to keypoints that are not annotated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdc_core.codec.decode import as_logits
from kdc_core.codec.encode import encode
from kdc_core.codec.fields import Fields
from kdc_core.codec.grouping import Poses
from kdc_core.codec.person_map import near_edge
from kdc_core.codec.results import Prediction
from kdc_core.codec.skeleton import SKELETONS
from kdc_core.data.annotations import AnnotatedImage, Progress
from kdc_core.data.augment import warp
from kdc_core.data.images import Images
from kdc_core.data.sample import make_sample
from kdc_core.evaluation.ablate import Ablation, Row
from kdc_core.evaluation.coco import score
from kdc_core.evaluation.maps import ImageMaps
from kdc_core.evaluation.oracle import Oracle
from kdc_core.evaluation.run import predict_each, read_truth
from kdc_core.evaluation.testtime import annotated_points, given_poses
from kdc_core.inference.program import reduce
from kdc_core.network.backbones import side_rule
from kdc_core.network.kdc import KDC
from kdc_core.network.weights import load_model, read_config


@dataclass(frozen=True)
class Truth:
    """What of the truth takes the place of what the model says.

    Attributes:
        label: of the row.
        maps: names of Fields.
        center_only: of the heatmaps that of the body center alone.
        edge_cells: of the person map only cells that lie so near to an edge of it; None = all.
        poses: the annotated keypoints are the poses, and the maps give the masks alone.
    """

    label: str
    maps: tuple[str, ...] = ()
    center_only: bool = False
    edge_cells: int | None = None
    poses: bool = False


TRUTHS = (
    Truth("none"),
    Truth("poses", poses=True),
    Truth("center heatmap", ("heat",), center_only=True),
    Truth("mid-range offsets", ("mid",)),
    Truth("heatmaps", ("heat",)),
    Truth("short-range offsets", ("short",)),
    Truth("heatmaps and short-range offsets", ("heat", "short")),
    Truth("embedding", ("embedding",)),
    Truth("person map, 1 cell about edges", ("mask",), edge_cells=1),
    Truth("person map, 2 cells about edges", ("mask",), edge_cells=2),
    Truth("person map", ("mask",)),
    Truth("person map and embedding", ("mask", "embedding")),
)
ORACLE = "all (oracle)"


@dataclass(frozen=True)
class Maps:
    """What is known of one image.

    Attributes:
        model: what the network says.
        truth: the encoded annotations, as logits, at each level of the model's pyramid.
        known: where they say something (the weights of `encode`).
        poses: the annotated keypoints.
    """

    model: ImageMaps
    truth: list[Fields[Tensor]]
    known: list[Fields[Tensor]]
    poses: Poses


def limits(
    model: Path,
    annotations: str | Path,
    images: str | Path,
    progress: Progress,
    category: str | None = None,
) -> Ablation:
    """Score a model with the truth in the place of each of TRUTHS; the oracle is the last row.

    Args:
        model: safetensors file of ours.
        annotations: COCO .json or .json.gz.
        images: folder or tar of the images.
        progress: wraps the images and their number.
        category: as for `read_annotations`.

    Raises:
        ModelFileError, AnnotationError, ImageError: which file, and why.
    """
    config, source = read_config(model), Images(images)
    skeleton = SKELETONS[config.fields.skeleton]
    truth = read_truth(annotations, skeleton, images=source, category=category)
    network, _ = load_model(model)
    oracle = Oracle(config)

    def predict(annotated: AnnotatedImage) -> Iterator[Prediction]:
        maps = maps_and_truth(network, source.read(annotated.file_name), annotated)
        for part in TRUTHS:
            levels = zip(maps.model.levels, maps.truth, maps.known, strict=True)
            mixed = replace(maps.model, levels=[with_truth(part, *level) for level in levels])
            yield mixed.decode(config, maps.poses if part.poses else None)
        yield oracle(annotated)

    results, failed = predict_each(truth, predict, len(TRUTHS) + 1, progress)
    labels = [*(part.label for part in TRUTHS), ORACLE]
    scored = zip(labels, results, strict=True)
    return Ablation([Row(label, score(truth, found)) for label, found in scored], failed, truth)


def maps_and_truth(network: KDC, image: np.ndarray, annotated: AnnotatedImage) -> Maps:
    """Run the network on an image, and encode its annotations for the same levels.

    Args:
        network: in evaluation mode.
        image: (height, width, 3) uint8.
        annotated: people of the image.
    """
    codec, multiple = network.codec, side_rule(network.config).multiple
    model = ImageMaps.of(network, image)
    letterbox = model.letterbox
    sample = make_sample(image, annotated, codec.skeleton.num_keypoints)
    truth, known = [], []
    blank = torch.zeros(1, 1, *letterbox.size)  # reduced, it has the size of a level
    for level in codec.levels:
        reduced = reduce(blank, level, multiple)
        size = (reduced.shape[2], reduced.shape[3])
        seen = warp(sample, letterbox.matrix(level.lattice), size, None)
        targets, weights, _ = encode(seen, codec)
        # A plateau has no peak, unless the short-range offsets are the truth's, too.
        square = np.square(targets.short).sum(2) / codec.settings.score_tau_px**2
        targets.heat = targets.heat * np.exp(-0.5 * square)
        truth.append(as_logits(targets))
        known.append(weights.map(torch.from_numpy))
    points = annotated_points(annotated, codec.skeleton)
    points[..., :2] = letterbox.to_network(points[..., :2])
    return Maps(model, truth, known, given_poses(points, network.config.decode.people))


def with_truth(
    part: Truth, model: Fields[Tensor], truth: Fields[Tensor], known: Fields[Tensor]
) -> Fields[Tensor]:
    """The model's maps, with the truth in the place of some, where its weight is not 0."""
    maps = dict(model.items())
    for name in part.maps:
        there = getattr(known, name) > 0
        if part.center_only:
            there[:, :-1] = False
        if part.edge_cells is not None:
            there &= near_edge(truth.mask > 0, part.edge_cells * truth.mask_fineness)
        maps[name] = torch.where(there, getattr(truth, name), maps[name])
    return Fields(**maps)
