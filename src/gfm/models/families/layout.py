"""What the keys of a published checkpoint become in a timm network, before that network is built."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Images:
    """What the user says of the images that the network is to see; None: not said."""

    wavelengths_um: list[float] | None = None  # of the bands
    gsd_m: float | None = None  # metres of ground a pixel
    image_px: int | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """A published network as a timm one. Every key of the checkpoint is in `becomes` or in `left`."""

    architecture: str  # timm's name
    args: dict[str, Any]
    bands: int
    image_px: int | None  # that the weights were made for; None: the network takes any size
    size_from: str  # what shows it
    values: dict[str, Tensor]  # of the timm network's parameters
    becomes: dict[str, str]  # key -> parameter, in words where several make one
    left: dict[str, str]  # key -> why it was left
    converted: dict[str, str] = field(default_factory=dict)  # key -> what was done to it beside a new name
    notes: list[str] = field(default_factory=list)  # where it differs from the published code


def set_aside(state: Mapping[str, Tensor], reasons: Mapping[str, str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The keys that match none of the patterns (from a key's start), and the others with the pattern's reason."""
    left = {key: reason for key in state for pattern, reason in reasons.items() if re.match(pattern, key)}
    return {key: value for key, value in state.items() if key not in left}, left
