"""Working folders with tiny labelled imagery made by code, and a tiny encoder."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import torch
import yaml
from rasterio.transform import from_origin

from gfm.models.backbone import build_backbone
from gfm.models.encoder import save_encoder
from gfm.models.encoder_file import EncoderCard, write_card

ARCHITECTURE = "test_convnext"
SHORT = {"seeds": [0], "epochs": 2, "batch_size": 4, "max_steps_per_epoch": 3}


def draw(path: Path, pixels: np.ndarray) -> None:
    """A PNG of (H, W) or (H, W, C) uint8 RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA if pixels.shape[2] == 4 else cv2.COLOR_RGB2BGR)
    assert cv2.imwrite(str(path), pixels)


def draw_band(path: Path, pixels: np.ndarray, east: float = 500_000, metres: float = 10) -> None:
    """A GeoTIFF of one (H, W) uint16 band whose upper left corner lies `east` in UTM zone 31."""
    draw_tiff(path, pixels[..., None].astype(np.uint16), east, metres=metres)


def draw_tiff(
    path: Path, pixels: np.ndarray, east: float, north: float = 4_600_000, metres: float = 10, crs: str = "EPSG:32631"
) -> None:
    """A GeoTIFF of (H, W, C)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, count = pixels.shape
    profile = {"driver": "GTiff", "count": count, "dtype": pixels.dtype, "height": height, "width": width}
    with rasterio.open(path, "w", crs=crs, transform=from_origin(east, north, metres, metres), **profile) as file:
        file.write(np.moveaxis(pixels, -1, 0))


class Workplace:
    """A working folder: draws data under raw/, writes params.yaml, runs the real command line."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.raw = folder / "raw"
        self.raw.mkdir()
        self.dice = np.random.default_rng(0)
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def noise(self, height: int = 16, width: int = 16) -> np.ndarray:
        return self.dice.integers(0, 255, (height, width, 3), dtype=np.uint8)

    def declare(self, **tasks: dict[str, Any]) -> None:
        """params.yaml with these tasks; `finetune` defaults to a second's work."""
        tasks = {name: {"image_px": 32, "finetune": SHORT, **task} for name, task in tasks.items()}
        raw = {
            "device": "cpu",
            "paths": {"raw": "raw"},
            "geopile": {"sources": {"a": {"format": "class-folders", "root": "a", "licence": "CC0"}}},
            "teacher": {"kind": "timm", "architecture": {"name": ARCHITECTURE}, "weights": "hub", "licence": "MIT"},
            "pretrain": {"gfm": {"recipe": "gfm"}},
            "tasks": tasks,
            "tracking": {"uri": "none"},
        }
        (self.folder / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")

    def encoders(self) -> None:
        """models/encoders/teacher with weights, models/encoders/random without."""
        card = {
            "architecture": ARCHITECTURE,
            "model_args": {},
            "image_px": 32,
            "bands": ["R", "G", "B"],
            "mean": [0.5] * 3,
            "std": [0.25] * 3,
            "batch_norm": "live",
            "licence": "CC0",
        }
        backbone = build_backbone(ARCHITECTURE, {}, image_px=32, bands=3, seed=1)
        save_encoder(self.folder / "models/encoders/teacher", backbone, EncoderCard(origin="imported", **card))
        write_card(self.folder / "models/encoders/random", EncoderCard(origin="random", **card))

    def gfm(self, *arguments: str) -> tuple[int, str]:
        """Exit code and everything printed."""
        from gfm.cli import main

        self._monkeypatch.setattr(sys, "argv", ["gfm", *arguments])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        printed = self._capsys.readouterr()
        return code, printed.out + printed.err

    def quarantined(self) -> dict[str, str]:
        """Files that the index refused, with the reason."""
        with (self.folder / "data/tasks/quarantine.csv").open(newline="", encoding="utf-8") as file:
            return {row["file"]: row["reason"] for row in csv.DictReader(file)}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Workplace:
    """An empty working folder, and no codecarbon, which takes seconds to start."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    torch.set_num_threads(1)
    return Workplace(tmp_path, monkeypatch, capsys)


@pytest.fixture
def buildings(workplace: Workplace) -> Callable[..., Workplace]:
    """Three areas of bright buildings on dark ground, with masks of 0 and 255, as a segmentation task."""

    def make(chips: int = 6, **task: Any) -> Workplace:
        for area in ("north", "south", "east"):
            for number in range(chips):
                image = workplace.noise(20, 24) // 3
                mask = np.zeros((20, 24), np.uint8)
                mask[4 : 10 + number % 3, 6:18] = 255
                image[mask > 0] += 160
                draw(workplace.raw / "b" / area / "images" / f"{number}.png", image)
                draw(workplace.raw / "b" / area / "masks" / f"{number}.png", mask)
        workplace.declare(buildings=segmentation(**task))
        workplace.encoders()
        return workplace

    return make


def segmentation(**changes: Any) -> dict[str, Any]:
    """A task over `buildings`: north trains, south validates, east tests."""
    data = {
        "format": "image-masks",
        "root": "b",
        "classes": ["ground", "building"],
        "foreground": "above-zero",
        "split": {"val": ["south"], "test": ["east"]},
    }
    return {"kind": "segmentation", "data": data, "positive_class": "building", **changes}


@pytest.fixture
def drawing() -> Any:
    """The drawing functions, for tests that make files of their own."""

    class Drawing:
        picture = staticmethod(draw)
        band = staticmethod(draw_band)
        tiff = staticmethod(draw_tiff)
        segmentation = staticmethod(segmentation)
        short = SHORT

    return Drawing


class Tortillas:
    """Writes tortillas as tacotoolbox does, of files given as (id, bytes) or (id, bytes, fields)."""

    @staticmethod
    def tiff(pixels: np.ndarray, **profile: Any) -> bytes:
        """A compressed GeoTIFF of (H, W) or (H, W, C); `east` places it in UTM zone 31."""
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        height, width, count = pixels.shape
        east = profile.pop("east", None)
        if east is not None:
            profile |= {"crs": "EPSG:32631", "transform": from_origin(east, 4_600_000, 10, 10)}
        profile = {"count": count, "dtype": pixels.dtype, "height": height, "width": width, **profile}
        with rasterio.MemoryFile() as memory:
            with memory.open(driver="GTiff", compress="zstd", **profile) as file:
                file.write(np.moveaxis(pixels, -1, 0))
            return bytes(memory.read())

    @staticmethod
    def pack(files: Sequence[tuple[Any, ...]], parts: int = 1, magic: bytes = b"#y", **columns: Any) -> bytes:
        """A container; `columns` replace whole columns of its table, None takes one out."""
        named = [(*file, {})[:3] for file in files]
        starts = np.cumsum([200, *(len(data) for _, data, _ in named)])
        nested = [data[:2] in (b"#y", b"WX") for _, data, _ in named]
        table: dict[str, Any] = {
            "tortilla:id": [name for name, *_ in named],
            "tortilla:file_format": ["TORTILLA" if inside else "GTiff" for inside in nested],
            "tortilla:offset": starts[:-1],
            "tortilla:length": [len(data) for _, data, _ in named],
        }
        for field in sorted({field for *_, fields in named for field in fields}):
            table[field] = [fields.get(field) for *_, fields in named]
        table = {name: values for name, values in (table | columns).items() if values is not None}
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(table), sink, compression="zstd")
        footer = sink.getvalue().to_pybytes()
        header = magic + b"".join(int(n).to_bytes(8, "little") for n in (starts[-1], len(footer), parts))
        return header.ljust(200, b"\0") + b"".join(data for _, data, _ in named) + footer


@pytest.fixture
def tortillas() -> type[Tortillas]:
    return Tortillas
