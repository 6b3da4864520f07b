"""The files of a source: below its root, by glob pattern or suffix, sorted; a source without files is an error."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from gfm.errors import DataError

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
RASTERS = (".tif", ".tiff")


def matching(root: Path, source: str, include: Sequence[str], default: str, suffixes: Sequence[str]) -> list[str]:
    """Sorted files under `root`, as paths relative to it, that match a glob of `include`.

    Without `include` a file matches `default` and has one of `suffixes` in any case; hidden files are then left out.
    `*` stays within one folder, `**/` is any number of them. Raises DataError when root is missing or nothing matches.
    """
    if not root.is_dir():
        key = f"geopile.sources.{source}.root"
        raise DataError(f"{key}: folder {root} does not exist; put the imagery there or correct {key} or paths.raw")
    patterns = [glob_regex(pattern) for pattern in (include or [default])]
    found = []
    for file in _walk(root, source):
        name = file.rsplit("/", 1)[-1]
        if not include and (name.startswith(".") or not name.lower().endswith(tuple(suffixes))):
            continue
        if any(pattern.fullmatch(file) for pattern in patterns):
            found.append(file)
    if not found:
        raise nothing_found(root, source, ", ".join(include) or f"{default} ending in {', '.join(suffixes)}")
    return sorted(found)


def nothing_found(root: Path, source: str, wanted: str) -> DataError:
    """The error of a source whose folder is there, without the files that are `wanted`."""
    key = f"geopile.sources.{source}"
    return DataError(f"{key}: folder {root} holds no file that matches {wanted}; correct {key}.root or {key}.include")


def _walk(root: Path, source: str) -> Iterator[str]:
    """Every file below root, with `/`; folders that are links are followed once."""

    def refuse(error: OSError) -> None:
        raise DataError(f"geopile.sources.{source}: cannot list {error.filename}: {error.strerror}") from None

    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True, onerror=refuse):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder above would be walked for ever
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        relative = Path(folder).relative_to(root).as_posix()
        for file in files:
            yield file if relative == "." else f"{relative}/{file}"


def glob_regex(pattern: str) -> re.Pattern[str]:
    """A glob as an expression: `**/` any folders, `*` and `?` within a name, `[...]` and `{a,b}` choices."""
    out, depth = "", 0
    for token in re.findall(r"\*\*/|\*\*|\*|\?|\[[^\]]*\]|[{},]|[^*?\[{},]+|\[", pattern):
        if token == "{":
            out, depth = out + "(?:", depth + 1
        elif token == "}" and depth:
            out, depth = out + ")", depth - 1
        elif token == "," and depth:
            out += "|"
        elif token[0] == "[" and len(token) > 2:
            inside = token[1:-1]
            out += f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]"
        else:
            out += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(token, re.escape(token))
    return re.compile(out + ")" * depth, re.DOTALL)
