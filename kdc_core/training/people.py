"""How many people data sets have to learn from, and whether that is enough."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from kdc_core.data.annotations import AnnotationError, Annotations

log = logging.getLogger(__name__)

# What the parts of a network learn from; SegNet's embedding leads to keypoints.
NEEDS = {"posenet": ("keypoints",), "segnet": ("keypoints", "masks")}
FEW = 0.1  # of the persons, below which a part hardly learns


class Counts(NamedTuple):
    """Numbers of persons that are no crowd regions.

    Attributes:
        persons: all of them.
        keypoints: with a labelled keypoint.
        masks: with a mask.
    """

    persons: int
    keypoints: int
    masks: int

    @staticmethod
    def of(annotations: Annotations) -> Counts:
        """Those of a data set."""
        people = annotations.people
        return Counts(
            len(people),
            sum(bool(person.labelled.any()) for person in people),
            sum(person.segmentation is not None for person in people),
        )

    def __str__(self) -> str:
        return f"{self.persons} persons, {self.keypoints} with keypoints, {self.masks} with masks"


def check_people(found: list[tuple[str, Counts]], parts: Sequence[str]) -> None:
    """Log who is in each data set and in all together.

    Args:
        found: of each data set, and what it is called.
        parts: of the network that are trained.

    Raises:
        AnnotationError: there is nobody from whom a part could learn.
    """
    for path, people in found:
        log.info("'%s': %s", path, people)
        for name in ("keypoints", "masks"):
            if people.persons and not getattr(people, name):
                log.info("'%s': nobody has %s, so none are learnt from it", path, name)
    numbers = zip(*(people for _, people in found), strict=True)
    together = Counts(*map(sum, numbers))
    log.info("together: %s", together)
    for part in parts:
        for name in NEEDS[part]:
            count = getattr(together, name)
            if not count:
                sets = ", ".join(f"'{path}'" for path, _ in found)
                raise AnnotationError(
                    f"no person with {name} in {sets} ({together}), and {part} learns from them: "
                    "add a data set that has them; `kdc data check` says what this one has"
                )
            if count < FEW * together.persons:
                log.warning(
                    "only %d of %d persons have %s: %s may learn little",
                    count,
                    together.persons,
                    name,
                    part,
                )
