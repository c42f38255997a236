"""Encode on the device: what `kdc_core.codec.encode` draws, of a batch at once, in torch.

The one in numpy draws only where somebody is, which is quicker on a CPU (`kdc bench data`); this
one looks at every cell, as a GPU can. A test holds them equal.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from kdc_core.codec.codec import Codec
from kdc_core.codec.coverage import coverage_kernel
from kdc_core.codec.encode import (
    CENTER_DISK_FRACTION,
    INSTANCES,
    LEAST_DISK_CELLS,
    LEAST_INSTANCE_CELLS,
    REACH_SIGMAS,
    SIGMA_FRACTION,
    SIGMA_LIMITS_PX,
    Instances,
)
from kdc_core.codec.fields import Fields
from kdc_core.codec.grid import Grid
from kdc_core.codec.sample import Samples

FAR = 1e9


class _Annotated(NamedTuple):
    """What is known of the people of a batch.

    Attributes:
        points: (B, P, T, 2) of all types, pixels.
        known: (B, P, T) bool.
        box_size: (B, P) square root of the box's area.
        cover: (B, P, h, w) fraction of each cell.
        area: (B, P) cells.
        x, y: (w,), (h,) pixels of the cells.
    """

    points: Tensor
    known: Tensor
    box_size: Tensor
    cover: Tensor
    area: Tensor
    x: Tensor
    y: Tensor


def encode_batch(
    samples: Samples, codec: Codec
) -> tuple[Fields[Tensor], Fields[Tensor], Instances[Tensor]]:
    """Draw targets, weights of their losses, and the largest people, as `encode` does for one
    sample.

    Args:
        samples: on the device.
        codec: skeleton, grid and form of the targets.
    """
    grid, skeleton = codec.grid, codec.skeleton
    people = _people(samples, codec)
    size = (len(people.y), len(people.x))
    crowd = _coverage(samples.crowd.long(), 1, grid, *size)[:, 0] >= 0.5
    unmasked = _coverage(samples.unmasked.long(), 1, grid, *size)[:, 0] > 0
    fineness = codec.mask_fineness
    finer = (grid.finer(fineness), fineness * size[0], fineness * size[1])
    union = _coverage((samples.labels > 0).long(), 1, *finer)
    mask_weight = (_coverage(samples.unmasked.long(), 1, *finer) == 0) & (
        _coverage(samples.crowd.long(), 1, *finer) < 0.5
    )

    radius = torch.full_like(people.points[..., 0], codec.disk_radius_px)
    least = LEAST_DISK_CELLS * grid.stride
    most = max(codec.disk_radius_px, least)
    radius[..., skeleton.center] = (CENTER_DISK_FRACTION * people.box_size).clamp(least, most)
    owner = _disks(people, radius)
    inside = owner >= 0
    heat = _gaussians(people) if codec.heat == "gaussian" else inside.float()

    begins = torch.tensor([begin for begin, _ in codec.edges], device=owner.device)
    ends = torch.tensor([end for _, end in codec.edges], device=owner.device)
    short = _offsets(people.points, owner, people) * inside[:, :, None]
    at_edge = owner[:, begins]
    known = _of_owner(people.known[:, :, ends].float()[..., None], at_edge)[:, :, 0] > 0
    mid_weight = known & inside[:, begins]
    mid = _offsets(people.points[:, :, ends], at_edge, people) * mid_weight[:, :, None]

    embedding, embedding_weight = _embedding(people)
    heat_weight = _heat_weight(samples, people, inside, unmasked, skeleton.num_keypoints)
    there = ~crowd[:, None, None]
    targets = Fields(heat, short, mid, union, embedding)
    weights = Fields(
        heat_weight * ~crowd[:, None],
        inside[:, :, None].float() * there,
        mid_weight[:, :, None].float() * there,
        mask_weight.float(),
        embedding_weight * ~unmasked[:, None, None] * there,
    )
    return targets, weights, _instances(samples, people)


def _people(samples: Samples, codec: Codec) -> _Annotated:
    height, width = samples.labels.shape[-2:]
    count, device = samples.boxes.shape[1], samples.labels.device
    h, w = codec.grid.count(height), codec.grid.count(width)
    x, y = (torch.from_numpy(pixels).to(device) for pixels in codec.grid.cell_pixels(h, w))
    # Pixels of each mask, and the mean of their places (equation 1).
    columns, rows = marginals(samples.labels, count)
    counted = columns.sum(-1)
    sums = (
        (columns * torch.arange(width, device=device)).sum(-1),
        (rows * torch.arange(height, device=device)).sum(-1),
    )
    middle = torch.stack(sums, -1) / counted.clamp(min=1)[..., None]
    masked = counted > 0
    box_middle = (samples.boxes[..., :2] + samples.boxes[..., 2:]) / 2
    center = torch.where(masked[..., None], middle, box_middle)
    seen = (samples.keypoints[..., 2] > 0) & samples.present[..., None]
    # Without a mask, a box without keypoints may be anything (a crowd region, too).
    column = center[..., 0].round().clamp(0, width - 1).long()
    row = center[..., 1].round().clamp(0, height - 1).long()
    unknown = samples.unmasked.flatten(1).gather(1, row * width + column)
    known_center = samples.present & (masked | (seen.any(-1) & unknown))
    points = torch.cat((samples.keypoints[..., :2], center[:, :, None]), 2)
    sides = (samples.boxes[..., 2:] - samples.boxes[..., :2]).clamp(min=0)
    cover = _coverage(samples.labels, count, codec.grid, h, w)
    known = torch.cat((seen, known_center[..., None]), 2)
    return _Annotated(points, known, sides.prod(-1).sqrt(), cover, cover.sum((2, 3)), x, y)


def marginals(labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Pixels of each label from 1 to count, by column (B, count, W) and by row (B, count, H).

    One look at all labels for each: adding them up by label, as `scatter_add_` does, has a GPU's
    threads wait for each other.
    """
    batch, height, width = labels.shape
    by_column = torch.zeros(batch, count, width, device=labels.device)
    by_row = torch.zeros(batch, count, height, device=labels.device)
    for person in range(count):
        mask = labels == person + 1
        by_column[:, person], by_row[:, person] = mask.sum(1), mask.sum(2)
    return by_column, by_row


