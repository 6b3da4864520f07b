"""Where a scene is cloudy, as its mask says: a raster beside the scene, or one of its own bands."""

from __future__ import annotations

import fnmatch
import glob
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from gfm.imagery.raster import Array, ImageError, open_scene, reading
from gfm.params import BandFilesSource, CloudMask, ScenesSource

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Clouds:
    """The opened mask of one scene."""

    declared: CloudMask
    path: Path
    dataset: Any = None  # rasterio's, of a mask beside the scene
    factor: int = 1  # pixels of the scene along a pixel of the mask
    band: int | None = None  # of the scene's own pixels

    def read(self, window: Any, pixels: Array) -> Mask:
        """Where a window of the scene is cloudy, (H, W); `pixels` (H, W, C) are the scene's there, as stored.

        Raises ImageError for a value that is neither declared as cloud nor among those declared as clear.
        """
        values = self._beside(window) if self.band is None else pixels[..., self.band]
        return self._cloudy(values)

    def _beside(self, window: Any) -> Array:
        from rasterio.windows import Window

        left, top, width, height = (round(side) for side in window.flatten())
        f = self.factor
        first = left // f, top // f
        last = -(-(left + width) // f), -(-(top + height) // f)
        with reading(self.path):
            coarse = self.dataset.read(1, window=Window(*first, last[0] - first[0], last[1] - first[1]))
        fine = coarse.repeat(f, axis=0).repeat(f, axis=1)
        y, x = top - first[1] * f, left - first[0] * f
        return np.asarray(fine[y : y + height, x : x + width])

    def _cloudy(self, values: Array) -> Mask:
        declared = self.declared
        if declared.bits:
            flags = sum(1 << bit for bit in declared.bits)
            return np.asarray(values.astype(np.int64) & flags != 0)
        cloudy = np.isin(values, declared.cloud)
        if declared.clear is not None:
            unknown = np.unique(values[~cloudy & ~np.isin(values, declared.clear)])
            if len(unknown):
                reason = f"its cloud mask holds {unknown[0]:g}, which is declared neither as cloud nor as clear"
                raise ImageError(self.path, reason, "add it to the source's cloud.cloud or cloud.clear")
        return cloudy


@contextmanager
def open_clouds(source: ScenesSource | BandFilesSource, scene: Path, dataset: Any) -> Iterator[Clouds | None]:
    """The mask of a scene (a file, or a folder of band files) whose grid is that of `dataset`; None where none is
    declared.

    Raises ImageError where the mask's file is missing, ambiguous, no plain raster of whole numbers, or of other ground
    or of a size that is no whole fraction of the scene's.
    """
    declared = source.cloud
    if declared is None:
        yield None
    elif declared.band is not None:
        yield Clouds(declared, scene, band=list(source.imagery.bands).index(declared.band))
    else:
        path = _file(declared.file or "", scene)
        with open_scene(path, None) as mask:
            yield Clouds(declared, path, mask, _factor(path, mask, dataset))


def mask_beside(declared: CloudMask | None, scene: Path) -> Path | None:
    """The mask's file of a scene; None where none is declared, ImageError where it is missing or ambiguous."""
    return None if declared is None or declared.file is None else _file(declared.file, scene)


def without_masks(files: Sequence[str], declared: CloudMask | None) -> list[str]:
    """The files of a source that are not the mask of another one."""
    if declared is None or declared.file is None:
        return list(files)
    masks: dict[str, set[str]] = {}  # names and patterns of them, by folder
    for file in map(PurePosixPath, files):
        masks.setdefault(str(file.parent), set()).add(_name(declared.file, file.stem))
    return [file for file in files if not _is_mask(PurePosixPath(file), masks)]


def _is_mask(file: PurePosixPath, masks: Mapping[str, set[str]]) -> bool:
    names = masks[str(file.parent)]
    return file.name in names or any(fnmatch.fnmatchcase(file.name, one) for one in names if glob.has_magic(one))


def _name(pattern: str, stem: str) -> str:
    return pattern.replace("{stem}", glob.escape(stem) if glob.has_magic(pattern) else stem)


def _file(pattern: str, scene: Path) -> Path:
    folder = scene if scene.is_dir() else scene.parent
    name = _name(pattern, scene.stem)
    found = sorted(folder.glob(name)) if glob.has_magic(name) else [folder / name]
    found = [path for path in found if path.is_file()]
    if len(found) != 1:
        what = "no cloud mask" if not found else f"{len(found)} cloud masks"
        raise ImageError(scene, f"has {what} {name} beside it", "give it one, or correct the source's cloud.file")
    return found[0]


def _factor(path: Path, mask: Any, scene: Any) -> int:
    """Pixels of the scene along one of the mask."""
    if mask.count != 1 or np.dtype(mask.dtypes[0]).kind not in "iu":
        reason = f"is no cloud mask: {mask.count} bands of {mask.dtypes[0]}"
        raise ImageError(path, reason, "give one band of whole numbers")
    factor = max(1, round(float(scene.width / mask.width)))
    if (mask.width * factor, mask.height * factor) != (scene.width, scene.height):
        reason = f"is {mask.width}x{mask.height} px, its scene is {scene.width}x{scene.height}"
        raise ImageError(path, reason, "give a cloud mask of the scene's size, or of a whole fraction of it")
    if mask.crs is not None and scene.crs is not None:
        away = max(abs(one - other) for one, other in zip(mask.bounds, scene.bounds, strict=True))
        if mask.crs != scene.crs or away > max(scene.res):
            raise ImageError(path, "is a cloud mask of other ground than its scene", "give the scene's own")
    return factor
