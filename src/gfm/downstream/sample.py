"""What a task's index knows of its data: scenes as they lie on disk, the samples cut from them, refused files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gfm.downstream.moments import Moments
from gfm.downstream.split import Part
from gfm.imagery.footprint import Bounds

Window = tuple[int, int, int, int]  # x, y, width, height in pixels of the first date's grid


@dataclass(frozen=True, slots=True)
class Scene:
    """Images of one piece of ground at one or more dates, with its labels, as files relative to paths.raw."""

    id: str
    place: str
    inputs: tuple[tuple[str, ...], ...]  # one tuple of files per date
    target: str | None = None  # file of the mask, or of the numbers
    labels: tuple[str, ...] = ()
    part: Part | None = None  # that a published split gives it; None: places are split


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled chip: a window of a scene. It is what is split, trained on and scored."""

    id: str
    place: str
    inputs: tuple[tuple[str, ...], ...]
    target: str | None
    labels: tuple[str, ...]
    window: Window
    bounds: Bounds | None = None
    target_window: Window | None = None  # in pixels of the target, where those are others; it may reach beyond it
    part: Part | None = None  # that a published split gives it


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that cannot be used, and why; it is written to quarantine.csv and counted."""

    file: str  # relative to paths.raw
    reason: str


@dataclass(frozen=True, slots=True)
class Cut:
    """A sample with its pixels, as the index sees it once."""

    sample: Sample
    images: list[NDArray[np.uint8]]  # per date, and of a target that is a picture too, (H, W, bands)
    classes: tuple[str, ...]  # classes that occur in it
    numbers: Moments | None = None  # of its target, where that holds numbers
