"""What a source of archives gives: its images one after another, then what is to say of the archive as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from gfm.geopile.archives import SUFFIXES, Entry, EntryError, entries
from gfm.geopile.sources.folder import Folder
from gfm.geopile.sources.suffixes import PICTURES
from gfm.imagery.raster import NOT_UTF8, ImageError, readable_name

NO_IMAGE = "holds no image"


@dataclass(frozen=True, slots=True)
class Member:
    """One image of an archive: its bytes, or the reason why it cannot be used."""

    name: str  # inside the archive
    data: bytes | None = None  # None: not asked for, or `reason`
    label: str | None = None
    reason: str = ""
    passed: float = 0.0  # share of the archive that lies before it


@dataclass(frozen=True, slots=True)
class ArchiveEnd:
    """Comes once, last: why no more could be read (empty: all was), and how many files are no images, by kind."""

    reason: str = ""
    ignored: dict[str, int] = field(default_factory=dict)


class Ignored(NamedTuple):
    """A file of an archive that is no image of the source."""

    kind: str


# Which images are asked for, by name inside the archive.
Wanted = Callable[[str], bool]


def read_archive(
    folder: Folder, file: str, find: Callable[[Iterator[Entry]], Iterator[Member | Ignored]]
) -> Iterator[Member | ArchiveEnd]:
    """The images that `find` sees among an archive's entries, in order, then the ArchiveEnd."""
    if readable_name(file) != file:  # no table could name its images
        yield ArchiveEnd(NOT_UTF8)
        return
    ignored: Counter[str] = Counter()
    reason, found = "", False
    try:
        with folder.open(file) as stream:
            for one in find(entries(folder.path(file), stream)):
                if isinstance(one, Ignored):
                    ignored[one.kind] += 1
                else:
                    found = True
                    yield one
    except ImageError as error:
        reason = error.reason
    yield ArchiveEnd(reason or ("" if found else NO_IMAGE), dict(sorted(ignored.items())))


def read_member(entry: Entry, wanted: Wanted, label: str | None = None) -> Member:
    """An entry that is an image, with its bytes where it is wanted and can be read."""
    if entry.reason:
        return Member(entry.name, reason=entry.reason, passed=entry.passed)
    if not wanted(entry.name):
        return Member(entry.name, passed=entry.passed)
    try:
        return Member(entry.name, entry.read(), label, passed=entry.passed)
    except EntryError as error:
        return Member(entry.name, reason=error.reason, passed=entry.passed)


def no_image(entry: Entry) -> Ignored | None:
    """What an entry is, by its name, where it is no image; None of an image, and of what is refused by name."""
    if entry.reason:
        return None
    file = entry.name.rsplit("/", 1)[-1].lower()
    if file.endswith(PICTURES) and not file.startswith("."):
        return None
    return Ignored("archives in archives" if file.endswith(SUFFIXES) else "other files")
