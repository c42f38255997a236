"""What went wrong, by kind: persons not found, detections of nobody, masks that do not fit."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as rle_tools

from kdc_core.codec.skeleton import Skeleton
from kdc_core.data.annotations import AnnotatedImage, AnnotatedPerson, Annotations
from kdc_core.data.masks import Rle, Segmentation, as_rle
from kdc_core.evaluation.coco import Result, mask_or_box

FOUND_OKS = 0.5  # a detection has found a person
ABOUT = 0.1  # OKS or mask IoU from which a detection is about a person
ON_KEYPOINT = 0.5  # similarity of one keypoint from which it lies on the annotated one
NEAR_KEYPOINT = 0.1  # and from which it is near it
NEAR_FRACTION = 0.5  # of a person's keypoints, more than which are "mostly" near
SWAP_FRACTION = 0.3  # of a person's keypoints, on somebody else's or on their mirror image's
FOUND_IOU = 0.5  # a mask fits
COVER_FRACTION = 0.5  # of a person's mask, from which a detection's mask covers the person

PERSON_KINDS = ("missed", "jitter", "swap", "misplaced")
MASK_KINDS = ("merged_mask", "poor_mask")
DETECTION_KINDS = ("false", "duplicate")
KINDS = PERSON_KINDS + MASK_KINDS + DETECTION_KINDS


@dataclass(frozen=True)
class Miss:
    """One thing that went wrong.

    Attributes:
        image_id: its image.
        kind: one of `KINDS`, see `find_misses`.
        annotation: id of the annotated person, or None.
        result: index in the results, or None.
        cost: ranks misses of one kind. Of persons the fraction of the image they fill (0..1; for
            `poor_mask` times 1 - IoU), of detections their score.
    """

    image_id: int
    kind: str
    annotation: int | None
    result: int | None
    cost: float


def find_misses(
    annotations: Annotations, results: Sequence[Result], confidence: float
) -> list[Miss]:
    """Say what went wrong with every annotated person and every detection.

    Persons are the annotations with keypoints that are no crowd, detections the results with at
    least this confidence. The similarity of one keypoint is exp(-d^2 / (8 area sigma^2)); OKS is
    its mean over the person's labelled keypoints. As in COCO, detections by falling score take
    the free person of the highest OKS from `FOUND_OKS`: found. A detection that took nobody is
    free; it is about a person with OKS or mask IoU from `ABOUT`. A person's best detection is the
    free one about it of the highest OKS (of equal ones, the highest mask IoU).

    Of each person not found, exactly one of:
        swap: of its labelled keypoints a fraction from `SWAP_FRACTION` is not where it belongs
            but on one other person's keypoint of that name, or on its own one of the other side.
            This is said of its best detection; or of the detection that took another person: the
            same fraction lies on this person's keypoints and not on the taker's, labelled on both.
        missed: otherwise, no free detection is about it.
        jitter: otherwise, its best detection has OKS from `ABOUT`, and more than `NEAR_FRACTION`
            of its labelled keypoints are near.
        misplaced: otherwise; a detection is about it whose keypoints are mostly elsewhere.

    Of masks, beside these:
        merged_mask: a detection's mask covers `COVER_FRACTION` or more of two or more annotated
            persons' masks (with keypoints or without). One miss for each but the one whose mask
            it fits best (IoU), and but those whose annotated masks that one's covers too.
        poor_mask: the person is found, the detection's mask is not merged, and IoU is below
            `FOUND_IOU`.

    Of each free detection that is no person's best in `swap`, `jitter` or `misplaced`, one of:
        nothing, if its mask's IoU with a person without keypoints is from `ABOUT` and higher than
            with any person with them, or half of its mask (`COVER_FRACTION`) is in a crowd region.
        duplicate: otherwise, it is about a person with keypoints.
        nothing: otherwise, if COCO ignores it, keypoints in the doubled box of a crowd region or
            of a person without keypoints.
        false: otherwise.

    Where an annotation or result has no mask, IoU and covered fractions are 0. A person with
    neither keypoints nor mask is a crowd region of its box.

    Args:
        annotations: what is true.
        results: COCO results with `keypoints` and, for masks, `segmentation`.
        confidence: least score of a detection.
    """
    compared = compare(annotations, results, confidence)
    return [miss for comparison in compared for miss in comparison.misses()]


def compare(
    annotations: Annotations, results: Sequence[Result], confidence: float = 0.0
) -> Iterator[Comparison]:
    """Compare each image's detections with its annotations; arguments as for `find_misses`."""
    detections = defaultdict(list)
    for index, result in enumerate(results):
        if result["score"] >= confidence:
            detections[result["image_id"]].append(index)
    for image in annotations.images:
        order = sorted(detections[image.id], key=lambda i: -results[i]["score"])
        found = [results[i] for i in order]
        yield Comparison(image, order, found, annotations.skeleton)


