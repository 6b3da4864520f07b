"""An exponential moving average of the student's weights, kept beside the training and saved instead of them."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gfm.models.encoder import Encoder


class WeightAverage(Callback):  # type: ignore[misc]  # lightning is untyped here
    """Averages the weights of an encoder's network after every optimiser step (Polyak averaging).

    average = decay * average + (1 - decay) * weights, beginning with the weights after the first step; buffers, such
    as batch norm's statistics, are copied. Make it before anything hangs on the network: its hooks would be copied.

    Args:
        encoder: what is trained; its network stays as it is.
        decay: in (0, 1).
    """

    def __init__(self, encoder: Encoder, decay: float) -> None:
        self.source: nn.Module = encoder.backbone
        rule = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(encoder.backbone, multi_avg_fn=rule).requires_grad_(False)
        self.encoder = Encoder(self.average.module, encoder.card, encoder.name)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Follow the trained weights to their device."""
        self.average.to(pl_module.device)
        self.encoder.to(pl_module.device)
        # The count is read in every step, and a count on an accelerator would be waited for.
        self.average.n_averaged = self.average.n_averaged.cpu()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take in the weights that a step left."""
        if (batch_idx + 1) % pl_module.parts == 0:
            self.average.update_parameters(self.source)

    def state_dict(self) -> dict[str, Any]:
        """The average, for checkpoints."""
        return dict(self.average.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.average.load_state_dict(state_dict)
