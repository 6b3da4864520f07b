"""The date in a file's name, by a declared pattern such as %Y-%m-%d or MSIL2A_%Y%m%dT."""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from gfm.imagery.raster import ImageError
from gfm.params import DATE_DIRECTIVES


def date_of(file: Path, pattern: str) -> datetime:
    """The one date in a file's name; ImageError where there is none, or several, or the digits are no date."""
    found = sorted({match[0] for match in _regex(pattern).finditer(file.stem)})
    fix = "rename it, or correct data.date"
    if len(found) != 1:
        what = f"several dates like {pattern}" if found else f"no date like {pattern}"
        raise ImageError(file, f"{what} in its name" + (f" ({', '.join(found)})" if found else ""), fix)
    try:
        return datetime.strptime(found[0], pattern)
    except ValueError:
        raise ImageError(file, f"{found[0]} in its name is no date like {pattern}", fix) from None


@lru_cache
def _regex(pattern: str) -> re.Pattern[str]:
    """Digits of each directive; other letters mean themselves. A longer row of digits is no date."""
    parts = re.split(r"(%.)", pattern)
    text = "".join(rf"\d{{{DATE_DIRECTIVES[part]}}}" if part in DATE_DIRECTIVES else re.escape(part) for part in parts)
    return re.compile(rf"(?<!\d){text}(?!\d)")
