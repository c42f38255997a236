"""What every runtime does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from kdc_core.errors import KdcError

if TYPE_CHECKING:  # assembly takes scipy along, which no process that only builds needs
    from kdc_core.inference.assembly import Raw
    from kdc_core.inference.manifest import Manifest


class UnusableRuntime(KdcError):
    """A runtime or model that cannot be used here; the text says why and what to do."""


class Runtime(Protocol):
    """Executes one program.

    Attributes:
        name: as in `choice.RUNTIMES`.
        manifest: what the program says about itself.
    """

    name: str
    manifest: Manifest

    def describe(self) -> dict[str, str]:
        """Version, device, precision and threads, for logs and reports."""
        ...

    def run(self, frame: np.ndarray) -> Raw:
        """Execute on a (H, W, 3) uint8 RGB frame, contiguous; blocks.

        Raises:
            FrameError: its sides are not those of the manifest.
        """
        ...

    def close(self) -> None:
        """Free what the runtime holds."""
        ...
