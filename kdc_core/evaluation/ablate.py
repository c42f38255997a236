"""Ablations: the network (or the annotations) once per image, decoded under each setting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, get_args

from torch import Tensor

from kdc_core.codec.codec import Codec
from kdc_core.codec.fields import Fields
from kdc_core.codec.results import Prediction
from kdc_core.codec.skeleton import SKELETONS, Edges
from kdc_core.config import CentroidRule, Config, ConfigError
from kdc_core.config_file import changed
from kdc_core.data.annotations import AnnotatedImage, Annotations, Progress
from kdc_core.data.images import Images
from kdc_core.evaluation.coco import score
from kdc_core.evaluation.maps import ImageMaps
from kdc_core.evaluation.oracle import Oracle
from kdc_core.evaluation.run import PredictMany, predict_each, read_truth
from kdc_core.network.weights import load_model, read_config


@dataclass(frozen=True)
class Setting:
    """One row of an ablation.

    Attributes:
        label: short name of the row.
        changes: to the configuration, `section.key=value` each.
        noise_px: standard deviation of noise on ground-truth offsets.
    """

    label: str
    changes: tuple[str, ...]
    noise_px: float = 0.0

    def of(self, config: Config) -> Config:
        """The configuration with these changes."""
        return changed(config, self.changes, self.label)


def _over(key: str, values: Iterable[str | float], *others: str) -> list[Setting]:
    return [Setting(f"{value}", (f"{key}={value}", *others)) for value in values]


KEYPOINTS_ALONE = ("decode.centroid=dynamic_multi", "decode.center_weight=0")
# On a network's maps; what varies is decode alone.
ON_MAPS = {
    "centroids": [
        *_over("decode.centroid", get_args(CentroidRule), "decode.center_weight=0"),
        Setting("center too", ("decode.centroid=dynamic_multi", "decode.center_weight=3")),
    ],
    "sigma": _over("decode.sigma_scale", (0.15, 0.2, 0.25, 0.32, 0.4, 0.5)),
    "igo": _over("decode.igo_sigma_cells", (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0)),
    "kprime": _over("decode.centroids", (1, 2, 3, 5, 8, 12), *KEYPOINTS_ALONE),
    "phi_threshold": _over("decode.phi_threshold", (0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6)),
    "mask_threshold": _over("predict.mask_threshold", (0.3, 0.4, 0.5, 0.6, 0.7)),
    "mean_embedding": [
        Setting("without", ("decode.mean_embedding=false",)),
        Setting("equation 4", ("decode.mean_embedding=true",)),
    ],
    "edges": [
        Setting("tree", ("fields.edges=[tree]",)),
        Setting("star", ("fields.edges=[star]",)),
        Setting("both", ("fields.edges=[tree, star]",)),
    ],
}
# On ground-truth maps: what the representation itself loses.
ON_TRUTH = {
    "radius": [Setting(f"{r} px", (f"fields.disk_radius_px={r}",)) for r in (8, 16, 24, 32)],
    "stride": [
        Setting(f"{s} px", (f"fields.stride={s}", f"fields.grid_offset={(s - 1) / 2}"))
        for s in (2, 4, 8, 16)
    ],
    "edges": ON_MAPS["edges"],
    "centroids": ON_MAPS["centroids"],
    "noise": [
        Setting(f"{centroid}, {px} px", (f"decode.centroid={centroid}",), px)
        for px in (0.0, 2.0, 4.0, 8.0)
        for centroid in get_args(CentroidRule)
    ],
}


@dataclass(frozen=True)
class Row:
    """A setting and what came of it.

    Attributes:
        label: of the setting.
        figures: of `kdc_core.evaluation.coco.score`.
    """

    label: str
    figures: dict[str, float]


class Ablation(NamedTuple):
    """What came of an ablation.

    Attributes:
        rows: one of each setting.
        failed: what could not be read.
        annotations: what was scored against.
    """

    rows: list[Row]
    failed: tuple[str, ...]
    annotations: Annotations


def ablate(
    name: str,
    annotations: str | Path,
    images: str | Path,
    source: Path | Config,
    progress: Progress,
    category: str | None = None,
) -> Ablation:
    """Decode every image under each setting of an ablation.

    Args:
        name: of ON_MAPS for a model, of ON_TRUTH for a configuration.
        annotations: COCO .json or .json.gz.
        images: folder or tar of the images; not read with ground-truth maps.
        source: a model file (.safetensors), or the configuration of ground-truth maps.
        progress: wraps the images and their number.
        category: as for `read_annotations`.

    Raises:
        AnnotationError: annotations that cannot be used, or are not of the images.
        ConfigError: no such ablation, or one that the model has no maps for.
    """
    known = ON_TRUTH if isinstance(source, Config) else ON_MAPS
    if name not in known:
        raise ConfigError(f"no ablation '{name}' here: expected one of {', '.join(known)}")
    config = source if isinstance(source, Config) else read_config(source)
    skeleton = SKELETONS[config.fields.skeleton]
    types = skeleton.num_types  # a person has no more centroids
    settings = [s for s in known[name] if s.of(config).decode.centroids <= types]
    if isinstance(source, Config):
        truth = read_truth(annotations, skeleton, category=category)
        predict = _on_truth(config, settings)
    else:
        files = Images(images)
        truth = read_truth(annotations, skeleton, images=files, category=category)
        predict = _on_maps(source, settings, files)
    results, failed = predict_each(truth, predict, len(settings), progress)
    scored = zip(settings, results, strict=True)
    rows = [Row(setting.label, score(truth, found)) for setting, found in scored]
    return Ablation(rows, failed, truth)


def _on_truth(config: Config, settings: list[Setting]) -> PredictMany:
    oracles = [Oracle(setting.of(config), setting.noise_px) for setting in settings]
    return lambda annotated: (oracle(annotated) for oracle in oracles)


def _on_maps(model: Path, settings: list[Setting], source: Images) -> PredictMany:
    """Each image is read, and the network run on it, once for all settings."""
    network, _ = load_model(model)
    have = network.config.fields.edges
    configs = [setting.of(network.config) for setting in settings]
    if not all(set(config.fields.edges) <= set(have) for config in configs):
        raise ConfigError(
            f"'{model}' has edges {have}: this ablation needs a model with tree and star; without "
            "--model it runs on ground-truth maps"
        )
    edges = [Codec.of(config).edges for config in configs]

    def predict(annotated: AnnotatedImage) -> Iterator[Prediction]:
        maps = ImageMaps.of(network, source.read(annotated.file_name))
        for config, use in zip(configs, edges, strict=True):
            levels = [with_edges(fields, network.codec.edges, use) for fields in maps.levels]
            yield replace(maps, levels=levels).decode(config)

    return predict


def with_edges(fields: Fields[Tensor], have: Edges, use: Edges) -> Fields[Tensor]:
    """Keep the mid-range offsets of some of the edges that Fields have."""
    if use == have:
        return fields
    return replace(fields, mid=fields.mid[:, [have.index(edge) for edge in use]])
