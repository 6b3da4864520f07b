"""SpaceNet 2's layout: multispectral images of low resolution, and the same pan-sharpened to a high one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gfm.downstream.formats.format import Numbers, Pixels
from gfm.downstream.formats.number_maps import NumberMapsFormat
from gfm.downstream.sample import Sample, Scene, Window
from gfm.imagery.placement import Box, placed_on
from gfm.imagery.raster import ImageError, nodata_mask, to_uint8, to_unit
from gfm.params import SpaceNet2

SHARED_GROUND = 0.9  # of the image, that its target must show; at its edges a target may end a pixel early


class SpaceNet2Format(NumberMapsFormat[SpaceNet2]):
    """root/AREA/MUL/NAME.tif with root/AREA/PAN-MS/NAME.tif of the same bands, AREA any number of folders deep.

    A name may begin with its folder's, as published (MUL_AOI_2_Vegas_img1.tif). The place is AREA/BLOCK, a block of
    ground, since neighbouring images touch; AREA/IMAGE where the ground is not known.
    """

    layout = "it should hold AREA/MUL and AREA/PAN-MS (see data.images and data.targets)"

    def numbers(self, sample: Sample, bands: Sequence[str]) -> Numbers:
        """The ground of the image (H, W, bands) in the target's pixels, in [0, 1]; NaN where either is nodata.

        NaN also where the image shows a little more ground than the target.
        """
        assert sample.target_window is not None
        x, y, width, height = sample.target_window
        imagery = self.data.imagery
        stored = self._stored(self._target_file(sample))
        unit = to_unit(stored, imagery, bands)
        unit[nodata_mask(stored, imagery.nodata)] = np.nan
        numbers = np.full((height, width, len(bands)), np.nan, np.float32)
        left, top = max(x, 0), max(y, 0)
        part = unit[top : y + height, left : x + width]
        numbers[top - y : top - y + part.shape[0], left - x : left - x + part.shape[1]] = part
        if imagery.nodata is not None:
            lacking = nodata_mask(self._stored(self.raw / sample.inputs[0][0]), imagery.nodata)
            numbers[_enlarged(lacking, width, height)] = np.nan
        return numbers

    def misfits(self, samples: Sequence[Sample]) -> dict[int, str]:
        if not samples:
            return {}
        fix = "make them a task of their own"
        odd = self._odd_sizes([sample.window[2:] for sample in samples], fix)
        even = [position for position in range(len(samples)) if position not in odd]
        targets = [window[2:] for position in even if (window := samples[position].target_window) is not None]
        odd_targets = self._odd_sizes(targets, fix)
        return odd | {even[position]: f"has a target that {reason}" for position, reason in odd_targets.items()}

    def _key(self, file: Path, folder: str) -> str:
        return file.stem.removeprefix(f"{folder}_")

    def _target_window(self, scene: Scene, width: int, height: int) -> Window | None:
        image, target = self.raw / scene.inputs[0][0], self._target_file(scene)
        lines, columns = self._stored(target).shape[:2]
        box = placed_on(image, target) if self.data.georeference == "file" else None
        if box is None:  # their edges are taken for the same ground
            box = Box(0, 0, columns, lines)
        factor = box.width / width
        if factor <= 1:
            reason = f"has {factor:.3g} pixels for each of its image {scene.inputs[0][0]}, it should have more than 1"
            raise ImageError(target, reason, "give the image of high resolution")
        if abs(box.height - factor * height) > factor:  # a pixel of the image
            reason = f"is {columns}x{lines} px, its image {scene.inputs[0][0]} is {width}x{height}: another shape"
            raise ImageError(target, reason, "give the target of this image")
        shown = _length(box.x, box.width, columns) * _length(box.y, box.height, lines)
        if shown < SHARED_GROUND * box.width * box.height:
            raise ImageError(target, "covers other ground than its image", "give the target of this image")
        return round(box.x), round(box.y), round(box.width), round(box.height)

    def _target_pictures(self, scene: Scene, bands: Sequence[str]) -> list[Pixels]:
        return [to_uint8(self._stored(self._target_file(scene)), self.data.imagery, list(bands))]


def _length(start: float, length: float, limit: int) -> float:
    """How much of a stretch lies between 0 and `limit`."""
    return max(0.0, min(start + length, limit) - max(start, 0.0))


def _enlarged(mask: NDArray[np.bool_], width: int, height: int) -> NDArray[np.bool_]:
    """(H, W) -> (height, width): the value of the pixel that each new one lies in."""
    rows = (np.arange(height) + 0.5) * mask.shape[0] / height
    columns = (np.arange(width) + 0.5) * mask.shape[1] / width
    enlarged: NDArray[np.bool_] = mask[rows.astype(int)[:, None], columns.astype(int)]
    return enlarged
