"""What went wrong, by kind: persons not found, detections of nobody, masks that do not fit."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as rle_tools

from kdc_core.codec.skeleton import COCO17, Skeleton
from kdc_core.data.annotations import decode_mask
from kdc_core.evaluation.coco import BOX_SHARE

FOUND_OKS = 0.5  # a detection has found a person
ABOUT = 0.1  # OKS or mask IoU from which a detection is about a person
ON_KEYPOINT = 0.5  # similarity of one keypoint from which it lies on the annotated one
NEAR_KEYPOINT = 0.1  # and from which it is near it
NEAR_SHARE = 0.5  # of a person's keypoints, more than which are "mostly" near
SWAP_SHARE = 0.3  # of a person's keypoints, on somebody else's or on their mirror image's
FOUND_IOU = 0.5  # a mask fits
COVER_SHARE = 0.5  # of a person's mask, from which a detection's mask covers the person

PERSON_KINDS = ("missed", "jitter", "swap", "misplaced")
MASK_KINDS = ("merged_mask", "poor_mask")
DETECTION_KINDS = ("false", "duplicate")
KINDS = PERSON_KINDS + MASK_KINDS + DETECTION_KINDS


@dataclass(frozen=True)
class Miss:
    """One thing that went wrong.

    Attributes:
        image_id: its picture.
        kind: one of `KINDS`, see `find_misses`.
        annotation: id of the annotated person, or None.
        result: index in the results, or None.
        cost: ranks misses of one kind. Of persons the share of the picture they fill (0..1; for
            `poor_mask` times 1 - IoU), of detections their score.
    """

    image_id: int
    kind: str
    annotation: int | None
    result: int | None
    cost: float


def find_misses(
    annotations: dict[str, Any],
    results: list[dict[str, Any]],
    confidence: float,
    skeleton: Skeleton = COCO17,
) -> list[Miss]:
    """Say what went wrong with every annotated person and every detection.

    Persons are the annotations with keypoints that are no crowd, detections the results with at
    least this confidence. The similarity of one keypoint is exp(-d^2 / (8 area sigma^2)); OKS is
    its mean over the person's labelled keypoints. As in COCO, detections by falling score take
    the free person of the highest OKS from `FOUND_OKS`: found. A detection that took nobody is
    free; it is about a person with OKS or mask IoU from `ABOUT`. A person's best detection is the
    free one about it of the highest OKS (of equal ones, the highest mask IoU).

    Of each person not found, exactly one of:
        swap: of its labelled keypoints a share from `SWAP_SHARE` is not where it belongs but on
            one other person's keypoint of that name, or on its own one of the other side. This
            is said of its best detection; or of the detection that took another person: the same
            share lies on this person's keypoints and not on the taker's, labelled on both.
        missed: otherwise, no free detection is about it.
        jitter: otherwise, its best detection has OKS from `ABOUT`, and more than `NEAR_SHARE` of
            its labelled keypoints are near.
        misplaced: otherwise; a detection is about it whose keypoints are mostly elsewhere.

    Of masks, beside these:
        merged_mask: a detection's mask covers `COVER_SHARE` or more of two or more annotated
            persons' masks (with keypoints or without). One miss for each but the one whose mask
            it fits best (IoU), and but those whose annotated masks that one's covers too.
        poor_mask: the person is found, the detection's mask is not merged, and IoU is below
            `FOUND_IOU`.

    Of each free detection that is no person's best in `swap`, `jitter` or `misplaced`, one of:
        nothing, if its mask's IoU with a person without keypoints is from `ABOUT` and higher than
            with any person with them, or half of its mask (`COVER_SHARE`) is in a crowd region.
        duplicate: otherwise, it is about a person with keypoints.
        nothing: otherwise, if COCO ignores it, keypoints in the doubled box of a crowd region or
            of a person without keypoints.
        false: otherwise.

    Where an annotation or result has no mask, IoU and shares are 0.

    Args:
        annotations: content of a COCO file. Without `area` a person has CrowdPose's share of its
            box.
        results: COCO results with `keypoints` and, for masks, `segmentation`.
        confidence: least score of a detection.
        skeleton: of the keypoints of both.
    """
    compared = compare(annotations, results, skeleton, confidence)
    return [miss for comparison in compared for miss in comparison.misses()]


def compare(
    annotations: dict[str, Any],
    results: list[dict[str, Any]],
    skeleton: Skeleton,
    confidence: float = 0.0,
) -> Iterator[Comparison]:
    """Compare each picture's detections with its annotations; arguments as for `find_misses`."""
    people, detections = defaultdict(list), defaultdict(list)
    for entry in annotations["annotations"]:
        if entry.get("category_id", 1) == 1:
            people[entry["image_id"]].append(entry)
    for index, result in enumerate(results):
        if result["score"] >= confidence:
            detections[result["image_id"]].append(index)
    for image in annotations["images"]:
        order = sorted(detections[image["id"]], key=lambda i: -results[i]["score"])
        yield Comparison(image, people[image["id"]], order, results, skeleton)


