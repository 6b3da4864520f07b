"""What segmentation and change detection share: a decoder over a pyramid, one class a pixel, scores from counts."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.classification import MulticlassConfusionMatrix

from gfm.downstream.classes import IGNORED
from gfm.downstream.decoders import PyramidDecoder
from gfm.downstream.tasks.task import Panel, Picture, Scores, TaskModel, TaskSpec, date_panels, primary_first
from gfm.models.encoder import Encoder

# Okabe and Ito's colours, which colour-blind people can tell apart; class 0 is dark.
COLOURS = np.array(
    [
        [40, 40, 40],
        [240, 228, 66],
        [86, 180, 233],
        [230, 159, 0],
        [0, 158, 115],
        [204, 121, 167],
        [0, 114, 178],
        [213, 94, 0],
    ],
    dtype=np.uint8,
)
RIGHT, MISSED, INVENTED, WRONG, PADDING = (235, 235, 235), (213, 94, 0), (0, 114, 178), (204, 121, 167), (255, 255, 255)


class DenseTask(TaskModel):
    """A class for every pixel of the mask, at the mask's own size.

    Images and masks are padded to one square; padding carries IGNORED. `class_weights` weigh the cross-entropy.
    """

    def __init__(self, encoder: Encoder, spec: TaskSpec, class_weights: Tensor | None = None) -> None:
        super().__init__(encoder, spec)
        self.decoder = PyramidDecoder(encoder.channels, encoder.strides, len(spec.classes))
        self.register_buffer("class_weights", class_weights, persistent=False)

    def _logits(self, image: Tensor, present: Tensor | None) -> Tensor:
        size = self.spec.mask_px or self.spec.image_px
        return F.interpolate(
            self.decoder(self._features(image, present)), size=(size, size), mode="bilinear", align_corners=False
        )

    @abstractmethod
    def _features(self, image: Tensor, present: Tensor | None) -> list[Tensor]:
        """The pyramid to decode, from (B, dates, bands, H, W) and which of the dates there are."""

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        weights = self.class_weights
        assert weights is None or isinstance(weights, Tensor)
        return F.cross_entropy(logits, target.long(), weight=weights, ignore_index=IGNORED)

    def _panels(self, images: list[Picture], logits: Tensor, target: Tensor) -> list[Panel]:
        found, truth = logits.argmax(dim=0).cpu().numpy().astype(np.uint8), target.cpu().numpy()
        scored = truth != IGNORED
        return [
            *date_panels(images, self.spec.dates),
            Panel(_coloured(truth, scored), "truth"),
            Panel(_coloured(found, scored), "prediction"),
            Panel(_errors(found, truth, scored), "error"),
        ]

    def legend(self) -> list[tuple[str, tuple[int, int, int]]]:
        """Name and colour of everything that the maps show."""
        names = list(self.spec.classes)[: len(COLOURS)]
        classes = [(name, tuple(map(int, COLOURS[i]))) for i, name in enumerate(names)]
        errors = [("right", RIGHT), ("missed", MISSED), ("invented", INVENTED)]
        if len(self.spec.classes) > 2:
            errors.append(("another class", WRONG))
        return [*classes, *errors]  # type: ignore[list-item]


class PixelCounts(Scores):
    """Precision, recall, F1 and IoU from one confusion matrix over all scored pixels of a split.

    With a positive class they are of that class, else means over the classes that occur in the truth: the same ones
    for every model. A pixel wrongly given to a class that does not occur counts once, against the class it was taken
    from. The precision of a class that is never predicted is 0, as is each score of a positive class that neither
    occurs nor is predicted.
    """

    def __init__(self, spec: TaskSpec, primary: str) -> None:
        self.spec = spec
        self.primary = primary
        self.matrix = MulticlassConfusionMatrix(num_classes=len(spec.classes), ignore_index=IGNORED)

    def update(self, logits: Tensor, target: Tensor) -> None:
        self.matrix.to(logits.device).update(logits.argmax(dim=1), target.long())

    def compute(self) -> dict[str, float]:
        counts = self.matrix.compute().double().cpu()
        hit, true, found = counts.diag(), counts.sum(dim=1), counts.sum(dim=0)
        each = {
            "iou": _ratio(hit, true + found - hit),
            "f1": _ratio(2 * hit, true + found),
            "precision": _ratio(hit, found),
            "recall": _ratio(hit, true),
        }
        if self.spec.positive is not None:
            scores = {name: float(values[self.spec.positive]) for name, values in each.items()}
        else:
            occurs = true > 0
            scores = {
                f"m{name}" if name == "iou" else f"mean_{name}": float(v[occurs].mean()) for name, v in each.items()
            }
        scores["pixel_accuracy"] = float(_ratio(hit.sum(), counts.sum()))
        return primary_first(scores, self.primary)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole.clamp(min=1), torch.zeros_like(whole))


def _coloured(values: Picture, scored: np.ndarray) -> Picture:
    picture = COLOURS[values % len(COLOURS)]
    picture[~scored] = PADDING
    return picture


def _errors(found: Picture, truth: Picture, scored: np.ndarray) -> Picture:
    """Right, missed (background instead of a class), invented (a class instead of background), another class."""
    picture = np.empty((*truth.shape, 3), np.uint8)
    picture[:] = RIGHT
    picture[(found != truth) & (found > 0) & (truth > 0)] = WRONG
    picture[(found == 0) & (truth > 0)] = MISSED
    picture[(found > 0) & (truth == 0)] = INVENTED
    picture[~scored] = PADDING
    return picture
