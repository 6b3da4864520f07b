"""One file of every source read as `gfm assemble` would read it, so that a wrong declaration is known at once."""

from __future__ import annotations

from pathlib import Path

from gfm.geopile.sources import is_archive, list_files, read_tiles
from gfm.imagery.raster import ImageError, to_uint8
from gfm.params import Params


def check_first_files(params: Params, raw: Path) -> list[str]:
    """Remarks on sources below the folder `raw` whose first file does not fit the declaration; a bad file alone would
    be quarantined, and is no error.

    DataError where a source has no file of its format. Files inside archives are not looked at.
    """
    remarks = []
    for name, source in params.geopile.sources.items():
        root = raw / source.root
        first = list_files(name, source, root)[0]
        if is_archive(source):
            continue
        try:
            for tile in read_tiles(source, root, first, params.geopile.tile_px):
                to_uint8(tile.pixels, source.imagery, source.stored_bands(params.geopile.bands))
                break
        except ImageError as error:
            remarks.append(
                f"geopile.sources.{name}: its first file cannot be used as it is declared: {first}: {error.reason}"
            )
    return remarks