def count_misses(annotations: Annotations, misses: list[Miss]) -> dict[str, int]:
    """Number of `persons` (with keypoints), of these `found`, and of each kind of miss."""
    counts = Counter(miss.kind for miss in misses)
    persons = sum(bool(person.labelled.any()) for person in annotations.people)
    found = persons - sum(counts[kind] for kind in PERSON_KINDS)
    return {"persons": persons, "found": found, **{kind: counts[kind] for kind in KINDS}}


def match_greedily(values: np.ndarray, least: float) -> dict[int, int]:
    """Rows, the first one first, take the free column of their highest value from `least`."""
    free, taken = values.copy(), {}
    for row in range(len(free)):
        if free[row].max(initial=-1) >= least:
            taken[row] = int(free[row].argmax())
            free[:, taken[row]] = -1
    return taken


class Comparison:
    """One image: D detections, best first, against its G annotated persons with keypoints.

    Args:
        image: with its annotations.
        order: place of each detection in all results.
        found: the detections.
        skeleton: of the keypoints.

    Attributes:
        unknown: U persons with a mask, without keypoints.
        similarity: (D, G, K) of each keypoint to the person's; 0 where that is unlabelled.
        oks, iou: (D, G).
        unknown_iou: (D, U) IoU of masks.
        in_crowd: (D,) largest fraction of the detection's mask that one crowd region covers.
        masked: persons with a mask, those with keypoints first.
        cover, fit: (D, masked) fraction of that mask which the detection's covers, and IoU.
        nested: (masked, masked) fraction of the first that the second covers.
    """

    def __init__(
        self, image: AnnotatedImage, order: list[int], found: list[Result], skeleton: Skeleton
    ):
        self.image, self.order = image, order
        self.scores = [float(result["score"]) for result in found]
        self.persons = [p for p in image.people if p.labelled.any()]
        others = [p for p in image.people if not p.labelled.any()]
        self.unknown = [p for p in others if p.segmentation is not None]
        self.crowds = [p for p in image.annotations if p.crowd]
        self.crowds += [p for p in others if p.segmentation is None]
        shape = (-1, skeleton.num_keypoints, 3)
        points = np.array([result["keypoints"] for result in found], np.float64)
        self.points = points.reshape(shape)[..., :2]
        self.sigmas = np.array(skeleton.sigmas)
        truth = np.array([p.keypoints for p in self.persons], np.float64).reshape(shape)
        self.labelled = truth[..., 2] > 0  # (G, K)
        self.similarity = self._keypoint_similarity(truth)
        # The same to the person's keypoint of the other side.
        self.mirrored = self._keypoint_similarity(truth[:, list(skeleton.flip)])
        self.oks = self.similarity.sum(-1) / np.maximum(self.labelled.sum(-1), 1)
        masks = self._rles(result.get("segmentation") for result in found)
        self.masked = [p for p in self.persons + self.unknown if p.segmentation]
        annotated = self._rles(p.segmentation for p in self.masked)
        self.cover = _iou(annotated, masks, crowd=True).T
        self.fit = _iou(masks, annotated)
        self.nested = _iou(annotated, annotated, crowd=True)
        self.iou = _iou(masks, self._rles(p.segmentation for p in self.persons))
        self.unknown_iou = _iou(masks, self._rles(p.segmentation for p in self.unknown))
        regions = [mask_or_box(p, image.size)[0] for p in self.crowds]
        in_crowd = _iou(masks, regions, crowd=True)
        self.in_crowd = in_crowd.max(1, initial=0)

    def misses(self) -> list[Miss]:
        """What went wrong here: see `find_misses`."""
        taken = match_greedily(self.oks, FOUND_OKS)
        free = [d for d in range(len(self.order)) if d not in taken]
        about = np.maximum(self.oks, self.iou) >= ABOUT
        misses = []
        explained = set()
        for g in sorted(set(range(len(self.persons))) - set(taken.values())):
            mine = [d for d in free if about[d, g]]
            kind, best = self._kind(g, mine, taken)
            explained.add(best)
            misses.append(self._person_miss(kind, self.persons[g], best))
        merged = self._merged()
        misses += [self._person_miss("merged_mask", self.masked[m], d) for d, m in merged]
        merging = {d for d, _ in merged}
        for d, g in taken.items():
            iou = float(self.iou[d, g])
            if self.persons[g].segmentation and d not in merging and iou < FOUND_IOU:
                misses.append(self._person_miss("poor_mask", self.persons[g], d, 1 - iou))
        for d in free:
            if d in explained or self._on_unknown(d):
                continue
            if about[d].any():
                g = int((self.oks + self.iou)[d].argmax())
                misses.append(self._detection_miss("duplicate", self.persons[g].id, d))
            elif not self._ignored_by_coco(d):
                misses.append(self._detection_miss("false", None, d))
        return misses

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
        near = (self.similarity[best, g] >= NEAR_KEYPOINT).sum() / self.labelled[g].sum()
        jitter = self.oks[best, g] >= ABOUT and near > NEAR_FRACTION
        return "jitter" if jitter else "misplaced", best

    def _merged(self) -> list[tuple[int, int]]:
        """Detections and those of `masked` they cover besides the one they fit best."""
        covered = self.cover >= COVER_FRACTION
        pairs = []
        for d in np.flatnonzero(covered.sum(1) >= 2).tolist():
            best = self.fit[d].argmax()
            besides = covered[d] & (self.nested[:, best] < COVER_FRACTION)
            pairs += [(d, m) for m in np.flatnonzero(besides).tolist()]
        return pairs

    def _swapped(self, d: int, g: int) -> bool:
        """Are keypoints not on this person's but on another's, or on those of its other side?"""
        elsewhere = self.labelled[g] & (self.similarity[d, g] < ON_KEYPOINT)
        others = np.delete(self.similarity[d], g, axis=0)
        on = np.concatenate((others, self.mirrored[d, g][None])) >= ON_KEYPOINT
        return bool((on & elsewhere).sum(1).max() >= SWAP_FRACTION * self.labelled[g].sum())

    def _stolen(self, d: int, taker: int, g: int) -> bool:
        """Has the detection that took another person this person's keypoints?"""
        on = self.labelled[taker] & (self.similarity[d, taker] < ON_KEYPOINT)
        on &= self.similarity[d, g] >= ON_KEYPOINT
        return bool(on.sum() >= SWAP_FRACTION * self.labelled[g].sum())

    def _on_unknown(self, d: int) -> bool:
        """Is its mask that of a person without keypoints, or in a crowd region?"""
        iou = self.unknown_iou[d].max(initial=0)
        known = self.iou[d].max(initial=0)
        return bool((ABOUT <= iou > known) or self.in_crowd[d] >= COVER_FRACTION)

    def _ignored_by_coco(self, d: int) -> bool:
        """OKS as COCO computes it without keypoints: distances to the doubled box."""
        for region in self.unknown + self.crowds:
            low, high = region.box[:2], region.box[2:]
            low, high = 2 * low - high, 2 * high - low
            out = np.maximum(low - self.points[d], 0) + np.maximum(self.points[d] - high, 0)
            if self._falloff((out**2).sum(-1), region.area).mean() >= FOUND_OKS:
                return True
        return False

    def _person_miss(
        self, kind: str, person: AnnotatedPerson, d: int | None, weight: float = 1.0
    ) -> Miss:
        cost = weight * person.area / (self.image.size[0] * self.image.size[1])
        return Miss(self.image.id, kind, person.id, None if d is None else self.order[d], cost)

    def _detection_miss(self, kind: str, annotation: int | None, d: int) -> Miss:
        return Miss(self.image.id, kind, annotation, self.order[d], self.scores[d])

    def _keypoint_similarity(self, truth: np.ndarray) -> np.ndarray:
        """Of the detections and (G, K, 3): (D, G, K), 0 where the truth is not labelled."""
        areas = np.reshape([p.area for p in self.persons], (-1, 1))
        squared = np.square(self.points[:, None] - truth[None, :, :, :2]).sum(-1)
        return self._falloff(squared, areas) * (truth[..., 2] > 0)

    def _falloff(self, squared: np.ndarray, area: float | np.ndarray) -> np.ndarray:
        """OKS of single keypoints from squared distances (..., K)."""
        scale = 8 * (area + np.spacing(1)) * np.square(self.sigmas)
        falloff: np.ndarray = np.exp(-squared / scale)
        return falloff

    def _rles(self, segmentations: Iterable[Segmentation | None]) -> list[Rle]:
        """Masks as RLE, without pixels where there is none."""
        return [as_rle(segmentation or [], self.image.size) for segmentation in segmentations]


def _iou(first: list[Rle], second: list[Rle], crowd: bool = False) -> np.ndarray:
    """(first, second) IoU of masks; as `crowd` the fraction of the first that is in the second."""
    if not first or not second:
        return np.zeros((len(first), len(second)))
    # pycocotools gives -1 for masks of images of different sizes.
    return np.maximum(rle_tools.iou(first, second, [int(crowd)] * len(second)), 0)
