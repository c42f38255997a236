"""Configurations from text: presets, YAML files, and what model files carry."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from reprlib import repr as short_repr

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from kdc_core.config import Config, ConfigError

PRESETS = Path(__file__).parent / "presets"
FILES = (".yaml", ".yml", ".json")


def load_preset(name: str, changes: list[str] | None = None) -> Config:
    """Read a preset by name, or a file by path, which may be a run's `config.json`.

    `changes` as for `parse_config`.
    """
    path = Path(name) if name.endswith(FILES) else PRESETS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
        raise ConfigError(
            f"no preset '{name}'; expected one of {known}, or a .yaml, .yml or .json file"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    return parse_config(text, path, changes)


def parse_config(text: str, origin: str | Path, changes: list[str] | None = None) -> Config:
    """Read a configuration from YAML or JSON text.

    Args:
        text: the configuration.
        origin: where it comes from, for messages.
        changes: `section.key=value` each, the value as YAML; put in before checking.

    Raises:
        ConfigError: unknown keys, wrong types or values out of range, each named.
    """
    blamed = f"{origin}{f' with {short_repr(changes)}' if changes else ''}"
    try:
        content: object = yaml.safe_load(text)
        for change in changes or []:
            _set(content, change)
        _refuse_steps_beside_epochs(content, origin, changes or [])
        return Config.model_validate(content)
    except ConfigError:
        raise
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin}: not YAML: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{origin}: nested too deep") from error
    except ValidationError as error:
        faults = [
            f"{what_is_wrong(one)}, got {short_repr(one['input']):.60}" for one in error.errors()
        ]
        raise ConfigError(f"{blamed}: {'; '.join(faults)}") from error
    except ValueError as error:  # what looks like a date or a number, and is none
        raise ConfigError(f"{origin}: not YAML: {error}") from error


def changed(config: Config, changes: Sequence[str], origin: str) -> Config:
    """A configuration with changes put in, as `parse_config` takes them and raises."""
    return parse_config(config.model_dump_json(), origin, list(changes))


def what_is_wrong(error: ErrorDetails) -> str:
    """A setting, and what pydantic finds wrong with it."""
    place = ".".join(map(str, error["loc"])) or "top level"
    if error["type"] != "extra_forbidden":
        return f"{place}: {error['msg']}"
    near = get_close_matches(place, _settings(), 1)  # of a setting that somebody wrote
    hint = f" (`{near[0]}`?)" if near else ""
    return f"{place}: no such setting in this version of KDC{hint}"


def _settings() -> list[str]:
    """Every setting, as `section.key`, and every section."""
    sections = {name: field.annotation for name, field in Config.model_fields.items()}
    return list(sections) + [
        f"{name}.{key}"
        for name, section in sections.items()
        for key in getattr(section, "model_fields", ())
    ]


def keypoints_of(provenance: object) -> str:
    """For a message: the keypoints of a model of another skeleton, "" where it names none."""
    names = provenance.get("keypoints") if isinstance(provenance, dict) else None
    if not isinstance(names, list):
        return ""
    return f". Its keypoints: {', '.join(f'{name:.40}' for name in map(str, names[:100]))}"


def _set(content: object, change: str) -> None:
    path, equals, value = change.partition("=")
    *sections, key = path.strip().split(".")
    if not equals or not key:
        raise ConfigError(f"expected KEY=VALUE, for example train.batch=4, got '{change}'")
    for section in sections:
        if isinstance(content, dict):
            content = content.setdefault(section, {})
    if not isinstance(content, dict):
        raise ConfigError(f"'{path}' is not a setting: '{path.rpartition('.')[0]}' has no keys")
    try:
        content[key] = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"--set {change:.100}: the value is not YAML: {error}") from error


def _refuse_steps_beside_epochs(content: object, origin: str | Path, changes: list[str]) -> None:
    """Refuse a number of steps that would have no effect."""
    given = {change.partition("=")[0].strip() for change in changes}
    train = content.get("train") if isinstance(content, dict) else None
    epochs = train.get("epochs") if isinstance(train, dict) else None
    if "train.steps" in given and epochs is not None:
        raise ConfigError(
            f"{origin}: train.steps has no effect beside train.epochs={epochs}: change that, or "
            "set train.epochs=null too"
        )
