"""Model files: safetensors with fp16 values, configuration and provenance inside."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from kdc_core.config import Config, ConfigError
from kdc_core.config_file import keypoints_of, parse_config
from kdc_core.errors import KdcError
from kdc_core.files import whole_file
from kdc_core.network.kdc import KDC

FORMAT = "kdc-model-1"
FAULTS = 3  # of a state that does not fit, which a message names


class ModelFileError(KdcError):
    """A model file that cannot be used; the text says what was expected and what to do."""


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata of a safetensors file; never executes anything in it.

    Raises:
        ModelFileError: missing, truncated, pickled or otherwise not safetensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"no model file '{path}'")
    try:
        with safe_open(path, framework="pt") as file:
            return {k: file.get_tensor(k) for k in file.keys()}, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        hint = ""
        with open(path, "rb") as file:
            start = file.read(4)
        if start[:2] == b"PK" or start[:1] == b"\x80":
            hint = "; it looks pickled, which is never loaded: convert it to safetensors first"
        raise ModelFileError(
            f"'{path}' is not a complete safetensors file: {error}{hint}"
        ) from error


def save_model(network: KDC, path: str | os.PathLike[str], provenance: dict[str, Any]) -> None:
    """Write weights (fp16), configuration and provenance, whole or not at all."""
    state = {k: v.detach().to("cpu").contiguous() for k, v in network.state_dict().items()}
    state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    metadata = {
        "format": FORMAT,
        "config": network.config.model_dump_json(),
        # Named, so that a program that does not know the skeleton can say what it is.
        "provenance": json.dumps(provenance | {"keypoints": network.codec.skeleton.keypoints}),
    }
    with whole_file(path) as part:
        part.write_bytes(save(state, metadata))


def load_model(path: str | os.PathLike[str]) -> tuple[KDC, dict[str, Any]]:
    """Build the network a model file describes, in evaluation mode, float32.

    Returns:
        network, provenance.

    Raises:
        ModelFileError: not a model file of ours, or its tensors do not fit its configuration.
    """
    state, metadata = read_tensors(path)
    try:
        network = KDC(_config(metadata, path))
        network.load_state_dict(_float32(state))
    except (ConfigError, RuntimeError) as error:
        raise ModelFileError(f"'{path}' does not fit its own configuration: {error}") from error
    for name, values in network.state_dict().items():
        if not values.isfinite().all():
            raise ModelFileError(f"'{path}': '{name}' has weights that are NaN or infinite")
    return network.eval(), _provenance(metadata, path)


def read_config(path: str | os.PathLike[str]) -> Config:
    """Configuration of a model file, without the network.

    Raises:
        ModelFileError: not a model file of ours.
    """
    _, metadata = read_tensors(path)
    try:
        return _config(metadata, path)
    except ConfigError as error:
        raise ModelFileError(f"'{path}' has no configuration of this version: {error}") from error


def _provenance(metadata: dict[str, str], path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        provenance = json.loads(metadata.get("provenance", "{}"))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"'{path}': its provenance is not JSON: {error!s:.200}") from error
    if not isinstance(provenance, dict):
        raise ModelFileError(f"'{path}': expected an object as provenance, got {provenance!r:.60}")
    return provenance


def _config(metadata: dict[str, str], path: str | os.PathLike[str]) -> Config:
    if metadata.get("format") != FORMAT:
        raise ModelFileError(
            f"'{path}' is not a KDC model: expected the metadata entry format={FORMAT}, got "
            f"{metadata.get('format', 'none')}; `kdc train --start` takes MoveNet's weights"
        )
    try:
        return parse_config(metadata.get("config", ""), f"'{path}'")
    except ConfigError as error:
        if "fields.skeleton" not in str(error):
            raise
        try:
            keypoints = keypoints_of(_provenance(metadata, path))
        except ModelFileError:
            keypoints = ""
        raise ConfigError(f"{error}{keypoints}") from error


def start_from(config: Config, path: str | os.PathLike[str]) -> KDC:
    """Build a network for training from a model of ours or from a backbone's published weights.

    Those are MoveNet's for a MoveNet, and ImageNet's with torchvision's or timm's names for a
    ResNet. A model of ours may have more or fewer blocks in SegNet's tower, and may lack its other
    parts (`SegNet.fit`).

    Raises:
        ModelFileError: the file is neither, or does not fit the configuration.
    """
    state, metadata = read_tensors(path)
    network = KDC(config)
    try:
        if metadata.get("format") == FORMAT:
            network.load_state_dict(network.segnet.fit(_float32(state)))
        else:
            network.posenet.load_state_dict(network.posenet.from_published(state))
    except (RuntimeError, ValueError, KeyError) as error:
        raise ModelFileError(
            f"cannot start '{config.name}' from '{path}': {_first_of(str(error))}"
        ) from error
    return network


def _first_of(faults: str) -> str:
    """What torch says of a state that does not fit, a line for each tensor: the first few."""
    head, *rest = (line.strip() for line in faults.splitlines())
    if not rest:
        return head
    more = f" (and {len(rest) - FAULTS} more)" if len(rest) > FAULTS else ""
    return f"{head} {' '.join(rest[:FAULTS])}{more}. Its network and skeleton must be the preset's"


def _float32(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
