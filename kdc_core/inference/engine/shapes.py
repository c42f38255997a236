"""Sizes of frames an engine is built for."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict

from kdc_core.inference.engine.messages import EngineError
from kdc_core.inference.manifest import LARGEST_SIDE, Manifest

Size = tuple[int, int]


class Shapes(BaseModel):
    """Frames an engine takes: of one size, or of a range of sizes.

    Attributes:
        smallest, usual, largest: (height, width), pixels; all equal for one size. The engine is
            made fastest for the usual one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    smallest: Size
    usual: Size
    largest: Size

    @classmethod
    def fixed(cls, size: Size) -> Shapes:
        """Frames of one size."""
        return cls(smallest=size, usual=size, largest=size)

    @property
    def sizes(self) -> tuple[Size, Size, Size]:
        """Smallest, usual, largest."""
        return self.smallest, self.usual, self.largest

    @property
    def is_fixed(self) -> bool:
        return self.smallest == self.largest

    def __str__(self) -> str:
        sizes = (self.usual,) if self.is_fixed else self.sizes
        return " to ".join(f"{height}x{width}" for height, width in sizes)

    def check(self, manifest: Manifest) -> None:
        """Refuse what the program cannot take, before TensorRT fails deep inside, or does not.

        Raises:
            FrameError: a size that is not the program's, or sides that do not fit its network.
            EngineError: sizes that do not grow, or are beyond what programs are exported for.
        """
        for size in self.sizes:
            manifest.check_size(size)
            check_largest(size)
        for sides in zip(*self.sizes, strict=True):
            if list(sides) != sorted(sides):
                raise EngineError(
                    f"expected sizes that grow, smallest, usual, largest, got {self}"
                )


def check_largest(size: Size) -> None:
    """Raise EngineError for a size that is beyond what programs are exported for."""
    if max(size) > LARGEST_SIDE:
        raise EngineError(
            f"expected sides of at most {LARGEST_SIDE} pixels, got {size[0]}x{size[1]}"
        )


def parse_size(text: str) -> Size:
    """Read `448x576`: height, width.

    Raises:
        EngineError: it is not so written, or too large.
    """
    found = re.fullmatch(r"([1-9]\d{0,4})[xX]([1-9]\d{0,4})", text.strip())
    if found is None:
        raise EngineError(f"expected a size as HEIGHTxWIDTH, such as 448x576, got '{text:.100}'")
    size = int(found[1]), int(found[2])
    check_largest(size)
    return size


def parse_profile(text: str) -> Shapes:
    """Read `320x320,448x576,576x576`: smallest, usual, largest.

    Raises:
        EngineError: it is not so written.
    """
    parts = text.split(",")
    if len(parts) != 3:
        raise EngineError(
            f"expected three sizes, SMALLEST,USUAL,LARGEST such as 320x320,448x576,576x576, got "
            f"'{text}'"
        )
    smallest, usual, largest = map(parse_size, parts)
    return Shapes(smallest=smallest, usual=usual, largest=largest)
