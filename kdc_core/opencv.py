"""Which wheels of OpenCV are installed, and what to do where it cannot be imported."""

from __future__ import annotations

import importlib.metadata

# All of them write the same folder cv2. The first is what this package asks for.
WHEELS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)


def two_wheels() -> str | None:
    """What to tell of wheels that overwrite each other; None = there is one at most."""
    found = _installed()
    if len(found) < 2:
        return None
    names = " and ".join(f"{name} {version}" for name, version in found.items())
    return f"{names} overwrite each other's files: {_mend(found)}"


def explain(error: Exception) -> str | None:
    """What to tell where OpenCV is what an import failed of; None where it works.

    Args:
        error: that the import raised.
    """
    try:
        import cv2

        cv2.INTER_AREA  # noqa: B018 -- what an uninstalled wheel left behind is an empty package
    except (ImportError, AttributeError):
        reason = two_wheels() or _mend(_installed())
        system = ", after apt install libgl1 libglib2.0-0" if ".so" in str(error) else ""
        return f"OpenCV cannot be imported ({error}). {reason}{system}"
    return None


def _installed() -> dict[str, str]:
    """Versions of the wheels that are installed, by name."""
    found = {}
    for name in WHEELS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _mend(found: dict[str, str]) -> str:
    install = f"pip install {WHEELS[0]}"
    return f"pip uninstall --yes {' '.join(found)} && {install}" if found else install
