"""CrowdPose's people for a model of another skeleton: the keypoints that both have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kdc_core.codec.skeleton import Skeleton
from kdc_core.data.annotations import AnnotatedPerson, Annotations


def on_skeleton(annotations: Annotations, skeleton: Skeleton) -> Annotations:
    """Annotations with the keypoints of another skeleton; those that only it has are unlabelled.

    Args:
        annotations: of their own skeleton.
        skeleton: whose keypoints of the same names are the same.
    """
    theirs = annotations.skeleton.keypoints
    common = tuple(k for k, name in enumerate(skeleton.keypoints) if name in theirs)
    places = [theirs.index(skeleton.keypoints[k]) for k in common]

    def moved(person: AnnotatedPerson) -> AnnotatedPerson:
        keypoints = np.zeros((skeleton.num_keypoints, 3), np.float32)
        keypoints[list(common)] = person.keypoints[places]
        count = int((keypoints[:, 2] > 0).sum())
        return replace(person, keypoints=keypoints, num_keypoints=count)

    images = tuple(
        replace(image, persons=tuple(map(moved, image.persons))) for image in annotations.images
    )
    return replace(annotations, images=images, skeleton=skeleton, common=common)