def _coverage(labels: Tensor, count: int, grid: Grid, h: int, w: int) -> Tensor:
    """(B, count, h, w) fraction of each cell that labels 1 to count cover; see `coverage`."""
    height, width = labels.shape[-2:]
    kernel, first = coverage_kernel(grid)
    stride, device = int(grid.stride), labels.device
    rows = _reached(h, height, first, len(kernel), stride, device)
    columns = _reached(w, width, first, len(kernel), stride, device)
    cover = torch.zeros(len(labels), count + 1, h, w, device=device)
    for down, share in enumerate(kernel):
        for right, other in enumerate(kernel):
            if share * other > 0:
                at = labels[:, rows[down][:, None], columns[right]]
                part = torch.full((1, 1, 1, 1), float(share * other), device=device)
                cover.scatter_add_(1, at[:, None], part.expand(len(labels), 1, h, w))
    return cover[:, 1:]


def _reached(
    cells: int, pixels: int, first: int, reach: int, stride: int, device: torch.device
) -> Tensor:
    """(reach, cells) pixels that each place of the kernel sees; outside, those of the border."""
    start = torch.arange(cells, device=device) * stride + first
    return (start + torch.arange(reach, device=device)[:, None]).clamp(0, pixels - 1)


def _square(people: _Annotated, person: int) -> Tensor:
    """(B, T, h, w) squared distance of the cells to each type of a person; FAR if not known."""
    points = people.points[:, person]
    x = (people.x - points[..., 0, None]).square()
    y = (people.y - points[..., 1, None]).square()
    square = x[:, :, None, :] + y[:, :, :, None]
    return square.masked_fill(~people.known[:, person, :, None, None], FAR)


def _disks(people: _Annotated, radius: Tensor) -> Tensor:
    """(B, T, h, w) number of the person whose disk covers a cell (nearest wins), else -1."""
    batch, count, types = people.known.shape
    shape = (batch, types, len(people.y), len(people.x))
    nearest = torch.full(shape, FAR, device=radius.device)
    owner = torch.full(shape, -1, dtype=torch.int64, device=radius.device)
    for person in range(count):
        square = _square(people, person)
        closer = (square <= radius[:, person, :, None, None].square()) & (square < nearest)
        nearest = torch.where(closer, square, nearest)
        owner = owner.masked_fill(closer, person)
    return owner


def _gaussians(people: _Annotated) -> Tensor:
    """(B, T, h, w) the highest of the Gaussians of each type."""
    sigma = (SIGMA_FRACTION * people.box_size).clamp(*SIGMA_LIMITS_PX)[:, :, None, None, None]
    heat: Tensor | None = None
    for person in range(people.known.shape[1]):
        square, own = _square(people, person), sigma[:, person]
        x = (people.x - people.points[:, person, :, 0, None]).abs()[:, :, None, :]
        y = (people.y - people.points[:, person, :, 1, None]).abs()[:, :, :, None]
        near = (x <= REACH_SIGMAS * own) & (y <= REACH_SIGMAS * own)
        value = torch.exp(square / (-2 * own.square())) * near
        heat = value if heat is None else torch.maximum(heat, value)
    if heat is None:
        batch, _, types = people.known.shape
        return people.cover.new_zeros(batch, types, len(people.y), len(people.x))
    return heat


