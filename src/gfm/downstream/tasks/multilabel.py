"""Which of the classes occur in an image: any number of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import binary_average_precision, multilabel_f1_score

from gfm.downstream.tasks.pooled import PooledTask
from gfm.downstream.tasks.task import Panel, Picture, Scores, middle_date, primary_first

SHOWN_LABELS = 4
LONGEST_NAME = 30  # letters


class Multilabel(PooledTask):
    """Linear layer over the pooled last map; multi-label soft-margin loss; micro mAP over the whole split."""

    primary = "micro_map"

    def scores(self) -> Scores:
        return AveragePrecision(self.primary)

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.multilabel_soft_margin_loss(logits, target)

    def _panels(self, images: list[Picture], logits: Tensor, target: Tensor) -> list[Panel]:
        found, truth = logits > 0, target > 0
        caption = f"predicted: {self._names(found)}\ntrue: {self._names(truth)}"
        return [Panel(middle_date(images), caption, bool((found == truth).all()))]

    def _names(self, chosen: Tensor) -> str:
        names = [_short(name) for name, yes in zip(self.spec.classes, chosen.tolist(), strict=True) if yes]
        more = f" +{len(names) - SHOWN_LABELS}" if len(names) > SHOWN_LABELS else ""
        return (", ".join(names[:SHOWN_LABELS]) or "none") + more


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


class AveragePrecision(Scores):
    """Area under precision and recall over all image-class pairs (micro), and its mean over the classes that occur.

    Macro F1 is of what is more likely than not, the mean over classes (as GEO-Bench-2 scores).
    """

    def __init__(self, primary: str = "micro_map") -> None:
        self.primary = primary
        self.scores: list[Tensor] = []
        self.targets: list[Tensor] = []

    def update(self, logits: Tensor, target: Tensor) -> None:
        self.scores.append(logits.sigmoid().cpu())
        self.targets.append(target.cpu().long())

    def compute(self) -> dict[str, float]:
        scores, truth = torch.cat(self.scores), torch.cat(self.targets)
        each = [binary_average_precision(scores[:, i], truth[:, i]) for i in truth.any(dim=0).nonzero().ravel()]
        found = {
            "micro_map": float(binary_average_precision(scores.ravel(), truth.ravel())),
            "macro_map": float(torch.stack(each).mean()),
            "macro_f1": float(multilabel_f1_score(scores, truth, num_labels=truth.shape[1])),
        }
        return primary_first(found, self.primary)
