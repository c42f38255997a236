"""What Lightning trains: network, losses and optimizer."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from kdc_core.errors import KdcError
from kdc_core.evaluation.coco import Result, coco_results
from kdc_core.inference.predictor import ImageArrayError, Predictor, evaluation_thresholds
from kdc_core.inference.runtimes.torch import TorchRuntime
from kdc_core.network.kdc import KDC
from kdc_core.training.losses import all_losses, total_loss
from kdc_core.training.on_device import Recipes
from kdc_core.training.processes import mean_over_processes, use_whole_batches
from kdc_core.training.samples import Batch

log = logging.getLogger(__name__)

# The learning rate never falls below this fraction of its peak.
LEAST_RATE = 0.01


class TrainingError(KdcError):
    """A run that cannot go on; the text says why and what to do."""


class TrainingModule(lightning.LightningModule):
    """KDC with the parts named by `train.train` learning and the rest frozen.

    Args:
        network: with the weights to start from.
        steps: of the whole run.
        names: file names of the images of sample numbers, for messages.

    Attributes:
        predictor: of the averaged network, during an evaluation.
        make: makes a batch on the device of what was drawn for it; a plain function, which
            copies of the module share. None where batches come from the loader whole.
    """

    predictor: Predictor

    def __init__(self, network: KDC, steps: int, names: Callable[[Iterable[int]], list[str]]):
        super().__init__()
        self.config = network.config
        self.steps = steps
        # A function, which copies of the module share: a method would be copied with its data set.
        self._names = lambda numbers: names(numbers)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        use_whole_batches(self.network)
        self.learning = [getattr(network, name) for name in self.config.train.train]
        network.requires_grad_(False)
        for part in self.learning:
            part.requires_grad_(True)
        self._numbers: list[int] = []  # samples of the step under way
        self.make: Callable[[Recipes], Batch] | None = None
        relative = "posenet" in self.config.train.train and self.config.train.relative_steps
        self._scaled = channel_scales(network.posenet) if relative else []

    def on_train_start(self) -> None:
        # Frozen parts keep the statistics they came with.
        self.network.eval()
        for part in self.learning:
            part.train()

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Make the batch, where only what was drawn for it came to the device."""
        return self.make(batch) if self.make and isinstance(batch, Recipes) else batch

    def training_step(self, batch: Batch, index: int) -> dict[str, Any]:
        """Return the loss, and under `losses` it and its parts for the table of metrics."""
        self._numbers += batch.numbers
        image = batch.image.float().contiguous(memory_format=torch.channels_last)
        # The losses' sums need float32, whatever the network computed in.
        fields = self.network(image).map(lambda maps: maps.float())
        parts = all_losses(
            fields, batch.targets, batch.weights, batch.instances, self.network.codec, self.config
        )
        divisors = mean_over_processes(torch.stack([part.divisor for part in parts.values()]))
        losses = {
            name: part.over(divisor)
            for (name, part), divisor in zip(parts.items(), divisors, strict=True)
        }
        loss = total_loss(losses, self.config.train)
        if not torch.isfinite(loss):
            values = {name: value.item() for name, value in losses.items()}
            raise self._not_finite(f"loss is not finite at step {self.global_step} ({values})")
        # Lightning divides the first by the passes of a step.
        shown = {"loss": loss, **losses}
        return {"loss": loss, "losses": {name: value.detach() for name, value in shown.items()}}

    def on_validation_epoch_start(self) -> None:
        # Lightning's WeightAveraging has put the average in place of the weights.
        check_average(self.state_dict())
        self.predictor = Predictor(TorchRuntime(self.network, {}, self.device))
        self.predictor.thresholds = evaluation_thresholds(self.network.config)

    def validation_step(self, batch: tuple[int, np.ndarray | None], index: int) -> dict[str, Any]:
        """Predict an image of --val: its COCO results by its id, none if it cannot be read."""
        image_id, image = batch
        found: list[Result] = []
        try:
            if image is not None:
                with torch.autocast(self.device.type, enabled=False):
                    found = coco_results(self.predictor(image), image_id)
        except ImageArrayError as error:
            log.warning("left out of evaluation: image %s: %s", image_id, error)
        return {"found": {image_id: found}}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # In fp16 the gradient scaler leaves out such steps itself, and tries a smaller scale.
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.config.train.precision != "16" and not torch.isfinite(norm):
            raise self._not_finite(f"gradient is not finite at step {self.global_step}")
        self._numbers.clear()

    def _not_finite(self, what: str) -> TrainingError:
        return TrainingError(
            f"{what}, images {', '.join(self._names(self._numbers))}: lower train.rate, in "
            "another --output, or look at these images with `kdc data check`. What the folder "
            "holds is from before"
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_average(checkpoint["state_dict"])  # WeightAveraging has put it there
        checkpoint["config"] = self.config.model_dump(mode="json")

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        before = [weight.detach().clone() for weight, _ in self._scaled]
        super().optimizer_step(*arguments, **options)
        with torch.no_grad():
            for (weight, scale), old in zip(self._scaled, before, strict=True):
                weight.copy_(old + scale.to(weight.device) * (weight - old))

    def configure_optimizers(self) -> Any:
        train = self.config.train
        groups: list[dict[str, Any]] = []
        if "segnet" in train.train:
            parameters = list(self.network.segnet.parameters())
            decayed = [p for p in parameters if p.ndim > 1]
            plain = [p for p in parameters if p.ndim <= 1]
            groups.append(
                {"params": decayed, "lr": train.rate, "weight_decay": train.weight_decay}
            )
            groups.append({"params": plain, "lr": train.rate, "weight_decay": 0.0})
        if "posenet" in train.train:
            parameters = list(self.network.posenet.parameters())
            groups.append({"params": parameters, "lr": train.rate_posenet, "weight_decay": 0.0})
        optimizer = torch.optim.AdamW(groups)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate_factor)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def _rate_factor(self, step: int) -> float:
        """Learning rate of a step as a fraction of its peak."""
        train = self.config.train
        warm = min(1.0, (step + 1) / max(1, train.warmup_steps))
        if train.schedule == "constant":
            return warm
        fallen = (1 + math.cos(math.pi * min(1.0, step / self.steps))) / 2
        return warm * (LEAST_RATE + (1 - LEAST_RATE) * fallen)


def young_average(decay: float) -> Callable[[list[Tensor], list[Tensor], Tensor], None]:
    """For WeightAveraging: a moving average that follows closely while it is young.

    EMAWeightAveraging has the same decay from the beginning on.
    """

    @torch.no_grad()
    def update(means: list[Tensor], values: list[Tensor], count: Tensor) -> None:
        now = min(decay, (1 + int(count)) / (10 + int(count)))
        pairs = list(zip(means, values, strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        if floats:  # all at once: a GPU would wait for the calls
            get_ema_multi_avg_fn(now)(*map(list, zip(*floats, strict=True)), count)
        for mean, value in pairs:
            if not mean.is_floating_point():
                mean.copy_(value)

    return update


def check_average(state: dict[str, Tensor]) -> None:
    """Raise TrainingError where the average could not be written as a model (fp16)."""
    floats = [value for value in state.values() if value.is_floating_point()]
    if not all(torch.isfinite(value.half()).all() for value in floats):
        raise TrainingError(
            "the average of the weights is not finite in fp16; the files on disk are from "
            "before: lower train.rate in a folder of its own"
        )


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