def count_misses(annotations: dict[str, Any], misses: list[Miss]) -> dict[str, int]:
    """Number of `persons` (with keypoints), of these `found`, and of each kind of miss."""
    counts = Counter(miss.kind for miss in misses)
    persons = sum(
        entry.get("category_id", 1) == 1 and _has_keypoints(entry)
        for entry in annotations["annotations"]
    )
    found = persons - sum(counts[kind] for kind in PERSON_KINDS)
    return {"persons": persons, "found": found, **{kind: counts[kind] for kind in KINDS}}


class Comparison:
    """One picture: D detections, best first, against its G annotated persons with keypoints.

    Attributes:
        near: (D, G, K) similarity of each keypoint to the person's; 0 where that is unlabelled.
        oks, iou: (D, G).
        masked: annotations with a mask that are no crowd, those of the persons first.
        cover, fit: (D, masked) share of the annotated mask that the detection's covers, and IoU.
        nested: (masked, masked) share of the first that the second covers.
    """

    def __init__(
        self,
        image: dict[str, Any],
        annotations: list[dict[str, Any]],
        order: list[int],
        results: list[dict[str, Any]],
        skeleton: Skeleton,
    ):
        self.image, self.order = image, order
        self.sigmas = np.array(skeleton.sigmas)
        self.size = (int(image["height"]), int(image["width"]))
        self.scores = [float(results[i]["score"]) for i in order]
        self.persons = [a for a in annotations if _has_keypoints(a)]
        self.unknown = [a for a in annotations if not _has_keypoints(a) and not a.get("iscrowd")]
        self.crowds = [a for a in annotations if a.get("iscrowd")]
        points = np.array([results[i]["keypoints"] for i in order], np.float64)
        self.points = points.reshape(-1, skeleton.num_keypoints, 3)[..., :2]
        truth = np.array([a["keypoints"] for a in self.persons], np.float64)
        self.truth = truth.reshape(-1, skeleton.num_keypoints, 3)
        self.labelled = self.truth[..., 2] > 0  # (G, K)
        areas = [_area(a) for a in self.persons]
        self.near = _similarity(self.points, self.truth, areas, self.sigmas)
        # The same to the person's keypoint of the other side.
        sides = self.truth[:, list(skeleton.flip)]
        self.mirrored = _similarity(self.points, sides, areas, self.sigmas)
        self.oks = self.near.sum(-1) / np.maximum(self.labelled.sum(-1), 1)
        masks = [self._rle(results[i]) for i in order]
        self.masked = [a for a in self.persons + self.unknown if a.get("segmentation")]
        rles = [self._rle(a) for a in self.masked]
        self.cover = _iou(rles, masks, crowd=True).T
        self.fit = _iou(masks, rles)
        self.nested = _iou(rles, rles, crowd=True)
        self.iou = _iou(masks, [self._rle(a) for a in self.persons])
        self.unknown_iou = _iou(masks, [self._rle(a) for a in self.unknown])
        self.in_crowd = _iou(masks, [self._rle(a) for a in self.crowds], crowd=True)

    def misses(self) -> list[Miss]:
        taken = self._take()
        free = [d for d in range(len(self.order)) if d not in taken]
        about = np.maximum(self.oks, self.iou) >= ABOUT
        misses = []
        explained = set(taken)
        for g in sorted(set(range(len(self.persons))) - set(taken.values())):
            mine = [d for d in free if about[d, g]]
            kind, d = self._kind(g, mine, taken)
            if d is not None:
                explained.add(d)
            misses.append(self._person_miss(kind, self.persons[g], d))
        merged = self._merged()
        misses += [self._person_miss("merged_mask", self.masked[m], d) for d, m in merged]
        merging = {d for d, _ in merged}
        for d, g in taken.items():
            if self.persons[g].get("segmentation") and d not in merging:
                iou = float(self.iou[d, g])
                if iou < FOUND_IOU:
                    misses.append(self._person_miss("poor_mask", self.persons[g], d, 1 - iou))
        for d in free:
            if d not in explained and not self._on_unknown(d):
                if about[d].any():
                    g = int((self.oks + self.iou)[d].argmax())
                    misses.append(self._detection_miss("duplicate", self.persons[g]["id"], d))
                elif not self._ignored_by_coco(d):
                    misses.append(self._detection_miss("false", None, d))
        return misses

    def _take(self) -> dict[int, int]:
        """Person found by each detection."""
        taken: dict[int, int] = {}
        for d in range(len(self.order)):
            left = [g for g in range(len(self.persons)) if g not in taken.values()]
            best = max(left, key=lambda g, d=d: self.oks[d, g], default=None)  # type: ignore[misc]
            if best is not None and self.oks[d, best] >= FOUND_OKS:
                taken[d] = best
        return taken

    def _kind(self, g: int, mine: list[int], taken: dict[int, int]) -> tuple[str, int | None]:
        """Kind of a person not found, and the detection it is said of."""
        best = max(mine, key=lambda d: (self.oks[d, g], self.iou[d, g]), default=None)
        if best is not None and self._swapped(best, g):
            return "swap", best
        for d, taker in taken.items():
            if self._stolen(d, taker, g):
                return "swap", d
        if best is None:
            return "missed", None
        near = (self.near[best, g] >= NEAR_KEYPOINT).sum() / self.labelled[g].sum()
        jitter = self.oks[best, g] >= ABOUT and near > NEAR_SHARE
        return "jitter" if jitter else "misplaced", best

    def _merged(self) -> list[tuple[int, int]]:
        """Detections and those of `masked` they cover besides the one they fit best."""
        covered = self.cover >= COVER_SHARE
        pairs = []
        for d in np.flatnonzero(covered.sum(1) >= 2).tolist():
            best = self.fit[d].argmax()
            besides = covered[d] & (self.nested[:, best] < COVER_SHARE)
            pairs += [(d, m) for m in np.flatnonzero(besides).tolist()]
        return pairs

    def _swapped(self, d: int, g: int) -> bool:
        """Are keypoints not on this person's but on another's, or on those of its other side?"""
        elsewhere = self.labelled[g] & (self.near[d, g] < ON_KEYPOINT)
        others = np.delete(self.near[d], g, axis=0)
        on = np.concatenate((others, self.mirrored[d, g][None])) >= ON_KEYPOINT
        return bool((on & elsewhere).sum(1).max() >= SWAP_SHARE * self.labelled[g].sum())

    def _stolen(self, d: int, taker: int, g: int) -> bool:
        """Has the detection that took another person this person's keypoints?"""
        on = self.labelled[taker] & (self.near[d, taker] < ON_KEYPOINT)
        on &= self.near[d, g] >= ON_KEYPOINT
        return bool(on.sum() >= SWAP_SHARE * self.labelled[g].sum())

    def _on_unknown(self, d: int) -> bool:
        """Is its mask that of a person without keypoints, or in a crowd region?"""
        iou = self.unknown_iou[d].max(initial=0)
        known = self.iou[d].max(initial=0)
        return bool((ABOUT <= iou > known) or self.in_crowd[d].max(initial=0) >= COVER_SHARE)

    def _ignored_by_coco(self, d: int) -> bool:
        """OKS as COCO computes it without keypoints: distances to the doubled box."""
        for entry in self.unknown + self.crowds:
            x, y, width, height = entry["bbox"]
            low, high = (
                np.array((x - width, y - height)),
                np.array((x + 2 * width, y + 2 * height)),
            )
            out = np.maximum(low - self.points[d], 0) + np.maximum(self.points[d] - high, 0)
            if _falloff((out**2).sum(-1), _area(entry), self.sigmas).mean() >= FOUND_OKS:
                return True
        return False

    def _person_miss(
        self, kind: str, entry: dict[str, Any], d: int | None, weight: float = 1.0
    ) -> Miss:
        share = _area(entry) / (self.size[0] * self.size[1])
        result = None if d is None else self.order[d]
        return Miss(self.image["id"], kind, entry["id"], result, weight * share)

    def _detection_miss(self, kind: str, annotation: int | None, d: int) -> Miss:
        return Miss(self.image["id"], kind, annotation, self.order[d], self.scores[d])

    def _rle(self, entry: dict[str, Any]) -> Any:
        mask = np.zeros(self.size, bool)
        if entry.get("segmentation"):
            mask = decode_mask(entry["segmentation"], self.size)
        return rle_tools.encode(np.asfortranarray(mask, np.uint8))


