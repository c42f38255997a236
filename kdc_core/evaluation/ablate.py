"""Ablations: the network (or the annotations) once per image, decoded under each setting."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdc_core.codec.codec import Codec
from kdc_core.codec.fields import Fields
from kdc_core.codec.grid import Letterbox
from kdc_core.codec.results import Prediction
from kdc_core.codec.skeleton import SKELETONS, Edges
from kdc_core.config import Config, ConfigError
from kdc_core.data.annotations import AnnotatedImage
from kdc_core.data.images import Images
from kdc_core.evaluation.coco import Result, coco_results, score
from kdc_core.evaluation.oracle import Oracle
from kdc_core.evaluation.run import FAILED, Progress, read_truth
from kdc_core.inference.assembly import Raw, Thresholds
from kdc_core.inference.predictor import find_people
from kdc_core.inference.program import as_raw, level_fields
from kdc_core.network.backbones import side_rule
from kdc_core.network.weights import load_model

# One prediction for each setting.
PredictAll = Callable[[AnnotatedImage], list[Prediction]]


@dataclass(frozen=True)
class Setting:
    """One row of an ablation: changes to a configuration, by section.

    Attributes:
        label: short name of the row.
        decode, fields, predict: changed settings of these sections.
        noise_px: standard deviation of noise on ground-truth offsets.
    """

    label: str
    decode: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    predict: dict[str, Any] = field(default_factory=dict)
    noise_px: float = 0.0

    def of(self, config: Config) -> Config:
        """The configuration with these changes."""
        changes = {"decode": self.decode, "fields": self.fields, "predict": self.predict}
        return config.model_copy(
            update={
                name: getattr(config, name).model_copy(update=change)
                for name, change in changes.items()
            }
        )


def _decode(key: str, values: Iterable[Any], **others: Any) -> list[Setting]:
    return [Setting(f"{value}", decode={key: value, **others}) for value in values]


CENTROIDS = ("static", "dynamic", "dynamic_multi", "personlab")
# On a network's maps; what varies is decode alone.
ON_MAPS = {
    "centroids": _decode("centroid", CENTROIDS),
    "sigma": _decode("sigma_scale", (0.15, 0.2, 0.25, 0.32, 0.4, 0.5)),
    "igo": _decode("igo_sigma_cells", (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0)),
    "kprime": _decode("centroids", (1, 2, 3, 5, 8, 12), centroid="dynamic_multi"),
    "phi_threshold": _decode("phi_threshold", (0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6)),
    "mask_threshold": [
        Setting(f"{t}", predict={"mask_threshold": t}) for t in (0.3, 0.4, 0.5, 0.6, 0.7)
    ],
    "mean_embedding": [
        Setting("without", decode={"mean_embedding": False}),
        Setting("equation 4", decode={"mean_embedding": True}),
    ],
    "edges": [
        Setting("tree", fields={"edges": ["tree"]}),
        Setting("star", fields={"edges": ["star"]}),
        Setting("both", fields={"edges": ["tree", "star"]}),
    ],
}
# On ground-truth maps: what the representation itself loses.
ON_TRUTH = {
    "radius": [Setting(f"{r} px", fields={"disk_radius_px": r}) for r in (8, 16, 24, 32)],
    "stride": [
        Setting(f"{s} px", fields={"stride": s, "grid_offset": (s - 1) / 2}) for s in (2, 4, 8, 16)
    ],
    "edges": ON_MAPS["edges"],
    "centroids": ON_MAPS["centroids"],
    "noise": [
        Setting(f"{centroid}, {px} px", decode={"centroid": centroid}, noise_px=px)
        for px in (0.0, 2.0, 4.0, 8.0)
        for centroid in CENTROIDS
    ],
}


@dataclass(frozen=True)
class Row:
    """A setting and its figures (`kdc_core.evaluation.coco.score`).

    Attributes:
        label: of the setting.
        figures: by name.
    """

    label: str
    figures: dict[str, float]


def ablate(
    name: str,
    annotations: str | Path,
    images: str | Path,
    source: Path | Config,
    progress: Progress,
) -> tuple[list[Row], list[str]]:
    """Decode every image under each setting of an ablation.

    Args:
        name: of ON_MAPS for a model, of ON_TRUTH for a configuration.
        annotations: COCO .json or .json.gz.
        images: folder or tar of the images; not read with ground-truth maps.
        source: a model file (.safetensors), or the configuration of ground-truth maps.
        progress: wraps the images and their number.

    Returns:
        One row per setting, and what could not be read.

    Raises:
        ConfigError: no such ablation, or one that the model has no maps for.
    """
    known = ON_TRUTH if isinstance(source, Config) else ON_MAPS
    if name not in known:
        raise ConfigError(f"no ablation '{name}' here: expected one of {', '.join(known)}")
    settings = known[name]
    predict: PredictAll
    if isinstance(source, Config):
        oracles = [Oracle(setting.of(source), setting.noise_px) for setting in settings]
        predict, config = (lambda annotated: [oracle(annotated) for oracle in oracles]), source
    else:
        predict, config = _on_maps(source, settings, Images(images))
    truth = read_truth(annotations, SKELETONS[config.fields.skeleton])
    results: list[list[Result]] = [[] for _ in settings]
    failed = []
    for annotated in progress(truth.images, len(truth.images)):
        try:
            for found, prediction in zip(results, predict(annotated), strict=True):
                found += coco_results(prediction, annotated.id)
        except FAILED as error:
            failed.append(f"{annotated.file_name}: {error}")
    scored = zip(settings, results, strict=True)
    return [Row(setting.label, score(truth, found)) for setting, found in scored], failed


def _on_maps(model: Path, settings: list[Setting], source: Images) -> tuple[PredictAll, Config]:
    """A function that runs a model's network once and decodes under each setting; its config."""
    network, _ = load_model(model)
    base, (multiple, _) = network.config, side_rule(network.config)
    configs = [setting.of(base) for setting in settings]
    for config in configs:
        if not set(config.fields.edges) <= set(base.fields.edges):
            raise ConfigError(
                f"'{model}' has edges {base.fields.edges}: this ablation needs a model with tree "
                "and star; without --model it runs on ground-truth maps"
            )

    def predict(annotated: AnnotatedImage) -> list[Prediction]:
        levels: list[Fields] = []  # of the network's one run

        def decode_as(config: Config) -> Callable[[np.ndarray, Letterbox], Raw]:
            codec = Codec.of(config)

            def raw_of(frame: np.ndarray, letterbox: Letterbox) -> Raw:
                with torch.inference_mode():
                    if not levels:
                        levels.extend(level_fields(network, torch.from_numpy(frame), multiple))
                    maps = [with_edges(f, network.codec.edges, codec.edges) for f in levels]
                    return as_raw(codec.decode(maps))

            return raw_of

        image = source.read(annotated.file_name)
        return [
            find_people(
                image,
                decode_as(config),
                config,
                Thresholds(0.0, 0.0, config.predict.mask_threshold, config.decode.people),
            )
            for config in configs
        ]

    return predict, base


def with_edges(fields: Fields, have: Edges, use: Edges) -> Fields:
    """Keep the mid-range offsets of some of the edges that Fields have."""
    if use == have:
        return fields
    return replace(fields, mid=fields.mid[:, [have.index(edge) for edge in use]])
