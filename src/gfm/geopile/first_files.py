"""One file of every source read as `gfm assemble` would read it, so that a wrong declaration is known at once."""

from __future__ import annotations

from pathlib import Path

from gfm.geopile.sources import Member, Tile, is_archive, list_files, member_tile, read_members, read_tiles
from gfm.imagery.raster import ImageError, to_uint8
from gfm.params import Params, Source


def check_first_files(params: Params, raw: Path) -> list[str]:
    """Remarks on sources below the folder `raw` whose first file does not fit the declaration; a bad file alone would
    be quarantined, and is no error.

    Of an archive its first image is read. DataError where a source has no file of its format.
    """
    remarks = []
    for name, source in params.geopile.sources.items():
        root = raw / source.root
        first = list_files(name, source, root)[0]
        try:
            tile = _first_tile(source, root, first, params.geopile.tile_px)
            to_uint8(tile.pixels, source.imagery, source.stored_bands(params.geopile.bands))
        except ImageError as error:
            shown = error.path.relative_to(root).as_posix() if error.path.is_relative_to(root) else first
            remarks.append(
                f"geopile.sources.{name}: its first file cannot be used as it is declared: {shown}: {error.reason}"
            )
    return remarks


def _first_tile(source: Source, root: Path, file: str, tile_px: int) -> Tile:
    if not is_archive(source):
        return next(read_tiles(source, root, file, tile_px))
    part = next(read_members(source, root, file))
    if isinstance(part, Member):
        return member_tile(source, root, file, part)
    raise ImageError(root / file, part.reason)
