"""The environment that a ROS process gets before rclpy starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kdc_ros import env

ROOT = Path(__file__).resolve().parents[2]
PROFILE = ROOT / "config" / env.PROFILE


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No settings, and a prefix without ROS; what prepare() sets is undone afterwards."""
    for name in (*env.USER_CHOICES, env.PROFILE_SWITCH, "ROS_DISTRO", "AMENT_PREFIX_PATH"):
        monkeypatch.setenv(name, "")  # so that it is restored even if the test deletes it
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(env, "keep_freed_memory", lambda: True)
    (tmp_path / "lib").mkdir()
    return tmp_path


def wheels(prefix: Path, library: str) -> None:
    for name in ("librcl.so", library):
        (prefix / "lib" / name).touch()


def test_wheels_get_their_prefix_and_profile(clean: Path) -> None:
    wheels(clean, "libfastdds.so")
    env.prepare()
    assert os.environ["AMENT_PREFIX_PATH"] == str(clean)
    assert os.environ[env.FASTDDS_3] == str(PROFILE)
    assert env.FASTDDS_2 not in os.environ


def test_older_wheels_get_the_older_name(clean: Path) -> None:
    wheels(clean, "libfastrtps.so")
    env.prepare()
    assert os.environ[env.FASTDDS_2] == str(PROFILE)
    assert env.FASTDDS_3 not in os.environ


@pytest.mark.parametrize(
    ("distro", "name"),
    [
        ("humble", env.FASTDDS_2),
        ("jazzy", env.FASTDDS_2),
        ("kilted", env.FASTDDS_3),
        ("rolling", env.FASTDDS_3),
    ],
)
def test_a_sourced_distribution_decides(
    monkeypatch: pytest.MonkeyPatch, distro: str, name: str
) -> None:
    monkeypatch.setenv("ROS_DISTRO", distro)
    env.prepare()
    assert [key for key in env.USER_CHOICES if key in os.environ] == [name]
    assert "AMENT_PREFIX_PATH" not in os.environ


def test_what_is_set_stays(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels(clean, "libfastdds.so")
    monkeypatch.setenv("AMENT_PREFIX_PATH", "/mine")
    monkeypatch.setenv(env.FASTDDS_3, "/mine.xml")
    env.prepare()
    assert os.environ["AMENT_PREFIX_PATH"] == "/mine"
    assert os.environ[env.FASTDDS_3] == "/mine.xml"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FASTDDS_BUILTIN_TRANSPORTS", "LARGE_DATA"),
        (env.FASTDDS_2, "/mine.xml"),
        (env.PROFILE_SWITCH, "False"),
        (env.PROFILE_SWITCH, "0"),
    ],
)
def test_profile_stays_out_of_the_users_way(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    env.prepare()
    assert env.FASTDDS_3 not in os.environ


def test_a_missing_profile_warns_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env, "PROFILE", "absent.xml")
    with pytest.warns(UserWarning, match="absent.xml"):
        env.prepare()
    assert env.FASTDDS_3 not in os.environ


def test_config_of_the_source_tree_is_found() -> None:
    assert env.find_config(env.PROFILE) == PROFILE


@pytest.mark.parametrize("inside", ["kdc_ros", "lib/python3.12/site-packages/kdc_ros"])
def test_config_of_an_install_is_found(
    clean: Path, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    file = clean / "share" / "kdc_ros" / "config" / "some.yaml"
    file.parent.mkdir(parents=True)
    file.touch()
    monkeypatch.setattr(env, "__file__", str(clean / inside / "env.py"))
    assert env.find_config("some.yaml") == file


def test_missing_config_says_where_it_looked(clean: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"'absent.yaml'.*{clean}"):
        env.find_config("absent.yaml")


def test_real_process_is_prepared_without_importing_ros() -> None:
    """In a process of its own, as malloc's settings cannot be taken back; without site-packages,
    as the Python that reads a launch file sees nothing of a virtual environment."""
    code = (
        "import platform, sys; from kdc_ros import env; env.prepare(); env.prepare();"
        "assert not {'rclpy', 'launch', 'cv2', 'numpy'} & set(sys.modules);"
        "from kdc_core.memory import keep_freed_memory;"
        "assert keep_freed_memory() == (platform.libc_ver()[0] == 'glibc')"
    )
    subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, check=True, timeout=60)
