"""Configurations: presets load, faults are named."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kdc_core.config import (
    Config,
    ConfigError,
    DecodeConfig,
    FieldsConfig,
    NetworkConfig,
    PredictConfig,
    Section,
    TrainConfig,
)
from kdc_core.config_file import PRESETS, load_preset, parse_config

SECTIONS: dict[str, type[Section]] = {
    "fields": FieldsConfig,
    "network": NetworkConfig,
    "decode": DecodeConfig,
    "predict": PredictConfig,
    "train": TrainConfig,
}


def test_every_setting_is_described() -> None:
    assert {"name", *SECTIONS} == set(Config.model_fields)
    models: list[type[Section]] = [Config, *SECTIONS.values()]
    for section in models:
        for key, setting in section.model_fields.items():
            assert setting.description, f"{section.__name__}.{key} has no description"


@pytest.mark.parametrize("preset", sorted(p.stem for p in PRESETS.glob("*.yaml")))
def test_presets_load_and_carry_their_name(preset: str) -> None:
    config = load_preset(preset)
    assert config.name == preset
    assert parse_config(config.model_dump_json(), "again") == config


@pytest.mark.parametrize("preset", sorted(p.stem for p in PRESETS.glob("*.yaml")))
def test_presets_leave_nothing_to_defaults(preset: str) -> None:
    """A reader finds the whole model in its file; `oracle` is fields alone."""
    content = yaml.safe_load((PRESETS / f"{preset}.yaml").read_text())
    for section in {"fields"} if preset == "oracle" else set(SECTIONS):
        known = set(SECTIONS[section].model_fields)
        unused = {"steps", "epochs"} if section == "train" else set()
        assert known - unused <= set(content[section]) <= known, section
        assert len(unused & set(content[section])) == (section == "train")


def test_precision_may_look_like_a_number() -> None:
    assert load_preset("kdc_light", ["train.precision=16"]).train.precision == "16"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name: a\ntrian: {}", "trian: no such setting in this version of KDC"),
        ("name: a\ntrain: {steps: 0}", "train.steps: Input should be greater"),
        ("name: a\nfields: {edges: [ring]}", "fields.edges.0"),
        ("name: Bad Name", "name: String should match"),
        (
            "name: a\ndecode: {keypoint_seed_weight: 0, center_seed_weight: 0}",
            "decode: .*one must be above 0",
        ),
        ("name: [", "not YAML"),
        ("name: a\ntrain: {epochs: .inf}", "train.epochs: Input should be a finite number"),
        ("name: a\nnetwork: {segnet_depth: 1000000000}", "less than or equal to 64"),
        ("[" * 5000, "nested too deep"),
        ("- 1", "top level"),
        ("name: a\ntrain: {seed: 2026-13-45}", "not YAML: month must be in"),
        ("name: a\ntrain: {seed: 20261129104500}", "train.seed: Input should be less"),
        (f"name: a\ntrain: {{steps: {10**26}}}", "train.steps: Input should be less"),
        (f"name: a\ntrain: {{batch: {10**12}}}", "train.batch: Input should be less"),
        ("name: a\ntrain: {rate: 1e+300}", "train.rate: Input should be less"),
        ("name: a\ntrain: {crop: 1000000000}", "train.crop: Input should be less"),
        (
            "name: a\ndecode: {igo_sigma_cells: 1.0e+9}",
            "decode.igo_sigma_cells: Input",
        ),
        ("name: a\ndecode: {sigma_min_px: 1.0e-320}", "decode.sigma_min_px: Input should be gr"),
    ],
)
def test_faults_are_named(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        parse_config(text, "preset.yaml")


def test_a_value_that_is_huge_when_written_out_is_cut() -> None:
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    text = "\n".join(["name: a", "a0: &a0 [x]", *levels])
    with pytest.raises(ConfigError, match="a11: no such setting in this version of KDC, got"):
        parse_config(text, "preset.yaml")


def test_an_unknown_preset_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match="kdc_light"):
        load_preset("kdc_heavy")


def test_a_yaml_file_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\ntrain: {steps: 5}\n")
    assert load_preset(str(tmp_path / "mine.yaml")).train.steps == 5
    (tmp_path / "mine.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(ConfigError, match="mine.yaml: not YAML: "):
        load_preset(str(tmp_path / "mine.yaml"))


def test_a_run_s_own_record_is_a_preset(tmp_path: Path) -> None:
    config = load_preset("kdc_light", ["train.steps=7"])
    (tmp_path / "config.json").write_text(config.model_dump_json())
    assert load_preset(str(tmp_path / "config.json")) == config


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("train.step=3", r"with \['train.step=3'\]: train.step: .*\(`train.steps`\?\)"),
        ("trian.steps=3", r"trian: no such setting .*\(`train`\?\)"),
        ("train.train=[posenet", r"--set train.train=\[posenet: the value is not YAML"),
        ("train.rate=2020-13-45", r"--set train.rate=2020-13-45: the value is not YAML"),
    ],
)
def test_changes_are_blamed_themselves(change: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        load_preset("kdc_light", [change])


def test_steps_that_would_have_no_effect_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"no effect beside train\.epochs=400\.0: change that"):
        load_preset("paper_resnet101", ["train.steps=5"])
    config = load_preset("paper_resnet101", ["train.steps=5", "train.epochs=null"])
    assert (config.train.steps, config.train.epochs) == (5, None)
    assert load_preset("kdc_light", ["train.steps=5"]).train.steps == 5
