"""What Lightning trains: network, losses, optimiser, and the average of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from kdc_core.errors import KdcError
from kdc_core.network.kdc import KDC
from kdc_core.training.losses import instance_loss, mask_losses, pose_losses, total_loss
from kdc_core.training.processes import mean_over_processes, use_whole_batches
from kdc_core.training.samples import Batch

# The rate never falls below this share of its peak.
LEAST_PACE = 0.01


class TrainingError(KdcError):
    """A run that cannot go on; the text says why and what to do."""


class TrainingModule(lightning.LightningModule):
    """KDC with the parts named by `train.train` learning and the rest frozen.

    Attributes:
        average: exponential moving average of the network; this is what gets shipped.

    Args:
        network: with the weights to start from.
        steps: of the whole run.
        names: file names of the pictures of sample numbers, for messages.
    """

    def __init__(self, network: KDC, steps: int, names: Callable[[Iterable[int]], list[str]]):
        super().__init__()
        self.config = network.config
        self.steps, self.names = steps, names
        self.average = copy.deepcopy(network).requires_grad_(False).eval()
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        use_whole_batches(self.network)
        self.learning = [getattr(network, name) for name in self.config.train.train]
        network.requires_grad_(False)
        for part in self.learning:
            part.requires_grad_(True)
        self._pictures: list[int] = []  # sample numbers of the step under way
        self._scaled = channel_scales(network.posenet) if self._scales_steps() else []

    def _scales_steps(self) -> bool:
        return "posenet" in self.config.train.train and self.config.train.relative_steps

    def on_train_start(self) -> None:
        # Frozen parts keep the statistics they came with.
        self.network.eval()
        for part in self.learning:
            part.train()

    def training_step(self, batch: Batch, index: int) -> dict[str, Any]:
        picture, targets, weights, instances, numbers = batch
        self._pictures += numbers.tolist()
        train, share = self.config.train, mean_over_processes
        fields = self.network(picture.float().contiguous(memory_format=torch.channels_last))
        # The losses' sums need float32, whatever the network computed in.
        fields = fields.map(lambda maps: maps.float())
        losses: dict[str, Tensor] = {}
        if "posenet" in train.train:
            radius = self.config.fields.disk_radius_px
            losses |= pose_losses(fields, targets, weights, radius, train.smooth_px, share)
        if "segnet" in train.train:
            losses |= mask_losses(fields, targets, weights, train.smooth_px, share)
            losses["instance"] = instance_loss(
                fields.embedding,
                weights.mask,
                instances,
                self.network.grid,
                self.config.decode,
                share,
            )
        loss = total_loss(losses, train)
        if not torch.isfinite(loss):
            values = {k: float(v) for k, v in losses.items()}
            raise self._not_finite(f"loss is not finite at step {self.global_step} ({values})")
        return {"loss": loss, "losses": {k: v.detach() for k, v in losses.items()}}

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        # In fp16 the gradient scaler leaves out such steps itself, and tries a smaller scale.
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.config.train.precision != "16" and not torch.isfinite(norm):
            raise self._not_finite(f"gradient is not finite at step {self.global_step}")
        self._pictures.clear()

    def _not_finite(self, what: str) -> TrainingError:
        return TrainingError(
            f"{what}, pictures {', '.join(self.names(self._pictures))}; the files on disk are "
            "from before: look at these pictures with `kdc data check`, or lower train.rate in "
            "a folder of its own that starts from the written model"
        )

    def check_average(self) -> None:
        """Raise TrainingError where the average could not be written as a model (fp16)."""
        if not all(torch.isfinite(value.half()).all() for value in _floats(self.average)):
            raise TrainingError(
                f"the average of the weights at step {self.global_step} is not finite in fp16; "
                "the files on disk are from before: lower train.rate in a folder of its own"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"] = self.config.model_dump(mode="json")

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        before = [weight.detach().clone() for weight, _ in self._scaled]
        super().optimizer_step(*arguments, **options)
        # Here and not in a later hook, so that every checkpoint holds it. A young average
        # follows closely; it slows down to the configured pace.
        pace = min(self.config.train.ema, (1 + self.global_step) / (10 + self.global_step))
        with torch.no_grad():
            for (weight, scale), old in zip(self._scaled, before, strict=True):
                weight.copy_(old + scale.to(weight.device) * (weight - old))
            for mean, value in zip(_floats(self.average), _floats(self.network), strict=True):
                mean.lerp_(value, 1 - pace)

    def configure_optimizers(self) -> Any:
        train = self.config.train
        groups = []
        if "segnet" in train.train:
            parts = list(self.network.segnet.parameters())
            decayed = [p for p in parts if p.ndim > 1]
            plain = [p for p in parts if p.ndim <= 1]
            groups += [
                {"params": decayed, "lr": train.rate, "weight_decay": train.weight_decay},
                {"params": plain, "lr": train.rate, "weight_decay": 0.0},
            ]
        if "posenet" in train.train:
            parts = list(self.network.posenet.parameters())
            groups.append({"params": parts, "lr": train.rate_posenet, "weight_decay": 0.0})
        optimizer = torch.optim.AdamW(groups)

        def pace(step: int) -> float:
            warm = min(1.0, (step + 1) / max(1, train.warmup_steps))
            if train.schedule == "constant":
                return warm
            fallen = (1 + math.cos(math.pi * min(1.0, step / self.steps))) / 2
            return warm * (LEAST_PACE + (1 - LEAST_PACE) * fallen)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, pace)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def channel_scales(network: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Root mean square of each output channel of each convolution's weights.

    Batch norm folded into weights leaves channels of very different scale, and Adam steps all
    alike. A step times this is the step Adam would make on weights of unit scale.

    Returns:
        Weights and their scales (out, 1, 1, 1).
    """
    return [
        (m.weight, m.weight.detach().square().mean((1, 2, 3), keepdim=True).sqrt())
        for m in network.modules()
        if isinstance(m, nn.Conv2d)
    ]


def _floats(module: nn.Module) -> list[Tensor]:
    return [v for v in module.state_dict().values() if v.is_floating_point()]
