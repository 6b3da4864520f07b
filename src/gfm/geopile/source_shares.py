"""How much of each source is held out, and which places would even that out.

The hash of a place knows nothing of sources: one of few places may have none in the validation split, or most of its
images there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import yaml

from gfm.geopile.place_rule import Side, place_position
from gfm.params import Splits


@dataclass(frozen=True, slots=True)
class SourceShare:
    """How many images of a source lie in which places, of train and of val; what leaks counts nowhere."""

    source: str
    train: Counter[str] = field(default_factory=Counter)
    val: Counter[str] = field(default_factory=Counter)

    @property
    def share(self) -> float | None:
        """Of the source's images, those in val; None where it has none at all."""
        images = self.train.total() + self.val.total()
        return self.val.total() / images if images else None


def source_shares(sources: Sequence[str], places: Sequence[str], splits: Sequence[str]) -> list[SourceShare]:
    """One of every source, sorted, from the columns of data/splits/collection.parquet."""
    shares = {source: SourceShare(source) for source in sorted(set(sources))}
    for source, place, split in zip(sources, places, splits, strict=True):
        if split in ("train", "val"):
            getattr(shares[source], split)[place] += 1
    return list(shares.values())


def most_val_share(val_share: float) -> float:
    """The share of a source's images in val above which too few of them train."""
    return min(max(0.5, 2 * val_share), 1.0)


def unevenness(shares: Sequence[SourceShare], rule: Splits) -> list[str]:
    """A line on every source with no image in val or with most of them there, and the YAML that evens them out."""
    named: dict[str, Side] = {}
    lines: list[str] = []
    for one in shares:
        if one.share is None or 0 < one.share <= most_val_share(rule.val_share):
            continue
        images = one.train + one.val
        many = f"{one.val.total() or 'none'} of its {images.total()} images"
        if len(images) == 1:
            (place,) = images
            lines.append(
                f"{one.source}: {many} are in val, for they are one place, {place}; where that is a block of ground, "
                "a smaller splits.block_km may divide it"
            )
            continue
        lines.append(f"{one.source}: {many} in {len(images)} places are in val")
        held = _about(images, rule.val_share)
        for place in [*sorted(held - set(one.val)), *sorted(set(one.val) - held)]:
            named.setdefault(place, "val" if place in held else "train")
    if named:
        lines.append("to even this out, put under `splits:` in the parameter file")
        for part, old in (("val", rule.val_places), ("train", rule.train_places)):
            kept = [place for place in old if place not in named]
            places = kept + [place for place, split in named.items() if split == part]
            if places or old:
                lines.append(f"  {part}_places: {_flow(places)}")
    return lines


def _about(images: Counter[str], share: float) -> set[str]:
    """Places with about this share of the images, and never with more than half of several: those that hash lowest."""
    total = images.total()
    wanted = max(1, round(share * total))
    most = min(2 * wanted, most_val_share(share) * total)
    chosen: Counter[str] = Counter()
    for place in sorted(images, key=place_position):
        if chosen.total() < wanted and chosen.total() + images[place] <= most:
            chosen[place] = images[place]
    return set(chosen) or {min(images, key=lambda place: (images[place], place_position(place)))}


def _flow(places: Sequence[str]) -> str:
    text: str = yaml.safe_dump(list(places), default_flow_style=True, allow_unicode=True, width=float("inf"))
    return text.strip()