def _has_keypoints(entry: dict[str, Any]) -> bool:
    return not entry.get("iscrowd") and any(v > 0 for v in (entry.get("keypoints") or ())[2::3])


def _area(entry: dict[str, Any]) -> float:
    if "area" in entry:
        return float(entry["area"])
    return float(BOX_SHARE * entry["bbox"][2] * entry["bbox"][3])


def _falloff(squared: np.ndarray, area: Any, sigmas: np.ndarray) -> np.ndarray:
    """OKS of single keypoints from squared distances (..., K)."""
    return np.exp(-squared / (8 * (area + np.spacing(1)) * np.square(sigmas)))


def _similarity(
    points: np.ndarray, truth: np.ndarray, areas: list[float], sigmas: np.ndarray
) -> np.ndarray:
    """Of (D, K, 2) and (G, K, 3): (D, G, K), 0 where the truth is not labelled."""
    squared = np.square(points[:, None] - truth[None, :, :, :2]).sum(-1)
    return _falloff(squared, np.reshape(areas, (-1, 1)), sigmas) * (truth[..., 2] > 0)


def _iou(first: list[Any], second: list[Any], crowd: bool = False) -> np.ndarray:
    """(first, second) IoU of masks; as `crowd` the share of the first's that is in the second."""
    if not first or not second:
        return np.zeros((len(first), len(second)))
    # pycocotools gives -1 for masks of pictures of different sizes.
    return np.maximum(rle_tools.iou(first, second, [int(crowd)] * len(second)), 0)
