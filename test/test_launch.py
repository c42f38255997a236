"""The launch file: against a stub of launch and launch_ros, and, where ROS is, for real."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdc_ros import env

ROOT = Path(__file__).resolve().parents[1]
LAUNCH_FILE = ROOT / "launch" / "kdc.launch.py"
HAS_LAUNCH_ROS = importlib.util.find_spec("launch_ros") is not None
DEFAULTS = {
    "image": "image",
    "namespace": "",
    "name": "kdc",
    "params_file": str(ROOT / "config" / "kdc.yaml"),
    "autostart": "true",
    "model": "",
    "device": "auto",
    "runtime": "auto",
    "use_sim_time": "false",
    "fastdds_profile": "true",
    "respawn": "false",
    "log_level": "info",
}


def forget_launch() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in ("launch", "launch_ros")]:
        del sys.modules[name]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Load the launch file with the stub in place of the real packages."""
    for name in (*env.USER_CHOICES, env.PROFILE_SWITCH, "ROS_DISTRO"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.syspath_prepend(str(ROOT / "test" / "stub"))
    forget_launch()

    def description() -> Any:
        spec = importlib.util.spec_from_file_location("kdc_launch", LAUNCH_FILE)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.generate_launch_description()

    yield description
    forget_launch()


def only_node(context: Any) -> dict[str, Any]:
    assert len(context.nodes) == 1
    return context.nodes[0]


def test_arguments_have_these_defaults_and_a_description(load: Any) -> None:
    declared = [entity for entity in load().entities if hasattr(entity, "default_value")]
    assert {entity.name: entity.default_value for entity in declared} == DEFAULTS
    assert all(entity.description for entity in declared)


def test_node_by_default(load: Any) -> None:
    node = only_node(load().run())
    assert (node["package"], node["executable"]) == ("kdc_ros", "kdc_node")
    assert (node["name"], node["namespace"]) == ("kdc", "")
    assert node["remappings"] == [("image", "image")]
    assert node["ros_arguments"] == ["--log-level", "info"]
    assert node["respawn"] is False
    assert node["output"] == "screen"
    file, values = node["parameters"]
    assert Path(file).is_file()
    assert values == {
        "autostart": True,
        "model": "",
        "device": "auto",
        "runtime": "auto",
        "use_sim_time": False,
    }


def test_arguments_reach_the_node(load: Any) -> None:
    node = only_node(
        load().run(
            image="/front/image_raw",
            namespace="front",
            name="people",
            params_file="/my.yaml",
            autostart="false",
            model="2",
            device="cpu",
            runtime="torch",
            use_sim_time="true",
            respawn="true",
            log_level="debug",
        )
    )
    assert (node["name"], node["namespace"]) == ("people", "/front")
    assert node["remappings"] == [("image", "/front/image_raw")]
    assert node["ros_arguments"] == ["--log-level", "debug"]
    assert node["respawn"] is True
    assert node["parameters"] == [
        "/my.yaml",
        {
            "autostart": False,
            "model": "2",
            "device": "cpu",
            "runtime": "torch",
            "use_sim_time": True,
        },
    ]


def test_a_wrong_flag_is_refused(load: Any) -> None:
    with pytest.raises(ValueError, match="bool"):
        load().run(autostart="sometimes")


def test_shipped_parameters_agree_with_the_arguments(load: Any) -> None:
    """One set of defaults: the file applies to any node name and says what the arguments say."""
    content = yaml.safe_load((ROOT / "config" / "kdc.yaml").read_text(encoding="utf-8"))
    assert list(content) == ["/**"]
    in_file = content["/**"]["ros__parameters"]
    values = only_node(load().run())["parameters"][1]
    del values["use_sim_time"]  # rclpy's own, on every node
    assert {name: in_file[name] for name in values} == values


def test_profile_is_set_for_all_that_the_launch_starts(load: Any) -> None:
    context = load().run()
    assert context.environment == {env.profile_variable(): str(ROOT / "config" / env.PROFILE)}
    assert only_node(context)["additional_env"] == {env.PROFILE_SWITCH: "true"}


def test_profile_can_be_left_out(load: Any) -> None:
    context = load().run(fastdds_profile="false")
    assert context.environment == {}
    assert only_node(context)["additional_env"] == {env.PROFILE_SWITCH: "false"}


@pytest.mark.parametrize("name", env.USER_CHOICES)
def test_profile_leaves_the_users_choice(
    load: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "mine")
    assert load().run().environment == {}


def test_profile_switch_of_the_environment_counts(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(env.PROFILE_SWITCH, "false")
    context = load().run()
    assert context.environment == {}
    assert only_node(context)["additional_env"] == {env.PROFILE_SWITCH: "false"}


@pytest.mark.ros
@pytest.mark.skipif(
    not HAS_LAUNCH_ROS, reason="launch_ros comes with a ROS 2 installation only, not by pip"
)
def test_real_launch_starts_and_stops_the_node(tmp_path: Path) -> None:
    """The real ``ros2 launch``, on a prefix laid out by hand as the builds lay it out."""
    prefix = tmp_path / "prefix"
    for source, target in (
        ("resource/kdc_ros", "share/ament_index/resource_index/packages/kdc_ros"),
        ("package.xml", "share/kdc_ros/package.xml"),
        ("scripts/kdc_node", "lib/kdc_ros/kdc_node"),
    ):
        (prefix / target).parent.mkdir(parents=True)
        shutil.copy(ROOT / source, prefix / target)
    before = {  # this Python and these sources first, then what ROS has set
        "AMENT_PREFIX_PATH": str(prefix),
        "PATH": str(Path(sys.executable).parent),
        "PYTHONPATH": str(ROOT),
    }
    paths = {
        name: os.pathsep.join(filter(None, (value, os.environ.get(name))))
        for name, value in before.items()
    }
    log = tmp_path / "log.txt"
    with log.open("w") as out:
        launch = subprocess.Popen(
            ["ros2", "launch", str(LAUNCH_FILE), "autostart:=false"],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **paths, "ROS_LOG_DIR": str(tmp_path)},
        )
        try:
            end = time.monotonic() + 30
            while "process started" not in log.read_text() and time.monotonic() < end:
                assert launch.poll() is None, log.read_text()
                time.sleep(0.1)
            time.sleep(3)  # long enough for a node that cannot start to die
            launch.send_signal(signal.SIGINT)
            code = launch.wait(timeout=30)
        finally:
            if launch.poll() is None:
                launch.kill()
    text = log.read_text()
    assert "process started" in text
    assert "process has died" not in text
    assert code == 0, text
