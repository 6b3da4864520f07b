"""Where the files of a source lie: in a folder on disk or in an object store; readers do not ask which."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from gfm.errors import DataError
from gfm.imagery.image_file import ImageFile
from gfm.imagery.raster import ImageError, check_bytes, file_head, open_scene, open_scene_stream, unreadable
from gfm.imagery.store import Store, StoreFile, as_binary
from gfm.params import Imagery, Source

Stamp = tuple[str | int, ...]

# What GDAL reads along with a GeoTIFF: `X.tif.ovr`, `X.tfw`.
BESIDE = (".ovr", ".msk", ".aux.xml")
WORLD = (".tfw", ".tifw", ".wld", ".aux.xml")


class Folder(Protocol):
    """The root of a source; its files are named relative to it, with `/`."""

    def __hash__(self) -> int: ...

    @property
    def shown(self) -> str:
        """The root, for messages."""

    def files(self, source: str) -> Iterator[str]:
        """Every file, in no order; DataError names the source whose root is missing or cannot be listed."""

    def path(self, file: str) -> Path:
        """What names a file in an ImageError."""

    def open(self, file: str) -> AbstractContextManager[BinaryIO]:
        """A seekable stream of a file; ImageError where it cannot be opened."""

    def image(self, file: str) -> ImageFile:
        """A file that is read whole; ImageError where it cannot be."""

    def scene(self, file: str, imagery: Imagery | None, overview: int | None = None) -> AbstractContextManager[Any]:
        """A scene, to be read by windows: as `raster.open_scene`."""

    def stamp(self, file: str) -> Stamp:
        """Bytes of a file (0 where it is not to be had), then what else changes when the file does."""


@dataclass(frozen=True)
class DiskFolder:
    """A folder on disk."""

    root: Path

    @property
    def shown(self) -> str:
        return f"folder {self.root}"

    def files(self, source: str) -> Iterator[str]:
        """Folders that are links are followed once."""
        if not self.root.is_dir():
            key = f"geopile.sources.{source}.root"
            raise DataError(f"{key}: {self.shown} does not exist; put the imagery there or correct {key} or paths.raw")

        def refuse(error: OSError) -> None:
            raise DataError(f"geopile.sources.{source}: cannot list {error.filename}: {error.strerror}") from None

        seen = set()
        for folder, folders, files in os.walk(self.root, followlinks=True, onerror=refuse):
            status = Path(folder).stat()
            if (status.st_dev, status.st_ino) in seen:  # a link to a folder above would be walked for ever
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders.sort()
            relative = Path(folder).relative_to(self.root).as_posix()
            for file in files:
                yield file if relative == "." else f"{relative}/{file}"

    def path(self, file: str) -> Path:
        return self.root / file

    @contextmanager
    def open(self, file: str) -> Iterator[BinaryIO]:
        path = self.root / file
        file_head(path)  # opening a pipe would wait for ever
        try:
            with path.open("rb") as stream:
                yield stream
        except OSError as error:
            raise unreadable(path, error) from None

    def image(self, file: str) -> ImageFile:
        return ImageFile.on_disk(self.root / file)

    def scene(self, file: str, imagery: Imagery | None, overview: int | None = None) -> AbstractContextManager[Any]:
        return open_scene(self.root / file, imagery, overview)

    def stamp(self, file: str) -> Stamp:
        """Of sizes and times of change: of the file and what GDAL reads beside it; of a folder, of its files."""
        path = self.root / file
        try:
            status = path.stat()
            if stat.S_ISDIR(status.st_mode):
                inside = [(one.name, one.stat()) for one in sorted(path.iterdir()) if one.is_file()]
                known = ((name, status.st_size, status.st_mtime_ns) for name, status in inside)
                return sum(status.st_size for _, status in inside), *(part for parts in known for part in parts)
        except OSError as error:
            return 0, str(error.strerror)
        if path.suffix.lower() not in (".tif", ".tiff"):
            return status.st_size, status.st_mtime_ns
        names = [f"{path.name}{end}" for end in BESIDE] + [f"{path.stem}{end}" for end in WORLD]
        beside = [(name, _changed(path.with_name(name))) for name in names]
        found = (part for name, changed in beside if changed for part in (name, *changed))
        return status.st_size, status.st_mtime_ns, *found


@dataclass(frozen=True)
class StoreFolder:
    """A folder of an object store; `root` is where the source would lie on disk, and names its files in errors."""

    root: Path
    store: Store

    @property
    def shown(self) -> str:
        return self.store.address

    def files(self, source: str) -> Iterator[str]:
        try:
            yield from self.store.files()
        except DataError as error:
            raise type(error)(f"geopile.sources.{source}.store: {error}") from None

    def path(self, file: str) -> Path:
        return self.root / file

    @contextmanager
    def open(self, file: str) -> Iterator[BinaryIO]:
        with self._open(file) as stream:
            try:
                yield as_binary(stream)
            except OSError as error:
                raise unreadable(self.path(file), error) from None

    def image(self, file: str) -> ImageFile:
        with self._open(file) as stream:
            check_bytes(self.path(file), stream.size)
            try:
                return ImageFile(self.path(file), stream.read())
            except OSError as error:
                raise unreadable(self.path(file), error) from None

    @contextmanager
    def scene(self, file: str, imagery: Imagery | None, overview: int | None = None) -> Iterator[Any]:
        opened: list[StoreFile] = []

        def opener() -> BinaryIO:
            opened.append(self._open(file))
            return as_binary(opened[-1])

        try:
            with open_scene_stream(opener, imagery, self.path(file), overview) as dataset:
                yield dataset
        except ImageError:
            for stream in opened:  # GDAL does not pass on why a read failed
                if isinstance(stream.failure, DataError):
                    raise stream.failure from None
            raise
        finally:
            for stream in opened:
                stream.close()

    def stamp(self, file: str) -> Stamp:
        try:
            return self.store.stamp(file)
        except OSError as error:
            return 0, str(error.strerror)

    def _open(self, file: str) -> StoreFile:
        if any(part in ("", ".", "..") for part in file.split("/")):  # on disk, and in lists, it would be another file
            raise ImageError(self.path(file), "its name has an empty or dotted part", "rename it in the store")
        try:
            return self.store.open(file)
        except OSError as error:
            raise unreadable(self.path(file), error) from None


def _changed(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def folder_of(source: Source, root: Path) -> Folder:
    """Where the source's files lie; `root` is its folder below paths.raw."""
    if source.store is None:
        return DiskFolder(root)
    address = source.store if source.root == "." else f"{source.store.rstrip('/')}/{source.root.strip('/')}"
    return StoreFolder(root, Store(address))
