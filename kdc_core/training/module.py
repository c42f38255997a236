"""What Lightning trains: network, losses, optimiser, and the average of the weights."""

from __future__ import annotations

import copy
import math
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from kdc_core.fields import Fields
from kdc_core.losses import mask_losses, pose_losses, total_loss
from kdc_core.network.kdc import KDC

Batch = tuple[Tensor, Fields, Fields]


class TrainingModule(lightning.LightningModule):
    """KDC with the parts named by `train.train` learning and the rest frozen.

    Attributes:
        average: exponential moving average of the network; this is what gets shipped.
    """

    def __init__(self, network: KDC):
        super().__init__()
        self.config = network.config
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(network).requires_grad_(False).eval()
        self.learning = [getattr(network, name) for name in self.config.train.train]
        network.requires_grad_(False)
        for part in self.learning:
            part.requires_grad_(True)

    def on_train_start(self) -> None:
        # Frozen parts keep the statistics they came with.
        self.network.eval()
        for part in self.learning:
            part.train()

    def training_step(self, batch: Batch, index: int) -> dict[str, Any]:
        picture, targets, weights = batch
        fields = self.network(picture.float().contiguous(memory_format=torch.channels_last))
        losses: dict[str, Tensor] = {}
        if "posenet" in self.config.train.train:
            losses |= pose_losses(fields, targets, weights, self.config.fields.disk_radius_px)
        if "segnet" in self.config.train.train:
            losses |= mask_losses(fields, targets, weights)
        loss = total_loss(losses, self.config.train)
        if not torch.isfinite(loss):
            values = {k: float(v) for k, v in losses.items()}
            raise FloatingPointError(
                f"loss is not finite at step {self.global_step} ({values}); the last checkpoint "
                "is from before it: lower train.rate and run the same command again"
            )
        return {"loss": loss, "losses": {k: v.detach() for k, v in losses.items()}}

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        super().optimizer_step(*arguments, **options)
        # Here and not in a later hook, so that every checkpoint holds it. A young average
        # follows closely; it slows down to the configured pace.
        pace = min(self.config.train.ema, (1 + self.global_step) / (10 + self.global_step))
        pairs = zip(_floats(self.average), _floats(self.network), strict=True)
        with torch.no_grad():
            for mean, value in pairs:
                mean.lerp_(value, 1 - pace)

    def configure_optimizers(self) -> Any:
        train = self.config.train
        decayed = [p for part in self.learning for p in part.parameters() if p.ndim > 1]
        plain = [p for part in self.learning for p in part.parameters() if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": train.weight_decay},
             {"params": plain, "weight_decay": 0.0}],
            lr=train.rate,
        )  # fmt: skip

        def pace(step: int) -> float:
            warm = min(1.0, (step + 1) / max(1, train.warmup_steps))
            return warm * (0.01 + 0.99 * (1 + math.cos(math.pi * step / train.steps)) / 2)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, pace)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def _floats(module: nn.Module) -> list[Tensor]:
    return [v for v in module.state_dict().values() if v.is_floating_point()]
