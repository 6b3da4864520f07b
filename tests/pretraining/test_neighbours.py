"""The picture of neighbours shows what the encoder holds to be alike."""

from __future__ import annotations

from pathlib import Path

import cv2

from gfm.pretraining.collection import read_rows
from gfm.pretraining.neighbours import spaced
from gfm.pretraining.run import pretrain

GFM = Path("models/encoders/gfm")
STRIP, TITLES = 150, 40  # pixels of the rows' names, and of the columns'


def test_rows_are_spaced_over_all(folder):
    rows = read_rows("train")
    assert [spaced(rows, 4).id(index) for index in range(4)] == [rows.id(index) for index in (0, 4, 8, 12)]
    assert len(spaced(rows, 100)) == 16


def test_bright_images_have_bright_neighbours_in_the_picture_beside_the_card(teacher, make_params):
    pretrain(make_params(pretrain={"recipe": "distill"}), "gfm")
    picture = cv2.imread(str(GFM / "neighbours.png"))
    assert picture.shape == (TITLES + 6 * 164, STRIP + 6 * 164, 3)
    cells = [
        [
            picture[TITLES + r * 164 : TITLES + r * 164 + 160, STRIP + 4 + c * 164 : STRIP + c * 164 + 164].mean()
            for c in range(6)
        ]
        for r in range(6)
    ]
    assert all(picture[:TITLES, STRIP + c * 164 :][:, :164].min() < 64 for c in range(6))  # a title above each
    assert {round(row[0]) > 100 for row in cells} == {True, False}
    assert all((cell > 100) == (row[0] > 100) for row in cells for cell in row)
    assert "](neighbours.png)" in (GFM / "README.md").read_text()
