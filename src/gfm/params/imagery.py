"""Where imagery lies and what its pixels are."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat

from gfm.params.section import LocalFile, Section, StoredValue


class Paths(Section):
    """Where the user's data lies."""

    raw: LocalFile = LocalFile("data/raw")  # folder of raw imagery; every source and task root is relative to it


class Imagery(Section):
    """What the pixels of a source or task are, as stored; files that differ are refused by name.

    A stored value times `scale` lies in [0, 1], where 1 is the white of a picture (255 in 8-bit imagery,
    a reflectance of about 0.35 in Sentinel-2); what exceeds it is clipped. Encoders normalise from there.
    """

    dtype: Literal["uint8", "uint16", "int16", "float32"] = "uint8"
    bands: dict[str, PositiveFloat | None] = {"R": 0.665, "G": 0.560, "B": 0.490}  # name -> wavelength, um; file order
    scale: PositiveFloat = 1 / 255
    nodata: StoredValue | None = None  # stored value that means "no measurement" in every band
