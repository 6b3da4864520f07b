"""Where imagery lies and what its pixels are."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat, model_validator

from gfm.params.section import LocalFile, Section, StoredValue

# What integer imagery can store.
WHOLE_NUMBERS = {"uint8": (0, 255), "uint16": (0, 65535), "int16": (-32768, 32767)}


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

    @model_validator(mode="after")
    def _nodata_can_be_stored(self) -> Imagery:
        storable(self.nodata, self.dtype)
        return self


def storable(nodata: float | None, dtype: str) -> None:
    """ValueError where no pixel of this dtype can hold the value."""
    limits = WHOLE_NUMBERS.get(dtype)
    if nodata is not None and limits is not None:
        low, high = limits
        if not (low <= nodata <= high and float(nodata).is_integer()):
            raise ValueError(f"nodata = {nodata:g} cannot be stored as {dtype}, {low} to {high}")
