"""Which class every pixel of an image belongs to."""

from __future__ import annotations

from torch import Tensor

from gfm.downstream.tasks.dense import DenseTask, PixelCounts
from gfm.downstream.tasks.task import Scores


class Segmentation(DenseTask):
    """Decoder over the pyramid; cross-entropy; IoU of the positive class, or the mean over classes."""

    @property
    def primary(self) -> str:  # type: ignore[override]
        return "miou" if self.spec.positive is None else "iou"

    def scores(self) -> Scores:
        return PixelCounts(self.spec, self.primary)

    def _features(self, image: Tensor, present: Tensor | None) -> list[Tensor]:
        return self.pyramid(image, present)
