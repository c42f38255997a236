"""The package as pip and as colcon install it, built for real into temporary folders."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kdc_core

pytestmark = pytest.mark.all

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (
    *("setup.py", "pyproject.toml", "package.xml", "README.md", "LICENSE", "NOTICE"),
    *("resource", "scripts", "launch", "config", "kdc_core", "kdc_ros"),
)


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command with nothing of a sourced ROS; its output is shown if it fails."""
    scrubbed = ("AMENT_", "COLCON_", "CMAKE_PREFIX_PATH", "PYTHONPATH")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(scrubbed)}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources: both tools leave build folders where they build."""
    folder = tmp_path_factory.mktemp("source") / "kdc"
    folder.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
        elif (ROOT / name).is_file():
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module", params=["pip", "colcon"])
def prefix(
    request: pytest.FixtureRequest, source: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder that the package was installed into."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "pip":
        pip = (sys.executable, "-m", "pip", "install", "--disable-pip-version-check")
        options = ("--no-deps", "--no-build-isolation", "--no-index", "--ignore-installed")
        run(*pip, *options, "--prefix", folder, source, cwd=folder)
        return folder
    colcon = Path(sys.executable).with_name("colcon")
    if not colcon.is_file():
        pytest.skip("colcon is not installed: it comes with the extra [dev]")
    bases = ("--build-base", folder / "build", "--install-base", folder / "install")
    run(colcon, "--log-base", folder / "log", "build", "--base-paths", source, *bases, cwd=folder)
    return folder / "install" / "kdc_ros"


def site_packages(prefix: Path) -> Path:
    found = [path.parent for path in prefix.rglob("kdc_core") if (path / "__init__.py").is_file()]
    assert len(found) == 1, found
    return found[0]


def test_ros_finds_the_package(prefix: Path) -> None:
    marker = prefix / "share/ament_index/resource_index/packages/kdc_ros"
    assert marker.is_file()
    share = prefix / "share/kdc_ros"
    for name in ("package.xml", "launch/kdc.launch.py", "config/kdc.yaml"):
        assert (share / name).read_bytes() == (ROOT / name).read_bytes()
    assert os.access(prefix / "lib/kdc_ros/kdc_node", os.X_OK)


def test_scripts_run_by_the_python_of_the_environment(prefix: Path) -> None:
    scripts = {"lib/kdc_ros/kdc_node": "/usr/bin/env python3"}
    by_colcon = prefix.parent.name == "install"
    for name in ("bin/kdc", "bin/kdc_node"):
        scripts[name] = "/usr/bin/env python3" if by_colcon else sys.executable
    for name, python in scripts.items():
        assert (prefix / name).read_text().startswith(f"#!{python}\n")


def test_both_packages_with_their_data(prefix: Path) -> None:
    site = site_packages(prefix)
    for package in ("kdc_core", "kdc_ros"):
        missing = [
            str(file.relative_to(ROOT))
            for file in (ROOT / package).rglob("*")
            if file.is_file()
            and "__pycache__" not in file.parts
            and not (site / file.relative_to(ROOT)).is_file()
        ]
        assert not missing
    assert not (site / "test").exists()


def test_installed_module_finds_its_own_config(prefix: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(site_packages(prefix))!r})\n"
        "from kdc_ros import env; print(env.find_config('kdc.yaml'))"
    )
    found = run(sys.executable, "-I", "-c", code, cwd=prefix).strip().splitlines()[-1]
    assert Path(found) == prefix / "share/kdc_ros/config/kdc.yaml"


def test_commands_and_entry_points(prefix: Path) -> None:
    [text] = [file.read_text() for file in prefix.rglob("entry_points.txt")]
    assert "kdc = kdc_core.__main__:main" in text
    assert "kdc_node = kdc_ros.main:main" in text
    assert "[kdc.bench]\nnode = kdc_ros.bench:bench_node" in text
    for name in ("bag", "echo", "soak"):
        assert f"{name} = kdc_ros.{name}:{name}" in text


def test_package_xml_is_valid_and_of_this_version() -> None:
    parser = pytest.importorskip("catkin_pkg.package", reason="comes with the extra [dev]")
    package = parser.parse_package(str(ROOT / "package.xml"))
    assert package.name == "kdc_ros"
    assert package.version == kdc_core.__version__
    assert [export.content for export in package.exports] == ["ament_python"]


def test_package_xml_names_the_ros_packages_in_use() -> None:
    text = (ROOT / "package.xml").read_text(encoding="utf-8")
    named = set(re.findall(r"<exec_depend>(\w+)</exec_depend>", text))
    files = [*(ROOT / "kdc_ros").glob("*.py"), *(ROOT / "launch").glob("*.py")]
    code = "\n".join(file.read_text(encoding="utf-8") for file in files)
    ros = r"rclpy|cv_bridge|launch|launch_ros|\w+_(?:msgs|srvs)"
    used = set(re.findall(rf"^\s*(?:from|import) ({ros})\b", code, re.MULTILINE))
    assert used - {"vision_msgs", "hri_msgs"} <= named, "these two are used where they are"


def test_what_robots_install_by_pip_is_what_setup_py_asks_for() -> None:
    """But numpy, held below the major version of ROS's own, and what package.xml asks for."""
    text = (ROOT / "docs" / "install.md").read_text(encoding="utf-8").replace("\\\n", " ")
    [line] = re.findall(r"^pip install ('numpy.*)$", text, re.MULTILINE)
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    listed = setup.partition("install_requires=[")[2].partition("]")[0]
    wanted = set(re.findall(r'"(.+)"', listed))
    by_apt = {entry for entry in wanted if entry.startswith(("opencv", "pyyaml"))}
    by_pip = {entry.removesuffix(",<2") for entry in re.findall(r"'([^']+)'", line)}
    assert wanted - by_apt == by_pip and ",<2" in line
