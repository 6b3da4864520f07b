"""The day or year an image was taken, from its name or its TIFF tags."""

from __future__ import annotations

import datetime
import re
from typing import Any

_DAY = re.compile(r"(?<!\d)((?:19|20)\d{2})[-_]?([01]\d)[-_]?([0-3]\d)(?=\D|$)")
_TAGS = ("ACQUISITIONDATETIME", "ACQUISITION_DATE", "TIFFTAG_DATETIME")


def date_of_name(name: str) -> str | None:
    """`…_20200831.tif`, `T36SYC_20171003T081739_B04.tif` -> the day; `1985.tif` -> the year; None without a date."""
    found = _DAY.search(name)
    if found:
        return _iso(*found.groups())
    stem = name.rsplit("/", 1)[-1].split(".")[0]
    return stem if re.fullmatch(r"(?:19|20)\d{2}", stem) else None


def date_of_tags(dataset: Any) -> str | None:
    """The day in the tags of an open rasterio dataset, or None."""
    tags = {**dataset.tags(), **dataset.tags(ns="IMAGERY")}
    for tag in _TAGS:
        found = re.match(r"(\d{4})[:-](\d{2})[:-](\d{2})", tags.get(tag, ""))
        if found and (day := _iso(*found.groups())):
            return day
    return None


def _iso(year: str, month: str, day: str) -> str | None:
    try:
        return datetime.date(int(year), int(month), int(day)).isoformat()
    except ValueError:  # digits that only look like a date
        return None
