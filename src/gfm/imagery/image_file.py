"""One encoded image, wherever its bytes are: a file on disk, or a member of an archive that was read already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gfm.imagery.footprint import Georeference, georeference, georeference_data
from gfm.imagery.raster import (
    Array,
    decode_image,
    file_head,
    is_tiff,
    open_scene,
    open_scene_data,
    picture_bytes,
    read_image,
    unreadable,
)
from gfm.params import Imagery


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A PNG, JPEG or TIFF: the file at `path`, or `data`, which `path` then only names in errors."""

    path: Path
    data: bytes | None = None

    @classmethod
    def on_disk(cls, path: Path) -> ImageFile:
        """A file, opened once where it is a PNG or JPEG; ImageError as of `read_image`."""
        return cls(path, picture_bytes(path))

    def pixels(self, imagery: Imagery) -> Array:
        """(H, W, C) as stored; ImageError as of `read_image`."""
        return read_image(self.path, imagery) if self.data is None else decode_image(self.data, imagery, self.path)

    def georeference(self) -> Georeference | None:
        """What the image itself says of its ground; None and ImageError as of `footprint.georeference`."""
        return georeference(self.path) if self.data is None else georeference_data(self.data, self.path)

    def nodata(self) -> float | None:
        """What a TIFF itself says is nodata; None where it says nothing, or is another picture."""
        head = file_head(self.path) if self.data is None else self.data
        if not is_tiff(head):
            return None
        opened = open_scene(self.path, None) if self.data is None else open_scene_data(self.data, None, self.path)
        with opened as dataset:
            said: float | None = dataset.nodata
        return said

    def encoded(self) -> bytes:
        """The bytes of the file; ImageError where they cannot be read."""
        if self.data is not None:
            return self.data
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise unreadable(self.path, error) from None
