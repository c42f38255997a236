"""Several processes train as one would: shared divisors, batch norm over the whole batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.nn.functional import all_reduce


def world() -> int:
    """Number of training processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if world() > 1 else 0


def mean_over_processes(value: Tensor) -> Tensor:
    """Mean of a tensor over the processes; no gradient flows through it."""
    if world() == 1:
        return value
    value = value.detach().clone()
    dist.all_reduce(value)
    return value / world()


class WholeBatchNorm(nn.BatchNorm2d):
    """Batch norm whose statistics are those of all processes' samples together.

    torch's own SyncBatchNorm runs on GPUs only.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or world() == 1:
            return super().forward(x)
        ones = torch.full_like(x[0, :, 0, 0], x.numel() / x.shape[1])
        sums = all_reduce(torch.stack((x.sum((0, 2, 3)), x.square().sum((0, 2, 3)), ones)))
        count = sums[2, 0].detach()
        mean = sums[0] / count
        variance = sums[1] / count - mean.square()
        if self.running_mean is not None and self.running_var is not None:
            pace = 0.1 if self.momentum is None else self.momentum
            with torch.no_grad():
                self.running_mean.lerp_(mean, pace)
                self.running_var.lerp_(variance * count / (count - 1), pace)
                self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return x * scale[:, None, None] + shift[:, None, None]


def use_whole_batches(network: nn.Module) -> None:
    """Make every batch norm of a network a WholeBatchNorm; its state stays as it is."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = WholeBatchNorm


def gather(parts: list[object]) -> list[object]:
    """All processes' list items, on every process."""
    if world() == 1:
        return parts
    everyone: list[list[object]] = [[] for _ in range(world())]
    dist.all_gather_object(everyone, parts)
    return [item for own in everyone for item in own]
