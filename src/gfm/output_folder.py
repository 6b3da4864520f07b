"""Output folders that are whole or absent: made beside their final place, moved there at the end, by one process."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import xxhash

from gfm.disk_room import say_if_dvc_lacks_room
from gfm.errors import GfmError

LOCKS = Path(".gfm/locks")
_READABLE = 48  # characters of a path in the name of its lock: at most 4 bytes each, of 255


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `final` when the block ends without an error.

    A second process that wants the same folder is refused; a killed one leaves the old folder as it was. GfmError
    where something that is no folder stands there: a file, a device, a link to nothing.
    """
    if os.path.lexists(final) and not final.is_dir():
        raise GfmError(f"{final}: is not a folder; give another place, or remove it")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GfmError(f"{final}: its folder cannot be made ({error.strerror}); give another place") from None
    # Beside the outputs a lock file would be a stray file of the repository, or vanish when DVC clears an output.
    with only_writer(final):
        if final.is_symlink():  # to another disk: what is made beside the link would not fit in, nor move there
            final = final.resolve()
        unfinished = final.parent / f".{final.name}.new"
        previous = final.parent / f".{final.name}.old"
        if previous.exists() and not final.exists():  # killed between the two moves below
            previous.replace(final)
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            unfinished.mkdir()
        except OSError as error:
            raise GfmError(f"{final}: cannot be written ({error.strerror}); give another place") from None
        try:
            yield unfinished
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        shutil.rmtree(previous, ignore_errors=True)
        if final.exists():
            final.replace(previous)
        unfinished.replace(final)
        shutil.rmtree(previous, ignore_errors=True)
        say_if_dvc_lacks_room(final)


def keep_only(folder: Path, names: Collection[str]) -> None:
    """Remove all but the files of these names: other files, links, and folders whatever they are called; GfmError."""
    for path in folder.iterdir():
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.is_symlink() or path.name not in names:
                path.unlink()
        except OSError as error:
            raise GfmError(f"{path}: cannot be removed ({error.strerror}); remove it") from None


@contextmanager
def growing_folder(final: Path) -> Iterator[Path]:
    """A folder that is called `final` when the block ends without an error, and is kept beside its place until then.

    What a block made that was killed or failed is there for the next one, which must judge whether it is of use.
    GfmError where `final` exists, or another process is making it.
    """
    if os.path.lexists(final):
        raise GfmError(f"{final}: exists already; give a new folder, or remove it")
    with only_writer(final):
        unfinished = final.parent / f".{final.name}.unfinished"
        if os.path.lexists(unfinished) and (unfinished.is_symlink() or not unfinished.is_dir()):
            raise GfmError(f"{unfinished}: is not a folder; remove it")
        try:
            unfinished.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise GfmError(f"{final}: cannot be written ({error.strerror}); give another place") from None
        try:
            yield unfinished
        except BaseException:
            with suppress(OSError):
                unfinished.rmdir()  # where nothing was made
            raise
        unfinished.replace(final)


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Held by one process of the working folder at a time; GfmError for a second one that wants to write `path`."""
    one = path.resolve().as_posix()  # however it is spelled
    name = f"{one.replace('/', '-')[-_READABLE:]}-{xxhash.xxh3_64_hexdigest(os.fsencode(one))}"
    try:
        LOCKS.mkdir(parents=True, exist_ok=True)
        file = (LOCKS / name).open("w")
    except OSError as error:
        raise GfmError(f"{LOCKS}: no lock can be made there ({error.strerror}); run in a folder to write in") from None
    with file as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise GfmError(f"{path}: another process is writing it; wait for it to end") from None
        yield
