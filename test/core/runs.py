"""Small training runs in this process: what they start from, and what they leave."""

from __future__ import annotations

import csv
from pathlib import Path

import torch

from kdc_core.config import Config
from kdc_core.config_file import parse_config
from kdc_core.inference.model_files import find_model
from kdc_core.network.kdc import KDC
from kdc_core.network.weights import load_model, save_model
from kdc_core.training import run

from .conftest import SAMPLES

PRESET = """
name: small
fields: {edges: [star_out], disk_radius_px: 16.0}
network: {segnet_width: 16, segnet_tower: 16, segnet_depth: 1}
decode: {seeds: 16}
predict: {longer_side: 256}
train: {crop: 128, longer_side: [160, 320], batch: 2, steps: 6, warmup_steps: 1, workers: 0}
"""


def small(*changes: str) -> Config:
    """The configuration of six steps, an epoch and a half, of a small SegNet."""
    return parse_config(PRESET, "small", list(changes))


def make_start(folder: Path) -> Path:
    """Weights to start from: the shipped trunk with a small SegNet."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = KDC(small())
    shipped, _ = load_model(find_model("kdc_light", (".safetensors",)))
    network.posenet.load_state_dict(shipped.posenet.state_dict())
    save_model(network, folder / "start.safetensors", {})
    return folder / "start.safetensors"


def train(
    start: Path | None,
    output: Path,
    *changes: str,
    config: Config | None = None,
    data: Path = SAMPLES,
    val: Path | None = None,
    max_seconds: float | None = None,
) -> Path:
    """Train `config`, by default `small`, in one thread; return the folder of the run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run.train(
            config or small(*changes),
            [str(data)],
            output,
            str(start) if start else None,
            str(val) if val else None,
            max_seconds,
            lock_seconds=0.0,
        )
    finally:
        torch.set_num_threads(threads)
    return output


def command(folder: Path, start: Path, output: Path, *more: str) -> list[str]:
    """Arguments of `kdc` for what `train` does; `folder` takes the preset."""
    (folder / "small.yaml").write_text(PRESET)
    arguments = ["train", folder / "small.yaml", "--data", SAMPLES, "--start", start]
    return [*map(str, arguments), "--output", str(output), "--threads", "1", *more]


def rows(output: Path) -> list[dict[str, str]]:
    """The table of metrics of a run."""
    with open(output / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def losses(output: Path) -> dict[int, float]:
    """Loss by step."""
    return {int(row["step"]): float(row["loss"]) for row in rows(output)}


def figures(output: Path) -> dict[int, str]:
    """Keypoint AP by step, of the steps that were evaluated."""
    return {int(row["step"]): row["keypoint_ap"] for row in rows(output) if row["keypoint_ap"]}
