"""A picture of what the student fills in: input, masked input and reconstruction, one column an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from gfm.models.masking import spread
from gfm.pretraining.batch import collate
from gfm.pretraining.data import VALIDATION_EPOCH, CropDataset
from gfm.pretraining.recipes import Recipe

COLUMNS = 6
GAP = 4  # white pixels between pictures
LEAST_PX = 160  # smaller crops are enlarged, so that the picture can be looked at
ROWS = ("input", "masked", "filled in")
STRIP = 150  # pixels at the left that hold the names of the rows
LETTERS_PX = 32  # of a sheet about 1,100 px wide, which pages show at half of that or less
GREY = 0.5


@torch.no_grad()
def draw_reconstructions(recipe: Recipe, dataset: CropDataset, path: Path) -> bool:
    """Write a PNG of a few images of `dataset`, always with the same masks; False where the recipe fills nothing in.

    Reconstructed pixels are pasted into the visible ones; of more than three bands the first three are shown.
    """
    count = min(COLUMNS, len(dataset))
    spaced = [index * len(dataset) // count for index in range(count)]
    batch = collate([dataset[VALIDATION_EPOCH, row] for row in spaced])
    if batch.masks is None:
        return False
    images, mask = batch.pictures, batch.masks
    device = next(recipe.model.parameters()).device
    recipe.model.eval()
    filled = recipe.filled_in(batch.to(device))
    if filled is None:
        return False
    filled = recipe.student.denormalise(filled.float()).clamp(0, 1).cpu()
    hidden = spread(mask, (images.shape[2], images.shape[3])).unsqueeze(1)
    rows = [images, torch.where(hidden, torch.tensor(GREY), images), torch.where(hidden, filled, images)]
    write_sheet(path, [sheet_row(name, batch) for name, batch in zip(ROWS, rows, strict=True)])
    return True


def write_sheet(path: Path, rows: list[NDArray[np.uint8]]) -> None:
    """Write rows of pictures below each other as a PNG; OSError where that fails."""
    if not cv2.imwrite(str(path), np.concatenate(rows)[..., ::-1]):
        raise OSError(f"{path}: the picture cannot be written")


def sheet_side(px: int) -> int:
    """The side that pictures of `px` have on a sheet."""
    return max(LEAST_PX, px)


def sheet_row(name: str, images: torch.Tensor) -> NDArray[np.uint8]:
    """Images (N, C, px, px) in [0, 1] beside each other, RGB uint8, with a name at the left.

    Of more than three bands the first three are shown, of fewer than three the first as grey.
    """
    pictures = (images[:, :3].permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
    if pictures.shape[-1] < 3:
        pictures = np.repeat(pictures[..., :1], 3, axis=-1)
    side = sheet_side(pictures.shape[1])
    tiles = []
    for picture in pictures:
        large = cv2.resize(picture, (side, side), interpolation=cv2.INTER_NEAREST)
        tiles.append(np.pad(large, ((0, GAP), (GAP, 0), (0, 0)), constant_values=255))
    return np.concatenate([_words(name, STRIP, side + GAP, anchor="lm"), *tiles], axis=1)


def sheet_titles(names: Sequence[str], side: int) -> NDArray[np.uint8]:
    """A line of names, each above its column of a sheet of pictures of that side."""
    height = LETTERS_PX + 2 * GAP
    blank = _words("", STRIP, height, anchor="lm")
    return np.concatenate([blank, *(_words(name, side + GAP, height, anchor="mm") for name in names)], axis=1)


def _words(text: str, width: int, height: int, *, anchor: str) -> NDArray[np.uint8]:
    """Black on white, made smaller where they are too wide; `anchor` "lm" is left, "mm" the middle, of the height."""
    image = Image.new("RGB", (width, height), "white")
    draw, px = ImageDraw.Draw(image), LETTERS_PX
    while px > 8 and draw.textlength(text, ImageFont.load_default(px)) > width - 2 * GAP:
        px -= 1
    place = (GAP if anchor == "lm" else width // 2, height // 2)
    draw.text(place, text, "black", ImageFont.load_default(px), anchor=anchor)
    return np.asarray(image)
