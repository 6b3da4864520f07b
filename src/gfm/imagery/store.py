"""Files in an object store or on a web server, listed and read in place through fsspec.

Credentials come from the environment, as each protocol's package looks for them, never from parameters.
"""

from __future__ import annotations

import errno
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar, cast

from gfm.errors import DataError
from gfm.imagery.raster import MAX_FILE_BYTES

Result = TypeVar("Result")

WAITS_S = (1.0, 4.0, 15.0)  # before the second, third and fourth attempt

_PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
}
_BUSY = (408, 425, 429, 500, 502, 503, 504)  # HTTP's answers that another attempt may change
_FORBIDDEN = (401, 403)
_PASSING = (errno.EAGAIN, errno.EBUSY, errno.ECONNABORTED, errno.ETIMEDOUT, errno.EPIPE, errno.ENETUNREACH)
# Bases of what aiohttp and botocore raise where the network fails; not all of it is an OSError.
_LOST = {"ClientConnectionError", "ClientPayloadError", "HTTPClientError", "ConnectionError"}
_SAME = ("ETag", "etag", "md5", "crc32c", "mtime", "LastModified", "last_modified", "updated", "created")


class StoreError(DataError):
    """A store that cannot be reached, or not with what is installed; the message names its address."""


@dataclass(frozen=True)
class Store:
    """A folder of a store by its address, `PROTOCOL://BUCKET/PREFIX`; picklable, opened when it is asked."""

    address: str

    def files(self) -> Iterator[str]:
        """Every file below the folder, relative to it, in no order; StoreError where it cannot be listed."""
        system, base = self._open_system()
        system.invalidate_cache()
        try:
            found = patiently(self.address, lambda: _walked(system, base))
        except PermissionError as error:
            fix = "look at the credentials in the environment, and at what they may list"
            raise StoreError(f"{self.address}: cannot be listed: {_said(error)}; {fix}") from None
        except FileNotFoundError as error:
            if base.rstrip("/") in str(error):  # the folder itself, which is to be empty
                return
            raise StoreError(f"{self.address}: cannot be listed: {_said(error)}; correct the address") from None
        except OSError as error:
            raise StoreError(f"{self.address}: cannot be listed: {_said(error)}; correct the address") from None
        start = base.rstrip("/") + "/"
        for path in found:
            if path.startswith(start):
                yield path.removeprefix(start)

    def open(self, file: str) -> StoreFile:
        """One file, to be read at any place; OSError where it is not there or not allowed."""
        system, base = self._open_system()
        path = f"{base.rstrip('/')}/{file}"
        return StoreFile(f"{self.address}/{file}", lambda: system.open(path, "rb"))

    def stamp(self, file: str) -> tuple[int, str]:
        """Bytes of one file, and the store's tag and time of it, as far as it has them; OSError as of `open`."""
        system, base = self._open_system()
        path = f"{base.rstrip('/')}/{file}"
        info = patiently(self.address, lambda: cast(dict[str, Any], system.info(path)))
        return int(info.get("size") or 0), ";".join(f"{key}={info[key]}" for key in _SAME if info.get(key))

    def _open_system(self) -> tuple[Any, str]:
        """fsspec's file system, which it keeps, and the folder's path in it."""
        import fsspec

        protocol = self.address.partition("://")[0]
        try:
            system, base = fsspec.core.url_to_fs(self.address)
        except ImportError as error:
            package = _PACKAGES.get(protocol)
            fix = f"pip install {package}" if package else " ".join(str(error).split())
            raise StoreError(f"{self.address}: reading {protocol}:// needs a package that is missing; {fix}") from None
        except ValueError as error:
            if protocol not in fsspec.available_protocols():
                fix = "use s3, gs, az, https, file or another, or install the fsspec package that knows it"
                raise StoreError(f"{self.address}: no protocol {protocol}:// is known; {fix}") from None
            raise StoreError(f"{self.address}: {' '.join(str(error).split())}") from None
        except OSError as error:  # a package that lacks a library of the system
            raise StoreError(f"{self.address}: {protocol}:// cannot be used here: {_said(error)}") from None
        return system, str(base)


class StoreFile(io.RawIOBase):
    """A file of a store as a seekable stream that goes on after a lost connection.

    `failure` is what ended it, for callers between which and it stands C code that cannot pass an exception on.
    """

    def __init__(self, address: str, opener: Callable[[], Any]) -> None:
        self.address = address
        self._opener: Callable[[], Any] = lambda: _seekable(opener())
        self._file: Any = patiently(address, self._opener)
        self._at = 0
        self.size = int(self._file.seek(0, io.SEEK_END))
        self.failure: Exception | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, "seek before the start")
        self._at = start + offset
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes (negative: all) from where it stands."""
        try:
            data = patiently(self.address, lambda: self._read(size))
        except (OSError, DataError) as error:
            self.failure = error
            raise
        self._at += len(data)
        return data

    def readinto(self, buffer: Any, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _read(self, size: int) -> bytes:
        if self._file is None:
            self._file = self._opener()
        try:
            self._file.seek(min(self._at, self.size))
            return bytes(self._file.read(size if size >= 0 else max(self.size - self._at, 0)))
        except Exception:
            self._file = None  # a connection that broke is not asked again
            raise

    def close(self) -> None:
        if not self.closed and self._file is not None:
            self._file.close()
        super().close()


def patiently(address: str, ask: Callable[[], Result]) -> Result:
    """What `ask` gives; asked again where the network or the server failed for the moment.

    Raises StoreError when it still fails after the last of WAITS_S, or where a protocol's package fails in its own
    words; any other OSError at once, as it is, and PermissionError for what a server forbids.
    """
    for wait in (*WAITS_S, None):
        try:
            return ask()
        except Exception as error:
            if not _passing(error):
                if _status(error) in _FORBIDDEN:
                    raise PermissionError(errno.EACCES, _said(error)) from None
                if isinstance(error, OSError) or type(error).__module__ == "builtins":
                    raise
                raise StoreError(f"{address}: {_said(error)}; look at the credentials in the environment") from None
            if wait is None:
                attempts = len(WAITS_S) + 1
                fix = "look at the network and the address, then run it again"
                raise StoreError(f"{address}: not reachable after {attempts} attempts: {_said(error)}; {fix}") from None
            time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def _walked(system: Any, base: str) -> list[str]:
    """Not by `find`, which leaves out the folders whose listing failed without a word."""
    walked = system.walk(base, detail=True, on_error="raise")
    return [entry["name"] for _, _, files in walked for entry in files.values() if entry["type"] == "file"]


def _passing(error: Exception) -> bool:
    """Whether the same request may succeed a moment later."""
    if isinstance(error, TimeoutError) or _LOST & {base.__name__ for base in type(error).__mro__}:
        return True
    return _status(error) in _BUSY or (isinstance(error, OSError) and error.errno in _PASSING)


def _status(error: Exception) -> object:
    """HTTP's number of the answer, where the error is one."""
    return getattr(error, "status", None) or getattr(error, "code", None)


def _seekable(file: Any) -> Any:
    """The open file, or its content where a web server gives no ranges; OSError for too much of that."""
    try:
        file.seek(0, io.SEEK_END)
        return file
    except ValueError:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise OSError(errno.EFBIG, f"the server gives no ranges of a file of more than {MAX_FILE_BYTES:,} bytes")
    return io.BytesIO(data)


def _said(error: BaseException) -> str:
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def as_binary(file: StoreFile) -> BinaryIO:
    """The same object, typed as what the readers of local files take."""
    return cast(BinaryIO, file)
