"""Corners of images: kept as they are, none of plain ground, and no agreement where there are few."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gfm.imagery.keypoints import AGREE, agreeing, both_ways, keypoints, load_keypoints, proposed, save_keypoints

DICE = np.random.default_rng(0)
BLOCKS = np.kron(DICE.integers(0, 255, (24, 24, 3)), np.ones((8, 8, 1))).astype(np.uint8)
PLAIN = np.full((64, 64, 3), 90, np.uint8)


def test_what_is_kept_is_read_as_it_was_also_without_corners_and_without_images(tmp_path: Path) -> None:
    some = [*both_ways(BLOCKS), keypoints(PLAIN)]
    save_keypoints(tmp_path / "a.npz", ["b", "b", "ä"], some)
    names, read = load_keypoints(tmp_path / "a.npz")
    assert names == ["b", "b", "ä"]
    for before, after in zip(some, read, strict=True):
        assert np.array_equal(before.points, after.points) and np.array_equal(before.words, after.words)
    save_keypoints(tmp_path / "none.npz", [], [])
    assert load_keypoints(tmp_path / "none.npz") == ([], [])


def test_plain_ground_shows_nothing_and_accuses_nobody() -> None:
    plain, blocks = keypoints(PLAIN), keypoints(BLOCKS)
    assert len(plain.words) == 0
    assert proposed([plain, blocks], [plain]).tolist() == proposed([plain], []).tolist() == []
    assert agreeing(plain, blocks) == agreeing(blocks, plain) == 0
    assert proposed([plain, blocks], [blocks]).tolist() == [[1, 0]]
    assert agreeing(blocks, blocks) >= AGREE


def test_a_mere_strip_has_no_corners() -> None:
    for height, width in ((1, 1), (2, 900), (900, 2), (40, 2000)):
        assert len(keypoints(np.random.default_rng(1).integers(0, 255, (height, width, 3), dtype=np.uint8)).words) == 0


def test_images_of_one_band_and_of_several_have_corners_too() -> None:
    assert len(keypoints(BLOCKS[..., :1]).words) >= AGREE
    assert len(keypoints(np.concatenate([BLOCKS, BLOCKS[..., :2]], axis=2)).words) >= AGREE
