"""The folder of a run: one run at a time, always the same one, gone on with where it stopped."""

from __future__ import annotations

import fcntl
import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from kdc_core.config import Config, ConfigError
from kdc_core.config_file import parse_config
from kdc_core.files import read_json
from kdc_core.training.processes import rank

# The loader processes of a run that was killed hold its lock for a few seconds more.
LOCK_SECONDS = 8.0


@contextmanager
def only_run(folder: Path, lock_seconds: float) -> Iterator[None]:
    """Keep a second run out of the folder."""
    until = time.monotonic() + lock_seconds
    with open(folder / "lock", "w") as lock:
        while rank() == 0:  # of a torchrun the first process holds the lock
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() > until:
                    raise ConfigError(f"another run is training in '{folder}'") from error
                time.sleep(0.2)
        yield


def check_same_run(config: Config, inputs: dict[str, Any], folder: Path) -> None:
    """Raise ConfigError if the folder holds another run."""
    settings, made_from = folder / "config.json", folder / "inputs.json"
    if settings.exists():
        known = parse_config(settings.read_text(), settings)
        if differences := _differences(config, known):
            raise ConfigError(
                f"'{folder}' holds a run with another configuration ('{settings}', which differs "
                f"in {differences}): give the same preset and settings to go on, or another "
                f"--output, with --start '{folder / 'model.safetensors'}' to go on from its model"
            )
    if not made_from.exists():
        return
    known_inputs: dict[str, Any] = read_json(made_from, {})
    if not known_inputs:
        raise ConfigError(f"'{made_from}' is damaged: delete it to go on, or give another folder")
    # A run of an earlier version has no checksums.
    checked = {key for key in inputs if key in known_inputs or not key.endswith("crc32")}
    keys = sorted(checked | set(known_inputs))
    differ = [key for key in keys if known_inputs.get(key) != inputs.get(key)]
    if differ:
        raise ConfigError(
            f"'{folder}' holds a run from other weights or data ('{made_from}', which differs in "
            f"{', '.join(differ)}): give the same to go on, or another --output to start anew"
        )


def _differences(one: Config, other: Config) -> str:
    """The settings that matter to training and in which two configurations differ."""
    a, b = one.model_dump(), other.model_dump()
    keys = [(s, key) for s in ("fields", "network", "train") for key in a[s]]
    # Of decode the instance loss uses sigma, and the loss of the score map tau.
    keys += [("decode", key) for key in ("sigma_scale", "sigma_min_px", "score_tau_px")]
    names = [
        f"{s}.{key}, {b[s][key]!r:.40} there and {a[s][key]!r:.40} asked for"
        for s, key in keys
        if a[s][key] != b[s][key]
    ]
    return "; ".join(names + (["name"] if one.name != other.name else []))


def check_nothing_lost(folder: Path) -> None:
    """Raise ConfigError where a model would be overwritten by one that begins anew."""
    model, checkpoint = folder / "model.safetensors", folder / "last.ckpt"
    if model.exists() and not checkpoint.exists():
        raise ConfigError(
            f"'{model}' is there, and no '{checkpoint.name}' to go on from: give another "
            f"--output, with --start '{model}' to go on from it, or delete it to start anew here"
        )


def step_of(checkpoint: Path) -> int:
    """The step a checkpoint was written at; 0 without one."""
    if not checkpoint.exists():
        return 0
    try:
        state = torch.load(checkpoint, weights_only=True, mmap=True, map_location="cpu")
        if "averaging_state" in state:
            return int(state["global_step"])
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError):
        pass
    raise ConfigError(
        f"'{checkpoint}' is damaged or not of this version: give another --output, with --start "
        f"'{checkpoint.with_name('model.safetensors')}' if that is there, or delete all of "
        f"'{checkpoint.parent}' to start anew here"
    )
