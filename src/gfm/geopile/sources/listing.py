"""The files of a source: below its root, by glob pattern or suffix, sorted; a source without files is an error."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gfm.errors import DataError
from gfm.geopile.archives import SUFFIXES
from gfm.geopile.sources.folder import Folder, StoreFolder


def matching(folder: Folder, source: str, include: Sequence[str], default: str, suffixes: Sequence[str]) -> list[str]:
    """Sorted files of `folder`, relative to it, that match a glob of `include`.

    Without `include` a file matches `default` and has one of `suffixes` in any case; hidden files are then left out.
    `*` stays within one folder, `**/` is any number of them. DataError: the folder is missing, or nothing matches.
    """
    try:
        patterns = [glob_regex(pattern) for pattern in (include or [default])]
    except DataError as error:
        raise DataError(f"geopile.sources.{source}.include: {error}") from None
    found, archives = [], 0
    for file in folder.files(source):
        name = file.rsplit("/", 1)[-1]
        archives += name.lower().endswith(SUFFIXES)
        if not include and (name.startswith(".") or not name.lower().endswith(tuple(suffixes))):
            continue
        if any(pattern.fullmatch(file) for pattern in patterns):
            found.append(file)
    if not found:
        wanted = ", ".join(include) or f"{default} ending in {', '.join(suffixes)}"
        raise nothing_found(folder, source, wanted, archives if SUFFIXES[0] not in suffixes else 0)
    return sorted(found)


def nothing_found(folder: Folder, source: str, wanted: str, archives: int = 0) -> DataError:
    """The error of a source whose folder is there, without the files that are `wanted`, but maybe with archives."""
    key = f"geopile.sources.{source}"
    where = f"{key}.store, " if isinstance(folder, StoreFolder) else ""
    fix = f"correct {where}{key}.root or {key}.include"
    if archives:
        files, them = ("an archive", "it") if archives == 1 else (f"{archives} archives", "them")
        fix = f"it holds {files}: declare format: archive (or webdataset), or unpack {them}"
    return DataError(f"{key}: {folder.shown} holds no file that matches {wanted}; {fix}")


def glob_regex(pattern: str) -> re.Pattern[str]:
    """A glob as an expression: `**/` any folders, `*` and `?` within a name, `[...]` and `{a,b}` choices.

    Raises DataError for one that is none, such as `[z-a]`.
    """
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
    try:
        return re.compile(out + ")" * depth, re.DOTALL)
    except re.error as error:
        raise DataError(f"{pattern}: is no pattern of file names ({error.msg}); mend it") from None
