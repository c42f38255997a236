"""Skeleton, grid and letterbox: round trips."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdc_core.codec.grid import Grid, Letterbox, Level, SideRule
from kdc_core.codec.skeleton import COCO17, CROWDPOSE14, Skeleton


def test_flip_is_its_own_inverse_and_swaps_sides() -> None:
    flip = np.array(COCO17.flip)
    assert (flip[flip] == np.arange(17)).all()
    for name, mirrored in zip(COCO17.keypoints, flip, strict=True):
        other = name.replace("left", "L").replace("right", "left").replace("L", "right")
        assert COCO17.keypoints[mirrored] == other


def test_tree_joins_all_keypoints_within_eight_hops() -> None:
    _, _, depth = COCO17.shortest_paths(COCO17.edges(("tree",)))
    assert depth[:17, :17].min() == 0
    assert depth[:17, :17].max() == 8
    assert (depth[:17, 17] == -1).all(), "the tree does not reach the body center"


def test_star_needs_one_hop_from_the_center_and_two_elsewhere() -> None:
    _, _, depth = COCO17.shortest_paths(COCO17.edges(("star",)))
    assert (depth[17, :17] == 1).all()
    assert depth.max() == 2


def test_paths_follow_the_edge_list() -> None:
    edges = COCO17.edges(("tree", "star"))
    parent, edge, depth = COCO17.shortest_paths(edges)
    for root in range(18):
        for type_ in range(18):
            if depth[root, type_] > 0:
                assert edges[edge[root, type_]] == (parent[root, type_], type_)
                assert depth[root, parent[root, type_]] == depth[root, type_] - 1


@given(
    st.sampled_from([Grid(4), Grid(4, 1.5), Grid(8), Grid(8, 3.5), Grid(16, 7.5)]),
    st.floats(-1000, 1000),
)
def test_cells_and_pixels_are_a_round_trip(grid: Grid, cell: float) -> None:
    assert grid.to_cell(grid.to_pixel(cell)) == pytest.approx(cell, abs=1e-9)


def test_lattices_have_the_sizes_of_their_kind() -> None:
    assert Grid(16).count(401) == 26, "n * stride + 1, corners on cells"
    assert Grid(4, 1.5).count(416) == 104
    assert Grid(4).count(416) == 104


@pytest.mark.parametrize("upsample", [1, 2, 3, 4])
@pytest.mark.parametrize("offset", [0.0, 1.5])
def test_fine_grid_lies_where_half_pixel_upsampling_puts_it(upsample: int, offset: float) -> None:
    grid = Grid(4, offset)
    for o in range(9):
        coarse_cell = (o + 0.5) / upsample - 0.5
        assert grid.finer(upsample).to_pixel(o) == pytest.approx(grid.to_pixel(coarse_cell))


@pytest.mark.parametrize("upsample", [1, 2, 4])
@pytest.mark.parametrize("factor", [1, 2, 4])
@pytest.mark.parametrize("offset", [0.0, 1.5])
def test_levels_upsampled_lie_upon_each_other(upsample: int, factor: int, offset: float) -> None:
    grid = Grid(4, offset)
    level = Level.of(grid, factor)
    for o in range(9):
        there = level.to_image(grid.finer(upsample * factor).to_pixel(o))
        assert there == pytest.approx(grid.finer(upsample).to_pixel(o), abs=0.51)


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([256, 448, 640]))
def test_letterbox_fits_and_comes_back(height: int, width: int, longer: int) -> None:
    box = Letterbox.fit((height, width), longer, SideRule(32))
    assert max(box.content) == longer
    assert all(
        side % 32 == 0 and 0 <= side - c < 32
        for side, c in zip(box.size, box.content, strict=True)
    )
    corners = np.array([[-0.5, -0.5], [width - 0.5, height - 0.5]])
    inside = box.to_network(corners)
    assert inside[0] == pytest.approx([-0.5, -0.5])
    assert inside[1] == pytest.approx([box.content[1] - 0.5, box.content[0] - 0.5])
    assert box.to_image(inside) == pytest.approx(corners, abs=1e-6)
    for grid in (Grid(2, 0.5), Level.of(Grid(4, 1.5), 2).lattice):
        matrix = box.matrix(grid)
        cells = corners @ matrix[:, :2].T + matrix[:, 2]
        assert cells == pytest.approx(grid.to_cell(inside), abs=1e-6)


@given(st.integers(1, 9000), st.sampled_from([64, 400, 761]))
def test_the_thinnest_image_has_a_frame_on_the_papers_lattice(longer: int, side: int) -> None:
    for image in ((1, longer), (longer, 1)):
        box = Letterbox.fit(image, side, SideRule(8, 1))
        assert min(box.size) >= 9 and all(part % 8 == 1 for part in box.size)
        assert all(0 <= part - c < 9 for part, c in zip(box.size, box.content, strict=True))


@pytest.mark.parametrize("skeleton", [COCO17, CROWDPOSE14])
def test_skeletons_hang_together(skeleton: Skeleton) -> None:
    count = skeleton.num_keypoints
    assert len(skeleton.flip) == len(skeleton.sigmas) == count
    assert [skeleton.flip[i] for i in skeleton.flip] == list(range(count)), "mirrored twice"
    for index, name in enumerate(skeleton.keypoints):
        twin = skeleton.keypoints[skeleton.flip[index]]
        assert twin.replace("right_", "left_") == name.replace("right_", "left_")
    depth = skeleton.shortest_paths(skeleton.edges(("tree",)))[2]
    assert (depth[:count, :count] >= 0).all(), "the tree joins all keypoints"
