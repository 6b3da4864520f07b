"""The published weights of the compared systems, one file a family: what their keys become in a timm network.

A family is declared, never guessed; its keys and shapes must be the family's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from gfm.errors import WeightsError
from gfm.models.families import clay, dofa, prithvi, satlas, satmae, seco
from gfm.models.families.layout import Images, Layout

__all__ = ["FAMILIES", "Images", "Layout", "check_release", "family_seen", "read_family", "refuse_matter"]

MATTER = r"(.+\.)?pre_conv1\.weight"
Reader = Callable[[Mapping[str, Tensor], Images, str], Layout]


@dataclass(frozen=True, slots=True)
class Family:
    """How a family's weights are known, and read."""

    landmarks: Mapping[str, int | None]  # patterns of whole keys that all its files have -> dimensions, where they tell
    read: Reader


FAMILIES: dict[str, Family] = {
    "clay": Family(clay.LANDMARKS, clay.read_clay),
    "dofa": Family(dofa.LANDMARKS, dofa.read_dofa),
    "prithvi": Family(prithvi.LANDMARKS, prithvi.read_prithvi),
    "satlas": Family(satlas.LANDMARKS, satlas.read_satlas),
    "satmae": Family(satmae.LANDMARKS, satmae.read_satmae),
    "seco": Family(seco.LANDMARKS, seco.read_seco),
}


def read_family(name: str, state: Mapping[str, Tensor], prefix: str | None, images: Images, source: str) -> Layout:
    """What a checkpoint of family `name` becomes; `prefix` is of the keys of one network, where several are.

    WeightsError where the keys are another family's, which it names, or say the same thing twice.
    """
    refuse_matter(state, source)
    start = f"{prefix.rstrip('.')}." if prefix and prefix.strip(".") else ""
    inside = {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}
    if _shown_by(FAMILIES[name], inside) is None:
        raise WeightsError(f"{source}: not of the family {name}: {family_seen(inside)}")
    layout = FAMILIES[name].read(inside, images, source)
    given = Counter(parameter for key, parameter in layout.becomes.items() if key not in layout.converted)
    known = layout.becomes.keys() | layout.left.keys()
    for key in inside:
        if key not in known or given[layout.becomes.get(key, "")] > 1:
            raise WeightsError(f"{source}: {key} is there twice, under several prefixes; choose one with --prefix")
    return replace(
        layout,
        becomes={start + key: parameter for key, parameter in layout.becomes.items()},
        converted={start + key: how for key, how in layout.converted.items()},
        left={
            **{start + key: why for key, why in layout.left.items()},
            **{key: "outside the chosen prefix" for key in state if not key.startswith(start)},
        },
    )


def family_seen(state: Mapping[str, Tensor]) -> str:
    """Whose keys these are, in words."""
    for name, family in FAMILIES.items():
        if key := _shown_by(family, state):
            return f"its keys are those of {name} ({key})"
    return f"its first key is {next(iter(state), 'missing')}"


def refuse_matter(keys: Iterable[str], source: str) -> None:
    """WeightsError for MATTER's weights (github.com/periakiva/MATTER, MATTER/models/encoder.py)."""
    if found := next((key for key in keys if re.fullmatch(MATTER, key)), None):
        raise WeightsError(
            f"{source}: MATTER's weights ({found}): the first layer of its ResNet also takes textures that a module "
            "beside it refines, which is not published, so that no timm network computes what it does"
        )


def check_release(name: str | None, digest: str, source: str) -> None:
    """WeightsError for files that are known, by their SHA-256, not to be what their keys say."""
    if name == "dofa":
        dofa.check_order(digest, source)


def _shown_by(family: Family, state: Mapping[str, Tensor]) -> str | None:
    """The first of the family's landmarks as it stands in a checkpoint that has them all."""
    found = [
        next((key for key, value in state.items() if re.fullmatch(pattern, key) and count in (None, value.ndim)), None)
        for pattern, count in family.landmarks.items()
    ]
    return None if None in found else found[0]
