"""Skeleton: the names, order, edges and scoring constants of a set of keypoints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Edges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Skeleton:
    """A set of keypoints; every other module takes its counts and edges from here.

    Besides its K keypoints a skeleton has one more *type*, the body center, with index K
    (T = K + 1 types).

    Attributes:
        name: identifier written into model files.
        keypoints: K names; left and right are the person's own.
        tree: the K - 1 undirected bones that join all keypoints, as index pairs.
        bones: the lines to draw.
        flip: index of each keypoint's mirror image.
        sigmas: K per-keypoint constants of OKS (COCO keypoint evaluation).
    """

    name: str
    keypoints: tuple[str, ...]
    tree: Edges
    bones: Edges
    flip: tuple[int, ...]
    sigmas: tuple[float, ...]

    @property
    def num_keypoints(self) -> int:
        return len(self.keypoints)

    @property
    def num_types(self) -> int:
        """Keypoints and the body center."""
        return len(self.keypoints) + 1

    @property
    def center(self) -> int:
        """Index of the body center among the types."""
        return len(self.keypoints)

    def edges(self, edge_sets: tuple[str, ...]) -> Edges:
        """Directed edges (from, to) of the given sets, in the order of the mid-range channels.

        Args:
            edge_sets: any of `tree` (bones, both ways), `star` (center to keypoint and back) and
                `star_out` (center to keypoint only).
        """
        keypoints = range(self.num_keypoints)
        known = {
            "tree": self.tree + tuple((b, a) for a, b in self.tree),
            "star": tuple((self.center, k) for k in keypoints)
            + tuple((k, self.center) for k in keypoints),
            "star_out": tuple((self.center, k) for k in keypoints),
        }
        return tuple(edge for name in edge_sets for edge in known[name])

    def shortest_paths(self, edges: Edges) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Breadth-first paths from every root type along directed edges.

        Args:
            edges: directed edges (from, to).

        Returns:
            parent, edge, depth: (T, T) int64 each, indexed [root, type]. `parent` is the type
            before it on the path, `edge` the index of the last edge, `depth` the number of
            hops (0 for the root, -1 where no path leads).
        """
        types = self.num_types
        parent = np.tile(np.arange(types)[:, None], (1, types)).astype(np.int64)
        edge = np.zeros((types, types), np.int64)
        depth = np.full((types, types), -1, np.int64)
        for root in range(types):
            depth[root, root] = 0
            queue = [root]
            for here in queue:
                for index, (a, b) in enumerate(edges):
                    if a == here and depth[root, b] < 0:
                        parent[root, b], edge[root, b] = a, index
                        depth[root, b] = depth[root, a] + 1
                        queue.append(b)
        return parent, edge, depth


def _twice(*values: float) -> tuple[float, ...]:
    """Each value for left and for right."""
    return tuple(value for value in values for _ in range(2))


COCO17 = Skeleton(
    name="coco17",
    keypoints=tuple(
        (
            "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder "
            "left_elbow right_elbow left_wrist right_wrist left_hip right_hip "
            "left_knee right_knee left_ankle right_ankle"
        ).split()
    ),
    tree=(
        (0, 1),
        (0, 2),
        (1, 3),
        (2, 4),
        (0, 5),
        (0, 6),
        (5, 7),
        (6, 8),
        (7, 9),
        (8, 10),
        (5, 11),
        (6, 12),
        (11, 13),
        (12, 14),
        (13, 15),
        (14, 16),
    ),
    bones=(
        (0, 1),
        (0, 2),
        (1, 3),
        (2, 4),
        (5, 6),
        (5, 7),
        (7, 9),
        (6, 8),
        (8, 10),
        (5, 11),
        (6, 12),
        (11, 12),
        (11, 13),
        (13, 15),
        (12, 14),
        (14, 16),
    ),
    flip=(0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15),
    sigmas=(0.026, *_twice(0.025, 0.035, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089)),
)

CROWDPOSE14 = Skeleton(
    name="crowdpose14",
    keypoints=tuple(
        (
            "left_shoulder right_shoulder left_elbow right_elbow left_wrist "
            "right_wrist left_hip right_hip left_knee right_knee left_ankle "
            "right_ankle head neck"
        ).split()
    ),
    tree=(
        (13, 12),
        (13, 0),
        (13, 1),
        (0, 2),
        (1, 3),
        (2, 4),
        (3, 5),
        (0, 6),
        (1, 7),
        (6, 8),
        (7, 9),
        (8, 10),
        (9, 11),
    ),
    bones=(
        (13, 12),
        (13, 0),
        (13, 1),
        (0, 2),
        (1, 3),
        (2, 4),
        (3, 5),
        (0, 6),
        (1, 7),
        (6, 7),
        (6, 8),
        (7, 9),
        (8, 10),
        (9, 11),
    ),
    flip=(1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 12, 13),
    sigmas=_twice(0.079, 0.072, 0.062, 0.107, 0.087, 0.089, 0.079),  # head and neck last
)

SKELETONS = {skeleton.name: skeleton for skeleton in (COCO17, CROWDPOSE14)}
