"""Scores belong to the split, not to how it is cut into batches, and padding counts for nothing."""

from __future__ import annotations

import pytest
import torch

from gfm.downstream.classes import IGNORED
from gfm.downstream.data import ShuffledPasses, turned
from gfm.downstream.decoders import PyramidDecoder
from gfm.downstream.tasks.classification import Accuracy
from gfm.downstream.tasks.dense import PixelCounts
from gfm.downstream.tasks.multilabel import AveragePrecision
from gfm.downstream.tasks.task import Batch, TaskSpec


def _spec(classes=2, positive=1):
    names = tuple(f"c{i}" for i in range(classes))
    return TaskSpec("t", names, dates=1, bands=3, image_px=8, mask_px=8, positive=positive)


def _in_batches(make, logits, target, size):
    scores = make()
    for start in range(0, len(logits), size):
        scores.update(logits[start : start + size], target[start : start + size])
    return scores.compute()


@pytest.mark.parametrize("size", [2, 3, 7])
def test_no_score_depends_on_the_batch_size_or_a_smaller_last_batch(size):
    dice = torch.Generator().manual_seed(0)
    masks, labels = (torch.rand(7, 8, 8, generator=dice) < 0.2).byte(), (torch.rand(7, 3, generator=dice) < 0.4).float()
    maps, vectors = torch.randn(7, 2, 8, 8, generator=dice), torch.randn(7, 3, generator=dice)
    cases = [
        (lambda: PixelCounts(_spec(), "iou"), maps, masks),
        (AveragePrecision, vectors, labels),
        (lambda: Accuracy(3), vectors, torch.tensor([0, 0, 0, 0, 1, 2, 2])),
    ]
    for make, logits, target in cases:
        assert _in_batches(make, logits, target, size) == pytest.approx(_in_batches(make, logits, target, 100))


def test_micro_map_ranks_all_pairs_of_the_split_together():
    from sklearn.metrics import average_precision_score

    dice = torch.Generator().manual_seed(3)
    logits, target = torch.randn(40, 5, generator=dice), (torch.rand(40, 5, generator=dice) < 0.3).float()
    found = _in_batches(AveragePrecision, logits, target, 16)
    assert found["micro_map"] == pytest.approx(average_precision_score(target.ravel(), logits.ravel()), abs=1e-5)
    assert found["macro_map"] == pytest.approx(average_precision_score(target, logits, average="macro"), abs=1e-5)


def test_macro_map_leaves_out_a_class_that_never_occurs():
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(2))
    target = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]] * 3)
    occurring = _in_batches(AveragePrecision, logits[:, :2], target[:, :2], 6)
    found = _in_batches(AveragePrecision, logits, target, 6)
    assert found["macro_map"] == pytest.approx(occurring["macro_map"])


def test_padding_is_not_scored():
    logits = torch.zeros(1, 2, 8, 8)
    logits[:, 1] = 1  # everything is called positive
    target = torch.full((1, 8, 8), IGNORED, dtype=torch.uint8)
    target[:, :4, :4] = 1
    scores = _in_batches(lambda: PixelCounts(_spec(), "iou"), logits, target, 1)
    assert scores["iou"] == scores["precision"] == scores["pixel_accuracy"] == 1.0


def test_known_counts_give_known_scores():
    target = torch.tensor([[[1, 1, 1, 0]]], dtype=torch.uint8)
    logits = torch.nn.functional.one_hot(torch.tensor([[[1, 0, 0, 1]]]), 2).permute(0, 3, 1, 2).float()
    scores = _in_batches(lambda: PixelCounts(_spec(), "f1"), logits, target, 1)
    assert next(iter(scores)) == "f1"
    assert scores == pytest.approx({"f1": 0.4, "iou": 0.25, "precision": 0.5, "recall": 1 / 3, "pixel_accuracy": 0.25})


