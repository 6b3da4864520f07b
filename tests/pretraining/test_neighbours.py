"""The picture of neighbours shows what the encoder holds to be alike."""

from __future__ import annotations

from pathlib import Path

import cv2
import torch

from gfm.pretraining.collection import read_rows
from gfm.pretraining.neighbours import nearest, spaced
from gfm.pretraining.run import pretrain

GFM = Path("models/encoders/gfm")


def test_neighbours_are_the_nearest_by_angle_not_by_length():
    gallery = torch.tensor([[0.0, 1.0], [10.0, 1.0], [1.0, 1.0]])
    assert nearest(torch.tensor([[1.0, 0.0]]), gallery, 2).tolist() == [[1, 2]]
    assert nearest(torch.tensor([[1.0, 0.0]]), gallery, 5).shape == (1, 3)


def test_rows_are_spaced_over_all(folder):
    rows = read_rows("train")
    assert [spaced(rows, 4).id(index) for index in range(4)] == [rows.id(index) for index in (0, 4, 8, 12)]
    assert len(spaced(rows, 100)) == 16


def test_bright_images_have_bright_neighbours_in_the_picture_beside_the_card(teacher, make_params):
    pretrain(make_params(pretrain={"recipe": "distill"}), "gfm")
    picture = cv2.imread(str(GFM / "neighbours.png"))
    assert picture.shape == (6 * 164, 88 + 6 * 164, 3)
    cells = [
        [picture[r * 164 : r * 164 + 160, 92 + c * 164 : 92 + c * 164 + 160].mean() for c in range(6)] for r in range(6)
    ]
    assert {round(row[0]) > 100 for row in cells} == {True, False}
    assert all((cell > 100) == (row[0] > 100) for row in cells for cell in row)
    assert "](neighbours.png)" in (GFM / "README.md").read_text()
