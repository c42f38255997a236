"""What a process needs in its environment before rclpy starts. Imports nothing of ROS.

``prepare()`` is called first thing in every process of this package that uses rclpy:

- With rclpy from pip wheels nobody sets ``AMENT_PREFIX_PATH``; share folders are found through it.
- Fast DDS sends images through shared memory segments of 512 KiB by default. One 640x480 color
  image is larger, and best-effort readers then lose nearly all of them. The segment that counts
  is the sender's, so cameras need the profile (config/fastdds_shm.xml) as much as the node.
- glibc gives each image buffer back to the kernel when it is freed; fetching it again costs more
  than the copy of the image.

Set ``KDC_FASTDDS_PROFILE=false`` to keep the profile out.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

from kdc_core.memory import keep_freed_memory

PACKAGE = "kdc_ros"
PROFILE = "fastdds_shm.xml"
PROFILE_SWITCH = "KDC_FASTDDS_PROFILE"
FASTDDS_3 = "FASTDDS_DEFAULT_PROFILES_FILE"
FASTDDS_2 = "FASTRTPS_DEFAULT_PROFILES_FILE"
# With one of these the user has chosen a transport; our profile would replace it.
USER_CHOICES = (FASTDDS_3, FASTDDS_2, "FASTDDS_BUILTIN_TRANSPORTS")
DISTROS_WITH_FASTDDS_2 = ("humble", "iron", "jazzy")


def prepare(local: bool = False) -> None:
    """Set what is missing in this process's environment; what the user has set stays.

    Call it before rclpy is initialised. Calling it again does nothing.

    Args:
        local: nothing is to leave this machine.
    """
    if local:
        os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    if wheels_in_use():
        os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
    try:
        setting = profile_setting()
    except FileNotFoundError as error:
        # The node works without, only badly: say so and go on.
        warnings.warn(f"no Fast DDS profile, images may be lost: {error}", stacklevel=2)
    else:
        if setting is not None:
            os.environ[setting[0]] = setting[1]
    keep_freed_memory()


def wheels_in_use() -> bool:
    """Whether ROS was installed into this Python environment (pip wheels)."""
    return (Path(sys.prefix) / "lib" / "librcl.so").is_file()


def profile_variable() -> str:
    """The variable that names the profile file to the Fast DDS in use.

    3.x warns about the name of 2.x, and 2.x ignores the name of 3.x. Wheels set no
    ``ROS_DISTRO``; there the name of the library tells.
    """
    distro = os.environ.get("ROS_DISTRO")
    if distro:
        return FASTDDS_2 if distro in DISTROS_WITH_FASTDDS_2 else FASTDDS_3
    if (Path(sys.prefix) / "lib" / "libfastrtps.so").is_file():
        return FASTDDS_2
    return FASTDDS_3


def profile_setting() -> tuple[str, str] | None:
    """Name and value of the variable to set, or None where the user has decided already.

    Raises:
        FileNotFoundError: the profile is neither in the install nor in the source tree.
    """
    if os.environ.get(PROFILE_SWITCH, "true").strip().lower() in ("false", "0"):
        return None
    if any(name in os.environ for name in USER_CHOICES):
        return None
    return profile_variable(), str(find_config(PROFILE))


def find_config(name: str) -> Path:
    """Find a file of the package's config folder.

    Args:
        name: file name, such as ``kdc.yaml``.

    Returns:
        The file in the source tree if this module runs from there (also after ``pip install -e``
        or ``colcon build --symlink-install``), else the one installed beside this module.

    Raises:
        FileNotFoundError: it is in none of them; the text lists where it was looked for.
    """
    here = Path(__file__).resolve()
    root = here.parents[1]
    folders = [root / "config"] if (root / "package.xml").is_file() else []
    # An install keeps share/ in a folder above the module: directly (pip --target), or above
    # lib/python3.x/site-packages (pip, colcon, Debian).
    share = Path("share") / PACKAGE / "config"
    folders += [above / share for above in (*here.parents[1:5], Path(sys.prefix))]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(
        f"config file '{name}' of {PACKAGE} not found in {', '.join(map(str, folders))}; "
        "install the package again"
    )