def test_without_a_positive_class_the_mean_leaves_out_classes_that_do_not_occur():
    target = torch.tensor([[[0, 0, 1, 1]]], dtype=torch.uint8)
    logits = torch.nn.functional.one_hot(torch.tensor([[[0, 0, 1, 0]]]), 3).permute(0, 3, 1, 2).float()
    scores = _in_batches(lambda: PixelCounts(_spec(3, None), "miou"), logits, target, 1)
    assert scores["miou"] == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_a_stray_pixel_of_an_absent_class_costs_the_class_it_was_taken_from_and_adds_no_zero_to_the_mean():
    target = torch.tensor([[[0, 0, 1, 1]]], dtype=torch.uint8)
    logits = torch.nn.functional.one_hot(torch.tensor([[[0, 0, 1, 2]]]), 3).permute(0, 3, 1, 2).float()
    scores = _in_batches(lambda: PixelCounts(_spec(3, None), "miou"), logits, target, 1)
    assert scores == pytest.approx(
        {
            "miou": (1 + 1 / 2) / 2,
            "mean_f1": (1 + 2 / 3) / 2,
            "mean_precision": 1.0,
            "mean_recall": (1 + 1 / 2) / 2,
            "pixel_accuracy": 0.75,
        }
    )


def test_an_image_called_an_absent_class_adds_no_zero_to_the_mean_class_accuracy():
    target = torch.tensor([0, 0, 0, 1])
    logits = torch.nn.functional.one_hot(torch.tensor([0, 0, 2, 1]), 3).float()
    scores = _in_batches(lambda: Accuracy(3), logits, target, 2)
    assert scores == pytest.approx({"accuracy": 0.75, "mean_class_accuracy": (2 / 3 + 1) / 2})


def test_both_dates_and_the_mask_turn_alike():
    picture = torch.arange(16, dtype=torch.uint8).view(4, 4)
    batch = Batch(picture.expand(32, 2, 3, 4, 4).clone(), picture.expand(32, 4, 4).clone())
    moved = turned(batch, torch.Generator().manual_seed(0))
    assert (moved.image == moved.target[:, None, None]).all()
    assert len({tuple(mask.ravel().tolist()) for mask in moved.target}) == 8


def test_a_batch_of_one_gives_the_same_prediction_as_a_batch_of_many():
    decoder = PyramidDecoder((8, 16), (4, 8), 2)
    maps = [torch.randn(5, 8, 8, 8), torch.randn(5, 16, 4, 4)]
    alone = decoder([level[:1] for level in maps])
    assert torch.allclose(decoder(maps)[:1], alone, atol=1e-5)


def test_images_of_the_wrong_layout_are_refused_by_name():
    with pytest.raises(ValueError, match=r"t: a batch of images is torch\.uint8 \(2, 3, 1, 8, 8\), declared is uint8"):
        Batch(torch.zeros(2, 3, 1, 8, 8, dtype=torch.uint8), torch.zeros(2)).check(_spec())


def test_a_small_set_gets_the_whole_budget_of_steps_and_every_sample_equally_often():
    sampler = ShuffledPasses(10, 4, 5, seed=0)
    batches = [batch for _ in range(3) for batch in sampler]
    assert len(batches) == 15 and {len(batch) for batch in batches} == {4}
    seen = [number for batch in batches for number in batch]
    assert {seen.count(number) for number in range(10)} == {6}


def test_a_set_smaller_than_a_batch_is_one_batch():
    assert [sorted(batch) for batch in ShuffledPasses(3, 16, None, seed=0)] == [[0, 1, 2]]


def test_the_chosen_metric_stands_first():
    scores = Accuracy(2, "mean_class_accuracy")
    scores.update(torch.tensor([[1.0, 0.0]] * 5), torch.tensor([0, 0, 0, 0, 1]))
    assert list(scores.compute().items()) == [("mean_class_accuracy", 0.5), ("accuracy", pytest.approx(0.8))]
