"""What every part of the schema is made of: sections, value ranges, names, local files, and the error."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict

from gfm.errors import GfmError

# A YAML list is Python's list, which strict reading keeps apart from a tuple.
Listed = Strict(False)
Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what every generator takes
OpenShare = Annotated[float, Field(gt=0, lt=1)]
StoredValue = Annotated[float, Field(allow_inf_nan=True)]  # floating-point imagery marks nodata with nan
# Names become folder names, MLflow names and DVC stage names, so they stay plain.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=100)]

Licence = Annotated[str, Field(pattern=r"\S")]
ClassName = Annotated[str, Field(pattern=r"^\S")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]

SCHEDULER_PROTOCOLS = ("tcp", "tls", "ucx", "ws", "wss")  # of distributed; its inproc reaches no other process


def _below(root: str) -> str:
    if _leads_out(root):
        raise ValueError("must name a folder below paths.raw, without .. and not from the root")
    return root


def _file_below(path: str) -> str:
    if _leads_out(path) or path.endswith("/"):
        raise ValueError("must name a file below the task's root, without .. and not from the file system's root")
    return path


def _leads_out(path: str) -> bool:
    return not path or path.startswith(("/", "~", "\\")) or ".." in path.replace("\\", "/").split("/")


def _store_address(address: str) -> str:
    parts = urlsplit(address)
    if parts.password is not None:
        raise ValueError("must not hold a password: credentials come from the environment")
    if parts.query or parts.fragment:
        raise ValueError("must be an address without ? and #: signatures and keys come from the environment")
    return address.rstrip("/") if parts.path.strip("/") else address


def _scheduler(address: str) -> str:
    found = re.fullmatch(r"([a-z]+)://\S+:\d+", address)
    if found is None:
        raise ValueError(f"{address} is no address of a Dask scheduler, such as tcp://node0:8786")
    if found[1] not in SCHEDULER_PROTOCOLS:
        known = ", ".join(SCHEDULER_PROTOCOLS)
        raise ValueError(f"{address}: a Dask scheduler is not found by {found[1]}, only by {known}")
    return address


def _said(reason: str) -> str:
    if not reason.strip():
        raise ValueError("is empty; say why, in a few words")
    return reason


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"the smaller value first: {pair[1]:g}, {pair[0]:g}")
    return pair


def _different(names: list[str]) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"names {twice[0]} twice")
    return names


Below = Annotated[str, AfterValidator(_below)]  # a folder under paths.raw
FileBelow = Annotated[str, AfterValidator(_file_below)]  # a file under a task's root
# Where fsspec finds files: PROTOCOL://…
StoreAddress = Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*://"), AfterValidator(_store_address)]
Ascending = AfterValidator(_ascending)
Reason = Annotated[str, AfterValidator(_said)]
Different = AfterValidator(_different)
SchedulerAddress = Annotated[str, AfterValidator(_scheduler)]
Scalar = bool | int | float | str


class LocalFile(str):
    """A path in a parameter file, relative to that file's folder (`gfm workspace` rewrites exactly these)."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema(min_length=1))

    @property
    def path(self) -> Path:
        return Path(self)


class ParameterError(GfmError):
    """A parameter file that cannot be used; the message is one line naming the file, the key and the fix."""


class ParameterFaults(ParameterError):
    """Everything that is wrong with a parameter file: `faults` has a line each, the message is the first of them."""

    def __init__(self, faults: Sequence[str]) -> None:
        self._faults = tuple(faults)
        more = len(faults) - 1
        super().__init__(faults[0] + (f" (and {more} more; `gfm check` tells them)" if more else ""))

    @property
    def faults(self) -> tuple[str, ...]:
        return self._faults


class Contradictions(ValueError):
    """What does not agree between sections, a line each."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__(faults[0])


class Section(BaseModel):
    """A group of parameters; unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
