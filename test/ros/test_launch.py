"""The launch file: against a stub of launch and launch_ros, and, where ROS is, for real."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from kdc_ros import env
from kdc_ros.parameters import TABLE

if TYPE_CHECKING:  # the stub of test/stub; the fixture `load` brings it in
    from launch import LaunchContext, LaunchDescription

    Load = Callable[[], LaunchDescription]

ROOT = Path(__file__).resolve().parents[2]
STUBS = ROOT / "test" / "stub"
LAUNCH_FILE = ROOT / "launch" / "kdc.launch.py"
HAS_LAUNCH_ROS = importlib.util.find_spec("launch_ros") is not None
DEFAULTS = {
    "image": "image",
    "depth": "depth",
    "camera_info": "camera_info",
    "namespace": "",
    "name": "kdc",
    "params_file": str(ROOT / "config" / "kdc.yaml"),
    "autostart": "",
    "model": "",
    "device": "",
    "runtime": "",
    "use_sim_time": "",
    "image_transport": "",
    "enable_3d": "",
    "hri": "",
    "view": "",
    "fastdds_profile": "true",
    "respawn": "false",
    "log_level": "info",
}


def forget_stubs() -> None:
    stubs = [folder.name for folder in STUBS.iterdir()]
    for name in [name for name in sys.modules if name.split(".")[0] in stubs]:
        del sys.modules[name]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Load the launch file with the stub in place of the real packages."""
    for name in (*env.USER_CHOICES, env.PROFILE_SWITCH, "ROS_DISTRO"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.syspath_prepend(str(STUBS))
    forget_stubs()

    def description() -> LaunchDescription:
        spec = importlib.util.spec_from_file_location("kdc_launch", LAUNCH_FILE)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.generate_launch_description()

    yield description
    forget_stubs()


def only_node(context: LaunchContext) -> dict[str, Any]:
    assert len(context.nodes) == 1
    return context.nodes[0]


def test_arguments_have_these_defaults_and_a_description(load: Load) -> None:
    description = load()
    from launch.actions import DeclareLaunchArgument

    declared = [e for e in description.entities if isinstance(e, DeclareLaunchArgument)]
    assert {entity.name: entity.default_value for entity in declared} == DEFAULTS
    assert all(entity.description for entity in declared)


def test_node_by_default(load: Load) -> None:
    node = only_node(load().run())
    assert (node["package"], node["executable"]) == ("kdc_ros", "kdc_node")
    assert (node["name"], node["namespace"]) == ("kdc", "")
    assert node["remappings"] == [(topic, topic) for topic in ("image", "depth", "camera_info")]
    assert node["ros_arguments"] == ["--log-level", "info"]
    assert node["respawn"] is False
    assert node["output"] == "screen"
    assert node["parameters"] == [str(ROOT / "config" / "kdc.yaml")]


def test_arguments_reach_the_node(load: Load) -> None:
    node = only_node(
        load().run(
            image="/front/image_raw",
            depth="/front/depth_registered/image_rect",
            camera_info="/front/camera_info",
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
    assert node["remappings"] == [
        ("image", "/front/image_raw"),
        ("depth", "/front/depth_registered/image_rect"),
        ("camera_info", "/front/camera_info"),
    ]
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


def test_a_wrong_flag_is_refused(load: Load) -> None:
    with pytest.raises(ValueError, match="bool"):
        load().run(autostart="sometimes")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("autostart", "false", False),
        ("model", "1", "1"),
        ("device", "cpu", "cpu"),
        ("runtime", "torch", "torch"),
        ("use_sim_time", "true", True),
        ("image_transport", "compressed", "compressed"),
        ("enable_3d", "true", True),
        ("hri", "true", True),
        ("view", "true", True),
    ],
)
def test_only_what_is_given_goes_over_the_file(
    load: Load, name: str, text: str, value: bool | str
) -> None:
    node = only_node(load().run(params_file="/my.yaml", **{name: text}))
    assert node["parameters"] == ["/my.yaml", {name: value}]


def test_shipped_parameters_apply_to_any_node_name() -> None:
    content = yaml.safe_load((ROOT / "config" / "kdc.yaml").read_text(encoding="utf-8"))
    assert list(content) == ["/**"]


class RealParameters:
    """What rclpy makes of the parameters that the launch file gives to the node.

    Args:
        folder: for parameter files.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    def file(self, name: str, node: str, values: dict[str, Any]) -> str:
        """A parameter file, as a user or launch_ros writes it."""
        path = self._folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({node: {"ros__parameters": values}}))
        return str(path)

    def __call__(self, node: dict[str, Any]) -> dict[str, Any]:
        """The values in force by name, and `use_sim_time`."""
        import rclpy
        from rclpy.signals import SignalHandlerOptions

        from kdc_ros.node import KdcNode

        arguments = ["--ros-args", "-r", f"__node:={node['name']}"]
        for number, item in enumerate(node["parameters"]):
            # launch_ros writes a dictionary into a file, under the node's full name.
            file = item
            if isinstance(item, dict):
                file = self.file(f"given_{number}", f"{node['namespace']}/{node['name']}", item)
            arguments += ["--params-file", file]
        context = rclpy.Context()
        rclpy.init(args=arguments, context=context, signal_handler_options=SignalHandlerOptions.NO)
        started = KdcNode(context=context)
        try:
            return {name: started.get_parameter(name).value for name in (*TABLE, "use_sim_time")}
        finally:
            started.destroy_node()
            rclpy.shutdown(context=context)


@pytest.fixture
def real(domain: int, tmp_path: Path) -> RealParameters:
    pytest.importorskip("rclpy")
    return RealParameters(tmp_path)


IN_FILE = {
    "autostart": False,
    "model": "mine.onnx",
    "device": "cuda:1",
    "runtime": "onnxruntime",
    "confidence": 0.25,
    "use_sim_time": True,
}


@pytest.mark.ros
@pytest.mark.parametrize("named", ["/kdc", "/**"])
def test_the_file_stays_in_force_without_arguments(
    load: Load, real: RealParameters, named: str
) -> None:
    file = real.file("mine", named, IN_FILE)
    found = real(only_node(load().run(params_file=file)))
    assert {name: found[name] for name in IN_FILE} == IN_FILE


@pytest.mark.ros
@pytest.mark.parametrize("named", ["/kdc", "/**"])
def test_an_argument_that_is_given_goes_over_the_file(
    load: Load, real: RealParameters, named: str
) -> None:
    file = real.file("mine", named, IN_FILE)
    found = real(
        only_node(load().run(params_file=file, model="2", device="cpu", use_sim_time="false"))
    )
    wanted = {**IN_FILE, "model": "2", "device": "cpu", "use_sim_time": False}
    assert {name: found[name] for name in IN_FILE} == wanted


def test_profile_is_set_for_all_that_the_launch_starts(load: Load) -> None:
    context = load().run()
    assert context.environment == {env.profile_variable(): str(ROOT / "config" / env.PROFILE)}
    assert only_node(context)["additional_env"] == {env.PROFILE_SWITCH: "true"}


def test_profile_can_be_left_out(load: Load) -> None:
    context = load().run(fastdds_profile="false")
    assert context.environment == {}
    assert only_node(context)["additional_env"] == {env.PROFILE_SWITCH: "false"}


@pytest.mark.parametrize("name", env.USER_CHOICES)
def test_profile_leaves_the_users_choice(
    load: Load, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "mine")
    assert load().run().environment == {}


def test_profile_switch_of_the_environment_counts(
    load: Load, monkeypatch: pytest.MonkeyPatch
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
