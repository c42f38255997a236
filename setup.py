"""Package metadata, for ``pip install`` and for ``colcon build`` (ament_python) alike.

Everything is here and nothing in pyproject.toml because the setuptools of Humble (59) does not
read a [project] table.
"""

import re
from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
NAME = "kdc_ros"


def version() -> str:
    """The version in kdc_core/__init__.py, read as text: importing needs the dependencies."""
    text = (HERE / "kdc_core" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    if found is None:
        raise RuntimeError('kdc_core/__init__.py has no line __version__ = "..."')
    return found.group(1)


def readme() -> str:
    file = HERE / "README.md"
    return file.read_text(encoding="utf-8") if file.is_file() else ""


setup(
    name=NAME,
    version=version(),
    description="Keypoints and masks of people in images, and a ROS 2 node that publishes them",
    long_description=readme(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    author="KDC maintainers",
    author_email="maintainers@kdc.example.org",
    python_requires=">=3.10",
    packages=find_packages(include=["kdc_core", "kdc_core.*", "kdc_ros", "kdc_ros.*"]),
    package_data={
        "kdc_core": ["py.typed", "evaluation/*.yaml", "presets/*.yaml", "models/*", "samples/*"]
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", sorted(glob("launch/*.launch.py"))),
        (f"share/{NAME}/config", sorted(glob("config/*"))),
        # ros2 run and ros2 launch look here; a console script would land in bin/.
        (f"lib/{NAME}", ["scripts/kdc_node"]),
    ],
    entry_points={
        "console_scripts": ["kdc = kdc_core.__main__:main", "kdc_node = kdc_ros.main:main"],
        "kdc.bench": ["node = kdc_ros.bench:bench_node"],
        "kdc.commands": [
            "bag = kdc_ros.bag:bag",
            "echo = kdc_ros.echo:echo",
            "soak = kdc_ros.soak:soak",
        ],
    },
    # Lower bounds are the lowest that run. `make test-lowest` installs those of this list, of the
    # extra `eval` and rclpy's wheels; those of `train` and `openvino` were tried by hand.
    # rclpy and the messages are not named here: on a robot they come with the distribution.
    install_requires=[
        "numpy>=1.23.3",
        "onnxruntime>=1.18",
        "opencv-python>=4.5.4",
        "platformdirs>=2.1",
        "pydantic>=2.5",
        "pyyaml>=6",
        "rich>=12.6",
        "safetensors>=0.3.1",
        "scipy>=1.7.2",
        "typer>=0.15.4",
    ],
    extras_require={
        # TensorRT itself comes with the robot; RTX, for desktop GPUs, comes by pip.
        "cuda": ["cuda-python>=12.6.1"],
        "rtx": ["cuda-python>=12.6.1", "tensorrt-rtx>=1.7"],
        "openvino": ["openvino>=2025"],
        "bag": ["rosbags>=0.11.9"],
        "eval": ["faster-coco-eval>=1.6.5", "pycocotools>=2.0.7"],
        "ray": ["pyarrow>=17", "pycocotools>=2.0.7", "ray[client,data]>=2.60"],
        "train": [
            "faster-coco-eval>=1.6.5",
            "lightning>=2.6",
            "matplotlib>=3.7",
            "onnx>=1.17",
            "onnxscript>=0.7.2",
            "optuna>=4",
            "pycocotools>=2.0.7",
            "tensorboard>=2.12",
            "torch>=2.7",
        ],
        # The last for Python 3.10. It needs numpy 2.
        "view": ["rerun-sdk>=0.39"],
        # Kilted, for machines without ROS. rclpy does not import without an rmw, and the rmw
        # wheel is only pulled in by name. Pinned: the wheels fit together only as one set.
        "ros-wheels": [
            "ros-diagnostic-msgs==5.5.1",
            "ros-geometry-msgs==5.5.1",
            "ros-lifecycle-msgs==2.3.0",
            "ros-rclpy==9.1.2",
            "ros-rmw-fastrtps-cpp==9.3.3",
            "ros-sensor-msgs==5.5.1",
            "ros-std-msgs==5.5.1",
            "ros-std-srvs==5.5.1",
            "ros-visualization-msgs==5.5.1",
        ],
        "dev": [
            "catkin-pkg",  # the generators of messages in ROS's wheels need it
            "colcon-common-extensions",
            "coverage>=7.10",
            "hypothesis",
            # A new minor of these two changes what passes.
            "mypy==2.4.*",
            "pre-commit",
            "pytest",
            "pytest-xdist",
            "ray[client,data]>=2.60",
            "rosbags",
            "ruff==0.17.*",
            # The packaging tests build with what is installed, without a network.
            "setuptools>=64",
            "types-PyYAML",
            "wheel",
        ],
    },
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
    # Without this the scripts that colcon installs name the Python that colcon itself runs by,
    # /usr/bin/python3, which sees nothing of a virtual environment.
    options={"build_scripts": {"executable": "/usr/bin/env python3"}},
    zip_safe=False,
)
