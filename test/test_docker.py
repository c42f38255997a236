"""The files of docker/, which nobody has built: what they name is what the package needs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from test_packaging import SOURCES

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
# What pip calls otherwise than apt.
APT_NAMES = {"opencv-python": "python3-opencv", "pyyaml": "python3-yaml"}
# ROS's commands, and pip's environment: of no module of ours.
BESIDE = {"python3-venv", "ros-ros2launch"}


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def text(request: pytest.FixtureRequest) -> str:
    """A Dockerfile, its continued lines joined and its comments left out."""
    lines = request.param.read_text().replace("\\\n", " ").splitlines()
    return "\n".join(line for line in lines if not line.startswith("#"))


def apt_packages(text: str) -> set[str]:
    """Packages of Debian's kind that are installed, ROS's without the distribution's name."""
    found = re.findall(r"(?<=\s)(?:python3-|ros-\$\{ROS_DISTRO\}-)\S+", text)
    return {name.replace("${ROS_DISTRO}-", "") for name in found}


def pip_packages(text: str) -> dict[str, str]:
    """Packages that pip installs and their lowest versions, as setup.py writes them."""
    (line,) = re.findall(r"pip install --no-cache-dir (?!--no-deps)(.*?) &&", text)
    return by_name(entry.strip("'").split(",")[0] for entry in line.split())


def by_name(entries: Iterable[str]) -> dict[str, str]:
    return {re.split(r"[<>=\[]", entry)[0]: entry for entry in entries}


def requirements(kind: str) -> dict[str, str]:
    """Entries of `install_requires`, or of one extra, of setup.py by their names."""
    for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())):
        if isinstance(node, ast.keyword) and node.arg in ("install_requires", "extras_require"):
            value = ast.literal_eval(node.value)
            entries = value if node.arg == "install_requires" else value.get(kind, [])
            if (node.arg == "install_requires") == (kind == "install_requires"):
                return by_name(entries)
    raise AssertionError(f"setup.py has no {kind}")


def test_there_is_one_for_x86_and_one_for_jetson_and_both_say_they_were_not_built() -> None:
    assert [path.name for path in FILES] == ["jetson.Dockerfile", "x86.Dockerfile"]
    for path in FILES:
        assert "# Not built and not run so far" in path.read_text()
        assert f"-f docker/{path.name} " in path.read_text()


def test_apt_installs_what_package_xml_asks_for(text: str) -> None:
    depends = ElementTree.parse(ROOT / "package.xml").findall("exec_depend")
    wanted = {str(depend.text) for depend in depends}
    wanted = {n if n.startswith("python3-") else f"ros-{n.replace('_', '-')}" for n in wanted}
    assert apt_packages(text) - BESIDE == wanted


def test_pip_installs_the_rest_of_what_setup_py_asks_for(text: str) -> None:
    apt, pip = apt_packages(text), pip_packages(text)
    needed = requirements("install_requires")
    by_apt = {name for name in needed if APT_NAMES.get(name, f"python3-{name}") in apt}
    needed |= requirements("cuda")
    assert needed.keys() - by_apt <= pip.keys()
    assert pip.items() <= needed.items()


def test_the_context_holds_what_is_installed_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(SOURCES)
    assert all((ROOT / name).exists() for name in SOURCES)


def test_bases_are_pinned_and_nobody_is_root(text: str) -> None:
    (base,) = re.findall(r"^FROM (\S+)$", text, re.M)
    assert re.fullmatch(r"[\w./-]+:r?\d[\w.-]+", base) and not base.endswith("latest")
    assert re.search(r"^USER (?!root|0)\w+$", text, re.M)
    assert "RUN" not in text.split("\nUSER ")[1]
    assert "sha256sum --check --strict" in text, "what is downloaded is held to a checksum"
    assert not re.search(r"(?i)password|secret|token|_key\b|^ADD ", text, re.M)
    assert "XDG_CACHE_HOME=/var/cache/kdc" in text and "--mode 700 /var/cache/kdc" in text


def test_the_scripts_started_are_those_of_the_package(text: str) -> None:
    (command,) = re.findall(r'^CMD \["(\w+)"', text, re.M)
    assert f'"{command} = kdc_ros.main:main"' in (ROOT / "setup.py").read_text()
