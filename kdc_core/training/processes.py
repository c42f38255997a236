"""Several processes train as one would: shared divisors, batch norm over the whole batch."""

from __future__ import annotations

import os
from typing import TypeVar

import cv2
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.nn.functional import all_reduce

from kdc_core.stopping import leave_signals

T = TypeVar("T")


def world() -> int:
    """Number of training processes, as torchrun says; Lightning joins them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def one_thread(worker: int) -> None:
    """Keep a loader process to one thread: the cores belong to training.

    It ends with the training process, whoever else gets a signal that is sent to all.
    """
    leave_signals()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def mean_over_processes(value: Tensor) -> Tensor:
    """Mean of a tensor over the processes; no gradient flows through it."""
    value = value.detach().clone()
    if world() > 1:
        dist.all_reduce(value)
    return value / world()


def gather(parts: dict[int, T]) -> dict[int, T]:
    """All processes' dictionaries as one, on every process."""
    if world() == 1:
        return parts
    everyone: list[dict[int, T]] = [{} for _ in range(world())]
    dist.all_gather_object(everyone, parts)
    return {key: value for own in everyone for key, value in own.items()}


class WholeBatchNorm(nn.BatchNorm2d):
    """Batch norm whose statistics are those of all processes' samples together.

    torch's SyncBatchNorm, which Lightning's `sync_batchnorm` puts in, raises on a CPU.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or world() == 1:
            return super().forward(x)
        # Counts and squares need float32, whatever the network computes in.
        with torch.autocast(x.device.type, enabled=False):
            wide = x.float()
            ones = torch.full_like(wide[0, :, 0, 0], x.numel() / x.shape[1])
            sums = (wide.sum((0, 2, 3)), wide.square().sum((0, 2, 3)), ones)
            totals = all_reduce(torch.stack(sums))
        count = totals[2, 0].detach()
        mean = totals[0] / count
        variance = (totals[1] / count - mean.square()).clamp(min=0)
        if self.running_mean is not None and self.running_var is not None:
            momentum = 0.1 if self.momentum is None else self.momentum
            with torch.no_grad():
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(variance * count / (count - 1), momentum)
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked.add_(1)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return (wide * scale[:, None, None] + shift[:, None, None]).to(x.dtype)


def use_whole_batches(network: nn.Module) -> None:
    """Make every batch norm of a network a WholeBatchNorm; its state stays as it is."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = WholeBatchNorm
