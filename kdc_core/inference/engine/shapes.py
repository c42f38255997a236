"""Sizes of frames an engine is built for."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict

from kdc_core.inference.engine.messages import EngineError

Size = tuple[int, int]
LARGEST_SIDE = 4096  # as exported programs allow


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

    def holds(self, size: Size) -> bool:
        """Whether a frame (height, width) fits."""
        triples = zip(self.smallest, size, self.largest, strict=True)
        return all(low <= side <= high for low, side, high in triples)

    def check(self, rule: tuple[int, int], frame: tuple[int | None, int | None]) -> None:
        """Refuse what the network cannot take, before TensorRT fails deep inside, or does not.

        Args:
            rule: (m, r): sides are n * m + r.
            frame: height and width written into the program; None = free.

        Raises:
            EngineError: says which side.
        """
        step, rest = rule
        for size in self.sizes:
            for side in size:
                if side % step != rest or not step <= side <= LARGEST_SIDE:
                    near = max(step, round((side - rest) / step) * step) + rest
                    raise EngineError(
                        f"this network takes sides of {step} n{f' + {rest}' if rest else ''} "
                        f"pixels, at most {LARGEST_SIDE}: got {size[0]}x{size[1]}; next to {side} "
                        f"is {min(near, LARGEST_SIDE // step * step + rest)}"
                    )
            if any(side not in (None, own) for own, side in zip(size, frame, strict=True)):
                raise EngineError(
                    f"this file was exported for frames of {frame[0]}x{frame[1]} only, got "
                    f"{size[0]}x{size[1]}: export it with free sides, or give that size"
                )
        low, usual, high = self.sizes
        for triple in zip(low, usual, high, strict=True):
            if list(triple) != sorted(triple):
                raise EngineError(
                    f"expected sizes that grow, smallest, usual, largest, got {self}"
                )


def parse_size(text: str) -> Size:
    """Read `448x576`: height, width.

    Raises:
        EngineError: it is not so written.
    """
    found = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text.strip())
    if found is None:
        raise EngineError(f"expected a size as HEIGHTxWIDTH, such as 448x576, got '{text}'")
    return int(found[1]), int(found[2])


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
