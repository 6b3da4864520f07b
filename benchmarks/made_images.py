"""Imagery made by code for the benchmarks of the collection: smooth noise, which compresses as photographs do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
import simplejpeg
from rasterio.enums import Resampling
from rasterio.transform import from_origin

Image = np.ndarray[Any, np.dtype[np.uint8]]

CLASSES = 20
QUALITY = 90
SCENE_PX = 1024
SCENE_BANDS = 4


def picture(seed: int, px: int, bands: int = 3) -> Image:
    """Smooth noise with a little grain, uint8 (px, px, bands); every seed looks different."""
    dice = np.random.default_rng(seed)
    coarse = dice.integers(0, 256, (16, 16, bands), dtype=np.uint8)
    middle = dice.integers(0, 48, (px // 4, px // 4, bands), dtype=np.uint8)
    smooth = cv2.resize(coarse, (px, px), interpolation=cv2.INTER_CUBIC).reshape(px, px, bands)
    grain = cv2.resize(middle, (px, px), interpolation=cv2.INTER_LINEAR).reshape(px, px, bands)
    return np.asarray(cv2.addWeighted(smooth, 0.85, grain, 0.8, 0)).reshape(px, px, bands)


def jpeg(seed: int, px: int) -> bytes:
    """`picture` as an ordinary JPEG: quality 90, chroma halved."""
    encoded: bytes = simplejpeg.encode_jpeg(picture(seed, px), quality=QUALITY, colorsubsampling="420")
    return encoded


def write_class_folders(folder: Path, images: int, px: int) -> list[Path]:
    """So many JPEGs in CLASSES folders; returns their paths, sorted."""
    paths = []
    for number in range(images):
        path = folder / f"class-{number % CLASSES:02d}" / f"{number:07d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(number, px))
        paths.append(path)
    return sorted(paths)


def write_scenes(folder: Path, scenes: int) -> list[Path]:
    """So many georeferenced uint8 GeoTIFFs of four bands, tiled, deflated, with overviews; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(scenes):
        path = folder / f"scene-{number:04d}.tif"
        profile = {
            "driver": "GTiff",
            "width": SCENE_PX,
            "height": SCENE_PX,
            "count": SCENE_BANDS,
            "dtype": "uint8",
            "crs": "EPSG:32633",
            "transform": from_origin(400000 + 20000 * number, 5500000, 10, 10),
            "tiled": True,
            "blockxsize": 256,
            "blockysize": 256,
            "compress": "deflate",
        }
        with rasterio.open(path, "w", **profile) as file:
            file.write(np.moveaxis(picture(number, SCENE_PX, SCENE_BANDS), -1, 0))
            file.build_overviews([2, 4], Resampling.average)
        paths.append(path)
    return paths
