"""Which of the classes an image belongs to."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F
from torchmetrics.classification import MulticlassConfusionMatrix

from gfm.downstream.tasks.pooled import PooledTask
from gfm.downstream.tasks.task import Panel, Picture, Scores, middle_date, primary_first


class Classification(PooledTask):
    """Linear layer over the pooled last map; cross-entropy; accuracy over images, and its mean over classes."""

    primary = "accuracy"

    def scores(self) -> Scores:
        return Accuracy(len(self.spec.classes), self.primary)

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits, target)

    def _panels(self, images: list[Picture], logits: Tensor, target: Tensor) -> list[Panel]:
        found, truth = int(logits.argmax()), int(target)
        caption = f"predicted: {self.spec.classes[found]}\ntrue: {self.spec.classes[truth]}"
        return [Panel(middle_date(images), caption, found == truth)]


class Accuracy(Scores):
    """Share of images that are right, and the mean of that share over the classes that occur in the truth."""

    def __init__(self, classes: int, primary: str = "accuracy") -> None:
        self.primary = primary
        self.matrix = MulticlassConfusionMatrix(num_classes=classes)

    def update(self, logits: Tensor, target: Tensor) -> None:
        self.matrix.update(logits.argmax(dim=1).cpu(), target.cpu())

    def compute(self) -> dict[str, float]:
        counts = self.matrix.compute().double()
        hit, true = counts.diag(), counts.sum(dim=1)
        occurs = true > 0
        scores = {
            "accuracy": float(hit.sum() / true.sum()),
            "mean_class_accuracy": float((hit[occurs] / true[occurs]).mean()),
        }
        return primary_first(scores, self.primary)
