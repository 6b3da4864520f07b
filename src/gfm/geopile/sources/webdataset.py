"""Tar shards in the layout of webdataset and Hugging Face: files of one key, one after another, are one sample."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby

from gfm.geopile.archives import TARS, Entry, EntryError
from gfm.geopile.sources.folder import Folder
from gfm.geopile.sources.listing import matching
from gfm.geopile.sources.member import Ignored, Member, Wanted, no_image, read_member
from gfm.geopile.sources.suffixes import PICTURES
from gfm.imagery.raster import ImageError
from gfm.params import WebdatasetSource

_LABEL_BYTES = 1 << 20
_LABEL_LENGTH = 200  # what is longer is a caption, not a class


def list_files(name: str, source: WebdatasetSource, folder: Folder) -> list[str]:
    """Every shard at any depth, relative to the source's root."""
    return matching(folder, name, source.include, "**/*", TARS)


def find_images(source: WebdatasetSource, entries: Iterator[Entry], wanted: Wanted) -> Iterator[Member | Ignored]:
    """`KEY.jpg` (jpeg, png, tif, tiff) with the class in `KEY.json`, or `KEY.cls`, else `KEY.txt`.

    A label that cannot be read is refused by its own name, and the image is kept without it. Further files of a key
    (`KEY.seg.png`) are other files.
    """
    for _, sample in groupby(entries, key=lambda entry: _key(entry.name)[0]):
        images: list[Member] = []
        labels: dict[str, str | Member] = {}
        damage = None
        try:
            for entry in sample:
                suffix = _key(entry.name)[1].lower()
                if entry.reason or suffix in PICTURES:
                    images.append(read_member(entry, wanted))
                elif suffix in _suffixes(source):
                    labels[suffix] = _label(entry, source.label_key)
                else:
                    yield no_image(entry) or Ignored("other files")
        except ImageError as error:  # the shard ends or is damaged here; what was read of the sample stands
            damage = error
        if labels and not images and damage is None:
            yield Ignored("labels without an image beside them")
        label = next((labels[suffix] for suffix in _suffixes(source) if suffix in labels), None)
        if isinstance(label, Member):
            if any(image.data is not None for image in images):
                yield label
            label = None
        yield from (replace(image, label=label) for image in images)
        if damage is not None:
            raise damage


def _suffixes(source: WebdatasetSource) -> tuple[str, ...]:
    return (".json",) if source.label_key else (".cls", ".txt")


def _label(entry: Entry, key: str | None) -> str | Member:
    """The class that a file of a sample names, or the Member that says why it names none."""
    if entry.size > _LABEL_BYTES:
        return Member(entry.name, reason=f"is no label: {entry.size:,} bytes", passed=entry.passed)
    try:
        label = _class_of(entry.read(), key)
    except EntryError as error:
        return Member(entry.name, reason=error.reason, passed=entry.passed)
    if label is None:
        reason = f"holds no field {key} with a class in it" if key else "is no class of one short line"
        return Member(entry.name, reason=reason, passed=entry.passed)
    return label


def _class_of(data: bytes, key: str | None) -> str | None:
    """A class is one line of text, or a whole number; None where there is none."""
    try:
        value = data.decode().strip() if key is None else json.loads(data)[key]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value)
    return text if 0 < len(text) <= _LABEL_LENGTH and text.isprintable() else None


def _key(name: str) -> tuple[str, str]:
    """The key, up to the first dot of the file's name, and the rest: `a.b/7.seg.png` -> `a.b/7`, `.seg.png`."""
    folder, slash, file = name.rpartition("/")
    stem, dot, suffix = file.partition(".")
    return folder + slash + stem, dot + suffix