def _of_owner(values: Tensor, owner: Tensor) -> Tensor:
    """(B, N, D, h, w) of values (B, P, N, D) at each cell's owner (B, N, h, w)."""
    batch, types, h, w = owner.shape
    rows = values.transpose(1, 2)  # (B, N, P, D)
    if not rows.shape[2]:
        return values.new_zeros(batch, types, values.shape[-1], h, w)
    index = owner.clamp(min=0).flatten(2)[..., None].expand(-1, -1, -1, rows.shape[-1])
    return rows.gather(2, index).transpose(2, 3).unflatten(3, (h, w))


def _offsets(points: Tensor, owner: Tensor, people: _Annotated) -> Tensor:
    """(B, N, 2, h, w) from each cell to the owner's point (B, P, N, 2) of that type."""
    to = _of_owner(points, owner)
    here = torch.stack(torch.broadcast_tensors(people.x, people.y[:, None]))
    return to - here


def _embedding(people: _Annotated) -> tuple[Tensor, Tensor]:
    """Offsets from each person's cells to its points; where people overlap, the smaller's."""
    batch, count, types = people.known.shape
    if not count:
        shape = (batch, types, 2, len(people.y), len(people.x))
        return people.cover.new_zeros(shape), people.cover.new_zeros(shape)[:, :, :1]
    order = (-people.area).argsort(dim=1, stable=True).argsort(1)  # largest first
    # Who covers half of a cell comes before who covers less.
    rank = order[:, :, None, None] + count * (people.cover > 0.5)
    best, owner = torch.where(people.cover > 0, rank, -1).max(1)
    covered = (best >= 0)[:, None].expand(-1, types, -1, -1)
    each = owner[:, None].expand(-1, types, -1, -1)
    known = (_of_owner(people.known.float()[..., None], each)[:, :, 0] > 0) & covered
    offsets = _offsets(people.points, each, people) * known[:, :, None]
    area = people.area.clamp(min=1).gather(1, owner.flatten(1)).view_as(owner)
    return offsets, (known / area.sqrt()[:, None])[:, :, None]


def _heat_weight(
    samples: Samples,
    people: _Annotated,
    inside: Tensor,
    unmasked: Tensor,
    keypoints: int,
) -> Tensor:
    """1 where the heatmap is known: not on people without labelled keypoints."""
    unlabelled = samples.present & ~people.known[..., :keypoints].any(-1)
    low, high = samples.boxes[..., :2, None], samples.boxes[..., 2:, None] + 1e-3
    columns = (people.x >= low[:, :, 0]) & (people.x < high[:, :, 0])
    rows = (people.y >= low[:, :, 1]) & (people.y < high[:, :, 1])
    boxes = columns[:, :, None, :] & rows[:, :, :, None] & unlabelled[..., None, None]
    hidden = boxes.any(1, keepdim=True)
    weight = torch.ones_like(inside, dtype=torch.float32)
    weight[:, :keypoints].masked_fill_(hidden, 0)
    weight[:, keypoints:].masked_fill_(hidden & unmasked[:, None], 0)
    return weight.masked_fill(inside, 1)


def _instances(samples: Samples, people: _Annotated) -> Instances[Tensor]:
    count = people.area.shape[1]
    missing = max(0, INSTANCES - count)
    area = F.pad(people.area, (0, missing))
    order = (-area).argsort(dim=1, stable=True)[:, :INSTANCES]
    there = (area.gather(1, order) >= LEAST_INSTANCE_CELLS).float()

    def pick(values: Tensor) -> Tensor:
        values = F.pad(values, (0, 0) * (values.ndim - 2) + (0, missing))
        index = order.reshape(*order.shape, *[1] * (values.ndim - 2))
        chosen = values.gather(1, index.expand(-1, -1, *values.shape[2:]))
        return chosen * there.reshape(index.shape)

    use = people.known.float()
    use[..., -1] *= ~people.known[..., :-1].any(-1)
    use = use / use.sum(-1, keepdim=True).clamp(min=1)
    sides = (samples.boxes[..., 2:] - samples.boxes[..., :2]).clamp(min=1)
    return Instances(
        pick(people.points), pick(use), pick(sides.prod(-1).sqrt()), pick(people.cover)
    )
